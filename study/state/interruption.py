"""The exception of a study that stopped before its end and can be resumed; the command line exits with status 3."""


class StudyInterrupted(Exception):
    """The study stopped before its end. The message names the command that continues it."""
