"""Replay of a search from its records through a new director, to verify that it makes the same decisions.

Suggestions, the choice of arms, and stops depend on the seed and on the order of the reports, and the records hold both.
External events cannot be replayed: the time at which a report arrived, and the failure of a process.

The last digits of a Gaussian process depend on the processor and the libraries, and what it suggests depends on them. The replay
counts suggestions of "gp" that have other values, and goes on from the recorded ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from search_spaces.config import Value
from study.scheduling.search_director import SearchDirector
from study.scheduling.warm_start import EarlierTrial
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from trainables.records.record import EpochRecord, EpochReport, TrialRecord, TrialState


@dataclass(slots=True)
class Replay:
    """The result of a replay.

    Attributes:
        num_suggestions: number of equal suggestions, up to the first difference.
        num_reports: number of reports with the same decision, "continue" or "stop", up to the first difference.
        num_stops: number of stops among these decisions.
        num_other_values: suggestions of a Gaussian process with other values than the recorded ones, up to the first difference.
        first_other_values: description of the first of them; "" if there is none.
        difference: description of the first decision that differs; "" if none does.
    """

    num_suggestions: int = 0
    num_reports: int = 0
    num_stops: int = 0
    num_other_values: int = 0
    first_other_values: str = ""
    difference: str = ""


class _ReplayDirector(SearchDirector):
    """A director whose samplers go on from the recorded trials where a Gaussian process suggests other values.

    Attributes:
        other_values: what it suggested instead, by trial.
        problem: none, whatever the number of failed trials: where they ended the search, `study resume` continued it.
    """

    problem = ""

    def __init__(self, recorded: Sequence[TrialRecord], *arguments: Any, **options: Any) -> None:
        self._recorded = {record.trial_id: record for record in recorded}
        self.other_values: dict[str, dict[str, Value]] = {}
        super().__init__(*arguments, **options)

    def _suggest(self, arm: str, trial_id: str) -> dict[str, Value]:
        record, sampler = self._recorded.get(trial_id), self._samplers[arm]
        if record is None or record.config.arm != arm:
            return super()._suggest(arm, trial_id)
        recorded = dict(record.config.hyperparameters)
        suggested = sampler.suggest_again(trial_id, recorded)
        if suggested == recorded or not sampler.was_fitted:
            return suggested
        self.other_values[trial_id] = suggested
        return recorded


@dataclass(slots=True)
class _Replayer:
    """A new director that receives the events of finished records."""

    director: _ReplayDirector
    replay: Replay = field(default_factory=Replay)

    def suggest(self, record: TrialRecord) -> None:
        """Ask for the next trial and compare it with `record`."""
        suggested = self.director.next_trial()
        if suggested is None:
            self.replay.difference = f"trial {record.trial_id} was not suggested"
        elif (suggested.trial_id, suggested.fingerprint) != (record.trial_id, record.fingerprint):
            self.replay.difference = (
                f"trial {record.trial_id}: recorded suggestion {record.config.arm} {dict(record.config.hyperparameters)}, "
                f"replayed {suggested.config.arm} {dict(suggested.config.hyperparameters)}"
            )
        elif values := self.director.other_values.get(record.trial_id):
            self.replay.num_other_values += 1
            self.replay.first_other_values = self.replay.first_other_values or (
                f"trial {record.trial_id}: recorded {dict(record.config.hyperparameters)}, replayed {values}"
            )
            return
        self.replay.num_suggestions += not self.replay.difference

    def report(self, record: TrialRecord, epoch: EpochRecord, device_seconds: float) -> None:
        """Report a recorded epoch and compare the decision."""
        report = EpochReport(metrics=epoch, device_seconds=device_seconds)
        decision = "continue" if self.director.on_report(record.trial_id, report) else "stop"
        if decision != epoch.decision:
            where = f"trial {record.trial_id} at epoch {epoch.epoch}"
            self.replay.difference = f"{where}: recorded decision {epoch.decision!r}, replayed {decision!r}"
        self.replay.num_reports += not self.replay.difference
        self.replay.num_stops += not self.replay.difference and decision == "stop"


def replay_search(
    records: Sequence[TrialRecord],
    specs: Mapping[int, StudySpec],
    *,
    full_trial_seconds: Mapping[str, float] | None = None,
    earlier: Sequence[EarlierTrial] = (),
) -> Replay:
    """Drive a new director through the events of a search, up to the first decision that differs.

    Args:
        records: the search's records.
        specs: number of trials -> the spec that applied from then on: the study's spec at 0, and one per extension.
        full_trial_seconds: see `SearchDirector`.
        earlier: see `SearchDirector`.
    """
    fixed = dict(records[0].config.fixed) if records else {}
    options = {"full_trial_seconds": full_trial_seconds, "earlier": earlier}
    director = _ReplayDirector(records, MemoryBook(), specs[0], fixed, **options)
    replayer = _Replayer(director)
    for _, event in sorted(_events(records, specs, replayer), key=lambda item: item[0]):
        event()
        if replayer.replay.difference:
            break
    return replayer.replay


def _events(
    records: Sequence[TrialRecord], specs: Mapping[int, StudySpec], replayer: _Replayer
) -> list[tuple[int, Callable[[], object]]]:
    """Return every event with its number on the study's event counter."""
    events: list[tuple[int, Callable[[], object]]] = []
    for index, record in enumerate(records):
        if index in specs:
            events.append((record.suggested_order, partial(replayer.director.set_budget, specs[index])))
        events.append((record.suggested_order, partial(replayer.suggest, record)))
        spent = 0.0
        for epoch in record.epochs:
            events.append((epoch.order, partial(replayer.report, record, epoch, epoch.device_seconds - spent)))
            spent = epoch.device_seconds
        broke_off = record.state is TrialState.FAILED and not record.diverged
        if broke_off and record.ended_order is not None:
            events.append((record.ended_order, partial(replayer.director.on_retries_exhausted, record.trial_id)))
    return events
