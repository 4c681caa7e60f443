"""`UserInputError`, which the command line turns into exit status 2."""

import difflib
from collections.abc import Iterable


class UserInputError(ValueError):
    """The user's input cannot be used. The message states the rule, the value, its place and the next action."""


def nearest_name(name: str, valid_names: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest valid name, or the list of valid names if none is near."""
    valid = [str(v) for v in valid_names]
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (valid: {', '.join(valid)})"
