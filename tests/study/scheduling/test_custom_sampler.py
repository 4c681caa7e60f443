"""Custom samplers: whatever state they keep, a resumed search goes on as an uninterrupted one."""

import copy

import optuna
import pytest

from search_spaces.distributions import suggest_hyperparameters
from search_spaces.errors import UserInputError
from study.scheduling.sampler import check_custom_sampler
from study.scheduling.search_director import SearchDirector
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from tests.study.replaying import replay_search
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.record import TrialRecord
from trainables.seeds import derive_seed

pytestmark = pytest.mark.usefixtures("trusted")

MODULE = "tests.study.scheduling.own_samplers"
# The first arm of an interrupted and of an uninterrupted search has the same trials only if no time decides.
ONE_BY_ONE = {"epoch_cost": {"resnet18": 1.0, "resnet50": 1.0}, "pruning": "none"}


def make_own_spec(function: str, **search: object) -> StudySpec:
    return make_spec(sampler=f"{MODULE}:{function}", **search)


def run_search(spec: StudySpec, stops: tuple[int, ...] = ()) -> list[TrialRecord]:
    """Return the records of a search that is stopped and resumed after so many reports each."""
    book = MemoryBook()
    for stop in (*stops, None):
        drive(SearchDirector(book, spec, dict(FIXED)), num_workers=1, max_events=stop)
        kept = MemoryBook()
        for record in book.of_stage("search"):
            kept.save(copy.deepcopy(record))
        book = kept
    return list(book.of_stage("search"))


@pytest.mark.parametrize("function", ["make_qmc", "make_nsga", "make_random"])
def test_a_resumed_search_suggests_what_an_uninterrupted_one_does(function: str) -> None:
    spec = make_own_spec(function, num_trials=14, **ONE_BY_ONE)
    whole, resumed = run_search(spec), run_search(spec, stops=(15, 21))
    assert [r.config.hyperparameters for r in resumed] == [r.config.hyperparameters for r in whole]
    assert len({repr(r.config.hyperparameters) for r in whole}) == 14


@pytest.mark.parametrize("function", ["make_qmc", "make_nsga"])
def test_a_replay_makes_the_same_decisions(function: str) -> None:
    spec = make_own_spec(function, num_trials=16)
    records = run_search(spec)
    replay = replay_search(records, {0: spec})
    assert (replay.difference, replay.num_suggestions) == ("", 16)


def test_suggestions_are_those_of_one_sampler_that_is_seeded_for_the_arm() -> None:
    spec = make_own_spec("make_random", num_trials=8, **ONE_BY_ONE)
    arm = spec.arms()[0]
    seed = derive_seed(spec.seed, "sampler", arm.name) % 2**32
    plain = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    expected = [suggest_hyperparameters(arm.space, plain.ask()) for _ in range(4)]
    own = [dict(r.config.hyperparameters) for r in run_search(spec) if r.config.arm == arm.name]
    assert own == expected


def test_a_study_goes_on_from_its_records_where_the_sampler_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_own_spec("make_other", num_trials=4, **ONE_BY_ONE)
    book = MemoryBook()
    drive(SearchDirector(book, spec, dict(FIXED)), num_workers=1, max_events=13)
    before = [dict(r.config.hyperparameters) for r in book.of_stage("search")]
    monkeypatch.setenv("OTHER_SAMPLER", "1")
    with pytest.warns(UserWarning, match="no longer suggests what trial 0000"):
        director = SearchDirector(book, spec, dict(FIXED))
    drive(director, num_workers=1)
    after = [dict(r.config.hyperparameters) for r in book.of_stage("search")]
    assert after[: len(before)] == before
    assert len(after) == 4
    finished = [t for sampler in director._samplers.values() for t in sampler.trials if t.state.name == "COMPLETE"]
    assert len(finished) == 4


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("make_name", "must return an optuna.samplers.BaseSampler, but returned str"),
        ("make_without_seed", "must be a function of the argument seed alone"),
        ("make_with_error", r"failed with RuntimeError: no license for 0 \(.*own_samplers.py, line \d+\)"),
        ("make_broken", r"failed with LookupError: 4 arguments"),
        ("make_unseeded", "from the same seed, so the study could not be resumed"),
        ("calls", "must be a function with a signature, but is count"),
        ("make_qcm", "cannot be imported .AttributeError"),
    ],
)
def test_a_sampler_that_cannot_be_used_is_refused_before_the_launch(function: str, words: str) -> None:
    with pytest.raises(UserInputError, match=words):
        check_custom_sampler(make_own_spec(function))


@pytest.mark.parametrize("function", ["make_qmc", "make_nsga", "make_random"])
def test_a_sampler_that_can_be_used_is_not_refused(function: str) -> None:
    check_custom_sampler(make_own_spec(function))
    check_custom_sampler(make_spec(sampler="gp"))
