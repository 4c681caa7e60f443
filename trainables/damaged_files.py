"""`DamagedFileError`, and the context manager that raises it for whatever a decoder raises."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from search_spaces.errors import UserInputError, first_line

_DECODER_ERRORS: tuple[type[Exception], ...] = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


class DamagedFileError(UserInputError):
    """The content of a file on disk is not what the product wrote. The message names the file."""


@contextmanager
def decoding(where: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise DamagedFileError, naming the file and the place inside it, for what decoding the file raises.

    FileNotFoundError passes through.

    Args:
        where: Path or URI of the file.
        errors: Errors of the decoder besides ValueError, TypeError, LookupError, AttributeError and RecursionError.
    """
    try:
        yield
    except DamagedFileError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DamagedFileError(f"{where} is damaged: {place}: {first['msg']}") from None
    except (*_DECODER_ERRORS, *errors) as error:
        raise DamagedFileError(f"{where} is damaged: {first_line(error)}") from None
