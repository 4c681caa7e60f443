"""The whole chain on planted scenes: the worlds, what counts as found, and the calibration of predictions."""

import numpy as np
import pytest

from analysis.comparison.values import Verdict
from analysis.statistics.interval import Interval
from benchmarks.validation.goals import Goal, Judgement
from benchmarks.validation.planted_loops import NAME, PAIR, LoopOutcome, LoopWorld, TriedArm, calibrate, make_spec
from benchmarks.validation.validate_interventions import KINDS, tabulate_loops
from benchmarks.validation.worlds import WorldCache
from study.spec.reading import validate_spec
from trainables.data.sources.planted_scenes import CueExchange, make_planted_scenes


def make_arm(
    verdict: Verdict | None = Verdict.BETTER,
    *,
    is_asked: bool = True,
    predicted: Interval | None = None,
    measured: Interval | None = None,
) -> TriedArm:
    return TriedArm(
        name="x", is_asked=is_asked, verdict=verdict, predicted=predicted, measured=measured, confidence=0.95
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_world_is_a_study(kind: str) -> None:
    spec = validate_spec(dict(make_spec(LoopWorld(kind=kind), 3)), where=kind)
    assert spec.name == NAME
    assert spec.resources.max_concurrent == 1


def test_the_label_of_a_noisy_pair_says_nothing_beyond_the_shape() -> None:
    options = LoopWorld(kind="label noise").describe()
    options.pop("test_set")
    exchanges = [CueExchange.model_validate(table) for table in options.pop("exchanges")]
    scenes = make_planted_scenes(seed=0, num_images=2000, exchanges=exchanges, **options)
    names = scenes.image_set.class_names
    first, second = (names.index(name) for name in PAIR)
    own = scenes.image_set.labels == first
    shapes = scenes.cue_values["shape"][own]
    assert set(shapes.tolist()) == {first, second}
    assert 0.2 < np.mean(shapes == second) < 0.4
    assert np.mean(scenes.cue_values["texture"][own] == first) < 0.2


def test_only_what_a_finding_asks_for_counts() -> None:
    assert LoopOutcome(arms=(make_arm(),)).is_claimed
    assert not LoopOutcome(arms=(make_arm(is_asked=False), make_arm(Verdict.UNDECIDED), make_arm(None))).is_claimed
    assert not LoopOutcome(arms=()).is_claimed


def test_errors_of_the_predictions_do_not_flatten_the_slope() -> None:
    generator = np.random.default_rng(0)
    truth = generator.uniform(-0.4, 0.0, 200)
    error = 0.1
    x, y = (values + generator.normal(0, error, 200) for values in (truth, 0.7 * truth))
    arms = [
        make_arm(predicted=_around(a, error), measured=_around(b, error))
        for a, b in zip(x.tolist(), y.tolist(), strict=True)
    ]
    found = calibrate([*arms, make_arm(), make_arm(predicted=_around(9.0, error))])
    assert found is not None
    assert found.number == 200
    assert found.slope.low < 0.7 < found.slope.high
    least_squares = np.polyfit(x, y, 1)[0]
    assert abs(found.slope.estimate - 0.7) < abs(least_squares - 0.7)


def _around(value: float, error: float) -> Interval:
    return Interval(estimate=value, low=value - 1.96 * error, high=value + 1.96 * error)


@pytest.mark.parametrize(
    ("num_worlds", "judgements"),
    [(10, [Judgement.OPEN, Judgement.OPEN, Judgement.MISSED]), (30, [Judgement.MET, Judgement.MET, Judgement.MISSED])],
)
def test_ten_worlds_in_which_all_is_claimed_leave_the_goals_of_help_open(
    monkeypatch: pytest.MonkeyPatch, num_worlds: int, judgements: list[Judgement]
) -> None:
    claimed = LoopOutcome(arms=(make_arm(),))
    monkeypatch.setattr(WorldCache, "repeat", lambda _cache, _function, _world, count: [claimed] * count)
    goals: list[Goal] = []
    tabulate_loops(num_worlds, goals)
    assert [goal.judgement for goal in goals] == judgements


def test_no_claim_in_ten_worlds_without_help_leaves_the_goal_open(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = LoopOutcome(arms=(make_arm(Verdict.UNDECIDED),))
    monkeypatch.setattr(WorldCache, "repeat", lambda _cache, _function, _world, count: [nothing] * count)
    goals: list[Goal] = []
    tabulate_loops(10, goals)
    assert [goal.judgement for goal in goals] == [Judgement.MISSED, Judgement.MISSED, Judgement.OPEN]


def test_two_predictions_make_no_line() -> None:
    arm = make_arm(predicted=_around(-0.1, 0.05), measured=_around(-0.1, 0.05))
    assert calibrate([arm, arm]) is None
