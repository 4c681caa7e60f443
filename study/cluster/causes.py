"""The cause of a failed attempt, as records hold it."""

MAX_CAUSE_LINES = 12


def shorten_cause(text: str) -> str:
    """Return the last lines of an error's text, without empty ones."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-MAX_CAUSE_LINES:])
