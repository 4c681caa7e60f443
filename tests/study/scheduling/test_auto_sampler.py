"""The default sampler: TPE and a Gaussian process in turn, then TPE alone; such a search is resumed and replayed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from search_spaces.config import Value
from study.scheduling import sampler as module
from study.scheduling.sampler import ArmSampler, make_arm_sampler
from study.scheduling.search_director import SearchDirector
from study.scheduling.warm_start import EarlierTrial
from study.spec.reading import validate_spec
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from study.views.replaying import replay_search
from tests.study.simulated import FIXED, drive, learning_curve, make_spec
from tests.study.views.test_replaying import kill_often
from trainables.records.record import TrialRecord, TrialState

NUM_GP_TRIALS = 8


@pytest.fixture(autouse=True)
def few_gp_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_GP_TRIALS", NUM_GP_TRIALS)


def noisy_curve(record: TrialRecord, epoch: int) -> float | None:
    """Return a curve with noise, which diverges for one trial in eight."""
    noise = random.Random(f"{record.trial_id} {epoch}").uniform(-0.1, 0.1)
    return None if int(record.trial_id) % 8 == 5 and epoch == 2 else learning_curve(record, epoch) + noise


def make_sampler(name: str, num_told: int) -> ArmSampler:
    """Return a sampler that has heard of so many trials, the odd ones of them stopped."""
    spec = make_spec(sampler=name, start=[])
    sampler = make_arm_sampler(spec.arms()[0], spec)
    for number in range(num_told):
        tell(sampler, str(number), sampler.suggest(str(number)), is_stopped=number % 2 == 1)
    return sampler


def tell(sampler: ArmSampler, trial_id: str, values: Mapping[str, Value], *, is_stopped: bool) -> None:
    score = 0.8 - abs(float(values["max_lr"]) - 0.05)
    sampler.report(trial_id, 4, score - 0.1)
    if is_stopped:
        sampler.finish(trial_id, TrialState.PRUNED, None, diverged=False)
    else:
        sampler.report(trial_id, 6, score)
        sampler.finish(trial_id, TrialState.COMPLETE, score, diverged=False)


def test_it_is_the_default() -> None:
    assert validate_spec({"name": "small", "data": {"source": "planted"}}, where="test").search.sampler == "auto"


@pytest.mark.parametrize(
    ("num_told", "name"),
    [(6, "tpe_multivariate"), (7, "gp"), (NUM_GP_TRIALS, "tpe_multivariate"), (NUM_GP_TRIALS + 1, "tpe_multivariate")],
)
def test_it_suggests_by_tpe_and_the_gaussian_process_in_turn_and_later_by_tpe(num_told: int, name: str) -> None:
    auto = make_sampler("auto", num_told)
    spec = make_spec(sampler=name, start=[])
    other = make_arm_sampler(spec.arms()[0], spec)
    for number, trial in enumerate(auto.trials):
        values = {**dict(spec.arms()[0].space.fixed), **trial.params}
        other.restore(str(number), values)
        tell(other, str(number), values, is_stopped=number % 2 == 1)
    assert auto.suggest("next") == other.suggest("next")
    assert auto.was_fitted == other.was_fitted == (name == "gp")


def test_a_warm_start_from_many_trials_begins_with_tpe() -> None:
    spec = make_spec(sampler="auto", start=[])
    arm = spec.arms()[0]
    values = make_sampler("random", 0)
    earlier = [
        EarlierTrial(
            trial_id=f"earlier-{number}",
            arm=arm.name,
            hyperparameters=values.suggest(str(number)),
            state=TrialState.PRUNED if number % 2 else TrialState.COMPLETE,
            scores=((4, 0.3), (6, 0.4 + 0.01 * number))[: 1 if number % 2 else 2],
            num_epochs=6,
            diverged=False,
        )
        for number in range(NUM_GP_TRIALS + 4)
    ]
    for num_earlier, was_fitted in ((NUM_GP_TRIALS - 2, [False, True]), (NUM_GP_TRIALS + 4, [False, False])):
        sampler, found = make_arm_sampler(arm, spec, earlier[:num_earlier]), []
        for trial_id in ("first", "second"):
            sampler.suggest(trial_id)
            found.append(sampler.was_fitted)
        assert found == was_fitted


def make_auto_spec(num_trials: int) -> StudySpec:
    return make_spec(num_trials=num_trials, sampler="auto")


@pytest.mark.parametrize("max_events", [31, 75])
def test_a_search_that_is_killed_before_or_after_the_change_goes_on_as_one_that_was_not(max_events: int) -> None:
    spec, whole, killed = make_auto_spec(28), MemoryBook(), MemoryBook()
    drive(SearchDirector(whole, spec, FIXED), noisy_curve, num_workers=1)
    drive(SearchDirector(killed, spec, FIXED), noisy_curve, num_workers=1, max_events=max_events)
    assert 0 < len(killed.of_stage("search")) < 28
    drive(SearchDirector(killed, spec, FIXED), noisy_curve, num_workers=1)
    suggested = [[r.config.hyperparameters for r in book.of_stage("search")] for book in (whole, killed)]
    assert suggested[0] == suggested[1]
    replay = replay_search(killed.of_stage("search"), {0: spec})
    assert (replay.num_suggestions, replay.num_other_values, replay.difference) == (28, 0, "")


def test_search_of_parallel_trials_that_is_killed_again_and_again_replays_across_the_change() -> None:
    spec = make_auto_spec(28)
    replay = replay_search(kill_often(spec, 8).of_stage("search"), {0: spec})
    assert (replay.num_suggestions, replay.num_other_values, replay.difference) == (28, 0, "")


def find_suggested(records: Sequence[TrialRecord], arm: str, number: int) -> int:
    """Return the place of the arm's trial with this number in its arm."""
    return [place for place, record in enumerate(records) if record.config.arm == arm][number]


def change_max_lr(record: TrialRecord) -> TrialRecord:
    """Return the record with a max_lr that is another in its last digits."""
    values = dict(record.config.hyperparameters)
    config = replace(record.config, hyperparameters={**values, "max_lr": float(values["max_lr"]) * (1 + 1e-12)})
    return record.updated(config=config, fingerprint=config.fingerprint)


def test_other_values_of_a_gaussian_process_are_counted_and_the_rest_is_replayed() -> None:
    spec, book = make_auto_spec(28), MemoryBook()
    drive(SearchDirector(book, spec, FIXED), learning_curve, num_workers=1)
    # As on another processor, where the last suggestion of the Gaussian process differs.
    records = list(book.of_stage("search"))
    place = find_suggested(records, "resnet18", NUM_GP_TRIALS - 1)
    records[place] = change_max_lr(records[place])
    replay = replay_search(records, {0: spec})
    assert f"trial {records[place].trial_id}: recorded" in replay.first_other_values
    assert replay.num_other_values == 1
    assert replay.num_suggestions > place
    # A suggestion that comes from the seed alone is the same everywhere.
    records = list(book.of_stage("search"))
    place = find_suggested(records, "resnet18", 2)
    records[place] = change_max_lr(records[place])
    replay = replay_search(records, {0: spec})
    assert f"trial {records[place].trial_id}: recorded suggestion" in replay.difference
    assert (replay.num_suggestions, replay.num_other_values) == (place, 0)
