"""Models of finished trials, rebuilt from their stored weights."""

from torch import nn

from trainables.models.backbones import build_model
from trainables.records.record import TrialRecord
from trainables.records.trial_files import TrialFiles


def load_model(files: TrialFiles, record: TrialRecord, num_classes: int) -> nn.Module:
    """Return a trial's final model on the CPU.

    Args:
        files: of the trial.
        record: of the trial: its configuration, and the digests that its weights must have.
        num_classes: K, the outputs of the model.

    Raises:
        DamagedFileError: naming weights that are missing or are not those that were stored.
    """
    return files.load_weights(build_model(record.config, num_classes, weights="none"), record.digests)
