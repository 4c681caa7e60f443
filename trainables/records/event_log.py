"""`EventLog`: one trial's TensorBoard events (scalars, HParams, a batch, confusion matrix)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.plugins.hparams import summary_v2
from torch.utils.tensorboard import SummaryWriter

from search_spaces.config import TrialConfig, Value
from search_spaces.space import FloatParameter, IntParameter, Parameter
from trainables.records.confusion_figure import plot_confusion_matrix
from trainables.training.epoch_metrics import METRIC_TAG, EpochMetrics
from trainables.training.trial_data import TrialData


class EventLog:
    """Writes one trial's TensorBoard events into a local folder."""

    def __init__(
        self,
        folder: Path,
        config: TrialConfig,
        name: str,
        data: TrialData,
        space: Sequence[Parameter],
        first_epoch: int,
    ) -> None:
        """Open the log and write the trial's hyperparameters.

        Args:
            folder: Folder of the trial.
            config: Configuration of the trial.
            name: Name of the session in TensorBoard; unique in the study, so it includes the stage.
            data: Has the K names for the per-class tags.
            space: All searched parameters of the study, conditional ones included, so that TensorBoard shows all trials
                in one table.
            first_epoch: Earlier events of this epoch and later ones, from an interrupted attempt, are superseded.
        """
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch)
        self._class_names = data.class_names
        self._write_hyperparameters(config, name, space)

    def write_epoch(self, metrics: EpochMetrics) -> None:
        """Write the scalars of one epoch; numbers that were not finite are left out."""
        of_classes = zip(self._class_names, metrics.per_class_f1, strict=False)
        scalars = metrics.scalars | {f"class_f1/{name}": value for name, value in of_classes}
        for tag, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(tag, value, metrics.epoch)
        self._writer.flush()

    def write_batch(self, images: NDArray[np.uint8]) -> None:
        """Write augmented training images, (N, H, W, 3), as one picture."""
        self._writer.add_images("batch/augmented", images, 0, dataformats="NHWC")

    def write_confusion(self, counts: NDArray[np.int64], epoch: int) -> None:
        """Write a confusion matrix, (K, K) with row = true class, as an image."""
        figure = plot_confusion_matrix(counts, self._class_names)
        self._writer.add_figure("confusion_matrix/search", figure, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()

    def _write_hyperparameters(self, config: TrialConfig, trial_id: str, space: Sequence[Parameter]) -> None:
        columns = [summary_v2.HParam(parameter.name, _domain(parameter)) for parameter in space]
        metrics = [summary_v2.Metric(METRIC_TAG, display_name="macro-F1 (search)")]
        experiment = summary_v2.hparams_config_pb(hparams=columns, metrics=metrics, time_created_secs=0.0)
        own = config.hyperparameters
        values: dict[str, Value] = {p.name: own[p.name] for p in space if p.name in own}
        session = summary_v2.hparams_pb(values, trial_id=trial_id)
        file_writer = self._writer._get_file_writer()
        file_writer.add_summary(experiment, 0)
        file_writer.add_summary(session, 0)
        self._writer.flush()


def _domain(parameter: Parameter) -> summary_v2.Domain | None:
    if isinstance(parameter, FloatParameter):
        return summary_v2.RealInterval(parameter.low, parameter.high)
    if isinstance(parameter, IntParameter):
        return summary_v2.IntInterval(parameter.low, parameter.high)
    choices = list(parameter.choices)
    if {type(choice) for choice in choices} == {int, float}:
        choices = [float(choice) for choice in choices]
    # TensorBoard's domains hold values of one type.
    return summary_v2.Discrete(choices) if len({type(choice) for choice in choices}) == 1 else None
