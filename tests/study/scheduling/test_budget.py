"""Device time is equal for every arm, and within the budget if there is one."""

import pytest

from search_spaces.errors import UserInputError
from study.scheduling.budget import DeviceTimeLedger, is_search_finished
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from study.views.study_cost import check_device_seconds
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.record import TrialRecord

FULL = {"resnet18": 6.0, "resnet50": 18.0}


def run_budget(
    device_seconds: float, *, num_workers: int = 2, full: dict[str, float] | None = FULL, **search: object
) -> tuple[TrialRecord, ...]:
    spec = make_spec(num_trials=None, device_seconds=device_seconds, **search)
    book = MemoryBook()
    director = SearchDirector(book, spec, FIXED, full_trial_seconds=full)
    drive(director, num_workers=num_workers)
    assert director.is_exhausted
    records = book.of_stage("search")
    assert is_search_finished(records, spec, full)
    return records


@pytest.mark.parametrize("num_workers", [1, 2, 8, 16])
@pytest.mark.parametrize("asha", [True, False])
def test_budget_is_spent_in_equal_parts_and_never_exceeded_by_a_trial(num_workers: int, asha: bool) -> None:
    records = run_budget(600.0, num_workers=num_workers, pruning="asha" if asha else "none")
    spent = {arm: sum(r.device_seconds for r in records if r.config.arm == arm) for arm in FULL}
    # What is left over is less than a trial of the arm; what is too much is less than the running ones' surprise.
    for arm, seconds in spent.items():
        assert 300 - FULL[arm] <= seconds <= 300 + (0 if not asha else num_workers * FULL[arm] / 2)
    if num_workers <= 8:
        assert abs(spent["resnet50"] / sum(spent.values()) - 0.5) <= 0.05


def test_unmeasured_costs_are_estimated_from_the_first_trials() -> None:
    records = run_budget(300.0, full=None)
    assert 240 <= sum(r.device_seconds for r in records) <= 318


def test_arm_whose_part_is_used_up_waits_for_its_running_trials() -> None:
    def see(a: tuple[list[float], list[float]], b: tuple[list[float], list[float]]) -> DeviceTimeLedger:
        finished, running = {"a": a[0], "b": b[0]}, {"a": a[1], "b": b[1]}
        full = {"a": 6.0, "b": 9.0}
        return DeviceTimeLedger(finished=finished, running=running, budget=20.0, full_trial_seconds=full)

    assert see(([], []), ([], [])).choose() == "a"
    assert see(([], [0.0]), ([], [])).choose() == "b"
    both_run = see(([], [0.0]), ([], [0.0]))
    assert both_run.choose() is None
    assert not both_run.is_spent
    assert see(([2.0], []), ([], [0.0])).choose() == "a"
    assert not see(([2.0], []), ([9.0], [])).is_spent


def test_pooled_search_is_one_arm_over_the_whole_space() -> None:
    spec, book = make_spec(allocation="pooled", num_trials=12), MemoryBook()
    drive(SearchDirector(book, spec, FIXED))
    records = book.of_stage("search")
    assert {r.config.arm for r in records} == {"all"}
    assert {r.config.hyperparameters["backbone"] for r in records} == {"resnet18", "resnet50"}


def test_budget_below_one_full_trial_per_arm_is_refused_with_the_numbers() -> None:
    spec = make_spec(num_trials=None, device_seconds=35.0)
    with pytest.raises(UserInputError, match=r"\(6 for resnet18, 18 for resnet50\), so 36 or more, but got 35"):
        check_device_seconds(spec, FULL)
    check_device_seconds(make_spec(num_trials=None, device_seconds=36.0), FULL)


def test_two_budgets_are_refused() -> None:
    with pytest.raises(UserInputError, match="num_trials or device_seconds, not both"):
        make_spec(num_trials=8, device_seconds=100.0)
