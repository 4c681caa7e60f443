"""A replay: the recorded search decided again, by a new sampler and scheduler.

Suggestions, the choice of arms, and stops depend on the seed and on the order of the reports, and the records hold both.
External events cannot be replayed: the time at which a report arrived, and the failure of a process.

The last digits of a Gaussian process depend on the processor and the libraries, and what it suggests depends on them. The replay
counts suggestions of "gp" that have other values, and goes on from the recorded ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from search_spaces.config import Value
from study.inputs.provenance import list_arithmetic_changes
from study.open_study import full_trial_seconds, load_study, read_passport
from study.scheduling.search_director import SearchDirector
from study.scheduling.warm_start import EarlierTrial, earlier_trials
from study.spec.study_spec import StudySpec
from study.state.budget_extensions import launched_spec, specs_over_time
from study.state.record_book import MemoryBook
from study.views.printing import print_line
from trainables.records.record import EpochRecord, EpochReport, TrialRecord, TrialState
from trainables.storage.store import Store


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
    """A director that receives the events of finished records, and compares its decisions with theirs.

    Its samplers go on from the recorded trials where a Gaussian process suggests other values.

    Attributes:
        replay: the result so far.
        problem: none, whatever the number of failed trials: where they ended the search, `study resume` continued it.
    """

    problem = ""

    def __init__(self, recorded: Sequence[TrialRecord], *arguments: Any, **options: Any) -> None:
        self.replay = Replay()
        self._recorded = {record.trial_id: record for record in recorded}
        # What the Gaussian process suggested instead, by trial.
        self._other_values: dict[str, dict[str, Value]] = {}
        super().__init__(*arguments, **options)

    def _suggest(self, arm: str, trial_id: str) -> dict[str, Value]:
        record, sampler = self._recorded.get(trial_id), self._samplers[arm]
        if record is None or record.config.arm != arm:
            return super()._suggest(arm, trial_id)
        recorded = dict(record.config.hyperparameters)
        suggested = sampler.suggest(trial_id)
        if suggested == recorded or not sampler.was_fitted:
            return suggested
        sampler.go_on_from(trial_id, recorded)
        self._other_values[trial_id] = suggested
        return recorded

    def compare_suggestion(self, record: TrialRecord) -> None:
        """Suggest the next trial and compare it with `record`."""
        suggested, values = self.next_trial(), dict(record.config.hyperparameters)
        if suggested is None:
            self.replay.difference = f"trial {record.trial_id} was not suggested"
        elif (suggested.trial_id, suggested.fingerprint) != (record.trial_id, record.fingerprint):
            self.replay.difference = (
                f"trial {record.trial_id}: recorded suggestion {record.config.arm} {values}, "
                f"replayed {suggested.config.arm} {dict(suggested.config.hyperparameters)}"
            )
        elif other := self._other_values.get(record.trial_id):
            self.replay.num_other_values += 1
            text = f"trial {record.trial_id}: recorded {values}, replayed {other}"
            self.replay.first_other_values = self.replay.first_other_values or text
        else:
            self.replay.num_suggestions += 1

    def compare_decision(self, record: TrialRecord, epoch: EpochRecord, device_seconds: float) -> None:
        """Take the report of a recorded epoch and compare the decision."""
        report = EpochReport(metrics=epoch, device_seconds=device_seconds)
        decision = "continue" if self.on_report(record.trial_id, report) else "stop"
        if decision != epoch.decision:
            where = f"trial {record.trial_id} at epoch {epoch.epoch}"
            self.replay.difference = f"{where}: recorded decision {epoch.decision!r}, replayed {decision!r}"
            return
        self.replay.num_reports += 1
        self.replay.num_stops += decision == "stop"


def replay_study(store: Store, console: Console) -> bool:
    """Replay the search from its records; return whether every decision is the same.

    A Gaussian process may suggest other values where processor or versions are not those of the launch.
    """
    result = replay_search(
        load_study(store).book.of_stage("search"),
        specs_over_time(store, launched_spec(store)),
        full_trial_seconds=full_trial_seconds(store),
        earlier=earlier_trials(store),
    )
    print_line(
        f"replayed with the same decisions, in order: {result.num_suggestions} suggestions and {result.num_reports} reports, "
        f"{result.num_stops} of them stops" + (f"; first difference: {result.difference}" if result.difference else ""),
        console,
    )
    changes = list_arithmetic_changes(read_passport(store))
    if result.num_other_values:
        print_line(_describe_other_values(result, changes), console)
    return not result.difference and bool(changes or not result.num_other_values)


def _describe_other_values(result: Replay, changes: Sequence[str]) -> str:
    where = "; ".join(changes) or (
        "but processor and versions are those of the launch: the search was resumed on another machine, or a record was changed"
    )
    return (
        f"suggestions of the Gaussian process with other values: {result.num_other_values}, each of which "
        f"the replay replaced by the recorded one; its last digits depend on the machine ({where}). "
        f"The first: {result.first_other_values}"
    )


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
    for _, event in sorted(_list_events(records, specs, director), key=lambda item: item[0]):
        event()
        if director.replay.difference:
            break
    return director.replay


def _list_events(
    records: Sequence[TrialRecord], specs: Mapping[int, StudySpec], director: _ReplayDirector
) -> list[tuple[int, Callable[[], object]]]:
    """Return every event with its number on the study's event counter."""
    events: list[tuple[int, Callable[[], object]]] = []
    for index, record in enumerate(records):
        if index in specs:
            events.append((record.suggested_order, partial(director.set_budget, specs[index])))
        events.append((record.suggested_order, partial(director.compare_suggestion, record)))
        spent = 0.0
        for epoch in record.epochs:
            events.append(
                (epoch.order, partial(director.compare_decision, record, epoch, epoch.device_seconds - spent))
            )
            spent = epoch.device_seconds
        broke_off = record.state is TrialState.FAILED and not record.diverged
        if broke_off and record.ended_order is not None:
            events.append((record.ended_order, partial(director.on_retries_exhausted, record.trial_id)))
    return events
