"""The format of a study's files: one number, which each of them holds."""

from search_spaces.errors import UserInputError

# Raise it when the form of a file changes (tests/golden/test_golden.py compares the forms), and write the golden study again.
FORMAT = 7


def check_format(found: object, where: str) -> None:
    """Raise UserInputError unless a file has the present format.

    Args:
        found: Its number; None where it has none.
        where: The file, for the message.
    """
    if found != FORMAT:
        number = "no format number" if found is None else f"format {found}"
        raise UserInputError(
            f"{where} has {number}, but this abstudy reads format {FORMAT}; open it with the version that wrote it"
        )
