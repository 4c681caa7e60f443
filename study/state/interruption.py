"""The exception of a study that stopped before its end and can be resumed; the command line exits with status 3."""


class StudyInterrupted(Exception):
    """The study stopped before its end. The message names the command that continues it."""


def storage_interruption(error: Exception) -> StudyInterrupted:
    """Return the interruption of a study whose records could not be written."""
    return StudyInterrupted(
        f"the study stopped: {error}; fix the storage, then continue with `study resume`; no finished epoch is lost"
    )
