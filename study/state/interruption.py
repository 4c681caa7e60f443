"""The one exception that means "stopped before the end, resumable"; the command line turns it into exit status 3."""


class StudyInterrupted(Exception):
    """The study stopped before its end. The message says how to continue it."""
