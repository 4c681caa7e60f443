"""Text for the terminal."""

from rich.console import Console


def print_line(text: str, console: Console, end: str = "\n") -> None:
    """Print text as it is: unwrapped, without markup or colors."""
    console.print(text, soft_wrap=True, highlight=False, markup=False, end=end)
