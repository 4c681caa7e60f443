"""Pages of the documentation that are generated from the code: text written by people above a mark, the reference below it."""

import textwrap
from pathlib import Path

FOLDER = Path(__file__).parent
MARK = "<!-- Generated from here on; run `python -m docs.{module}` instead of editing. -->"
WIDTH = 120


def wrap(text: str, indent: str = "") -> str:
    """Return a paragraph in lines of at most `WIDTH` characters, all but the first one indented."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def join_words(words: list[str], last: str = "or") -> str:
    """Return "a, b or c"."""
    return f" {last} ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def build_page(page: str, module: str, reference: str) -> str:
    """Return the text of a page with a new reference below its mark.

    Args:
        page: File name in docs/, such as "spec.md".
        module: Name of the module in docs/ that generates the reference.
        reference: In Markdown.
    """
    mark = MARK.format(module=module)
    written, found, _ = (FOLDER / page).read_text(encoding="utf-8").partition(mark)
    if not found:
        raise ValueError(f"docs/{page} must contain the line {mark}")
    return f"{written}{mark}\n\n{reference.strip()}\n"


def write_page(page: str, text: str) -> None:
    """Write a page and print its path."""
    path = FOLDER / page
    path.write_text(text, encoding="utf-8")
    print(path)
