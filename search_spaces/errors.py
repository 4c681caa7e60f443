"""The one error that means "the user's input is wrong"; the command line turns it into exit status 2."""

import difflib
from collections.abc import Iterable


class UserInputError(ValueError):
    """What the user gave cannot be used. The message names what, where, and the next action, in one or two lines."""


def nearest_name(name: str, valid_names: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest valid name, or the list of valid names if none is near."""
    valid = [str(v) for v in valid_names]
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (valid: {', '.join(valid)})"
