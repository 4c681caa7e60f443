"""`DamagedFileError`: what is raised, with its name in the message, for a file that is not what the product wrote."""

from search_spaces.errors import UserInputError


class DamagedFileError(UserInputError):
    """A file on disk is not what the product wrote."""
