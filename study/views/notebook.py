"""A study in Python, for notebooks: `study.load(uri)`. It only reads, and does not start Ray.

What computes is imported by the methods that need it, so that opening a study and reading its findings takes a second.
"""

from __future__ import annotations

import html
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.comparison.tables import HEADER, build_table_rows, list_values
from analysis.report.rendering import mark_code
from analysis.report.study_findings import Findings
from analysis.report.summary import summarize
from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, count_noun
from search_spaces.extensions import trusting_code
from study.open_study import OpenStudy, load_study, read_passport
from study.results.stored_findings import load_findings, load_rounds
from study.state.paths import FINDINGS, open_study
from trainables.records.record import TrialRecord
from trainables.training.epoch_metrics import EpochMetrics

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best search trial of an arm.

    Attributes:
        trial_id: id of the trial.
        config: its configuration.
        model: its model with the final weights, in eval mode.
    """

    trial_id: str
    config: TrialConfig
    model: nn.Module


class Study:
    """A study on disk, finished or not. Open it with `study.load`."""

    def __init__(self, opened: OpenStudy, *, trusts_code: bool = False) -> None:
        self._opened, self._trusts_code = opened, trusts_code

    @property
    def name(self) -> str:
        """The name of the study."""
        return self._opened.name

    def records(self) -> pd.DataFrame:
        """Return a row per trial, with stage, arm, state, seed, fold, hyperparameters, last macro-F1 and device-seconds."""
        import pandas as pd

        return pd.DataFrame([_flatten(record) for record in self._opened.book])

    def epochs(self) -> pd.DataFrame:
        """Return a row per epoch of every trial, with the stage, id and arm of the trial.

        Of a study that was run with `--profile`, the seconds of each part of an epoch are columns such as `seconds_forward`.
        """
        import pandas as pd

        rows = [
            {"stage": r.stage, "trial_id": r.trial_id, "arm": r.config.arm, **_flatten_epoch(epoch)}
            for r in self._opened.book
            for epoch in r.epochs
        ]
        return pd.DataFrame(rows)

    def findings(self) -> Findings:
        """Return the values of the report; raise UserInputError if the study has not been analyzed."""
        return load_findings(self._opened)

    def comparison(self) -> pd.DataFrame:
        """Return a row per row of the A/B table, with the columns of comparison.csv; `findings().rows` has the values."""
        import pandas as pd

        return pd.DataFrame([list_values(row) for row in self.findings().rows])

    def images(self) -> pd.DataFrame:
        """Return a row per test image and arm, over the seeds of the comparison: what the models predict, and how surely.

        The columns are those of `analysis.arms.arm_evidence.tabulate_images`, and `file` where images were files and the
        study has been analyzed.

        Raises:
            UserInputError: if the study has not been confirmed, or all runs of its confirmation diverged.
        """
        import pandas as pd

        from analysis.arms.arm_evidence import tabulate_images
        from study.confirmation.evidence import load_evidence, require_plan
        from study.results.figure_files import load_image_files

        names = read_passport(self._opened.store)["data"]["class_names"]
        evidence = load_evidence(self._opened, require_plan(self._opened))
        finished = [found.finished() for found in evidence.values()]
        tables = [tabulate_images(found, names) for found in finished if found.runs]
        if not tables:
            raise UserInputError(
                f"every run of the confirmation of {self.name!r} diverged, so that no image has a prediction"
            )
        images, files = pd.concat(tables, ignore_index=True), load_image_files(self._opened.store)
        if files:
            images.insert(2, "file", images["sample_id"].map(files))
        return images

    def _repr_html_(self) -> str:
        """Return the first answers and the A/B table of an analyzed study; else how far it is."""
        import pandas as pd

        title = f"<b>{html.escape(self.name)}</b>"
        if not self._opened.store.exists(FINDINGS):
            return f"{title}: {count_noun(len(list(self._opened.book)), 'trial')}; not analyzed yet"
        findings = replace(self.findings(), argument=self._opened.store.argument)
        rows = build_table_rows(findings.rows)
        answers = "".join(
            f"<p><b>{html.escape(question)}:</b> {mark_code(answer)}</p>"
            for question, answer in summarize(findings, rows, load_rounds(self._opened))
        )
        table = pd.DataFrame([row.cells for row in rows], columns=list(HEADER)).to_html(index=False, border=0)
        return f"<h4>{html.escape(self.name)}</h4>{answers}{table if rows else ''}"

    def best(self, arm: str) -> Best:
        """Return the best search trial of `arm`.

        Raises:
            UserInputError: if there is no such arm, none of its trials has run every epoch, or its weights were not kept.
        """
        from study.confirmation.trained_models import load_model
        from study.state.record_book import open_trial_files
        from study.views.reproduction import find_best_trial
        from trainables.training.trainable import is_own_loop

        best = find_best_trial(self._opened, arm)
        class_names = read_passport(self._opened.store)["data"]["class_names"]
        if is_own_loop(best.config):
            raise UserInputError(
                f"the best trial of the arm {arm!r} was trained by {best.config.word('trainable')} and is no torch model; "
                f"`study export` writes its state, and the lines that load it"
            )
        if best.weights_dropped:
            raise UserInputError(
                f"the weights of trial {best.trial_id}, the best of the arm {arm!r}, were not kept (search.keep_weights); "
                f"`study reproduce {self._opened.store.argument} --arm {shlex.quote(arm)}` trains it again"
            )
        with trusting_code(self._trusts_code):
            model = load_model(open_trial_files(self._opened.store, best), best, len(class_names))
        return Best(trial_id=best.trial_id, config=best.config, model=model.eval())


def load(study: str | Path, storage: str | Path | None = None, *, trust_code: bool = False) -> Study:
    """Open a study for reading.

    Args:
        study: a path, a URI, or the name of a study under the storage root.
        storage: the storage root; None for $STUDY_STORAGE, or ./studies.
        trust_code: whether `best` may run code of the working folder that the study names, such as that of a backbone.

    Raises:
        UserInputError: if there is no such study.
    """
    return Study(load_study(open_study(str(study), None if storage is None else str(storage))), trusts_code=trust_code)


def _flatten_epoch(epoch: EpochMetrics) -> dict[str, Any]:
    parts = {f"seconds_{part}": seconds for part, seconds in epoch.part_seconds}
    return epoch.model_dump(exclude={"part_seconds"}) | parts


def _flatten(record: TrialRecord) -> dict[str, object]:
    return {
        "stage": record.stage,
        "trial_id": record.trial_id,
        "arm": record.config.arm,
        "state": record.state.value,
        "seed": record.config.seed,
        "fold": record.config.fold,
        **record.config.hyperparameters,
        "num_epochs": len(record.epochs),
        "macro_f1": record.last_macro_f1,
        "confirm_macro_f1": record.confirm_macro_f1,
        "device_seconds": record.device_seconds,
        "reason": record.reason,
    }
