"""The whole chain on planted scenes: the worlds, what counts as found and as right, and predictions against measurements."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from analysis.comparison.values import Verdict
from analysis.interventions.values import Outcome, Prediction
from analysis.statistics.interval import Interval
from benchmarks.pages import Table
from benchmarks.validation.goals import Goal, Judgement
from benchmarks.validation.planted_loops import NAME, NO_REASON, PAIR, LoopOutcome, LoopWorld, make_spec
from benchmarks.validation.validate_loops import KINDS, fit_recalibrations, tabulate_loops
from benchmarks.validation.worlds import WorldCache
from study.spec.reading import validate_spec
from tests.analysis.interventions.stated_values import make_target_effect
from tests.analysis.interventions.test_effects import make_effect
from trainables.data.sources.planted_scenes import CueExchange, make_planted_scenes
from trainables.seeds import numpy_generator


def make_outcome(
    change: float | None = -0.2,
    verdict: Verdict = Verdict.BETTER,
    *,
    is_asked: bool = True,
    predicted: float | None = None,
    p_noninferior: float = 0.001,
) -> LoopOutcome:
    """Return a world with one intervention, whose predicted and measured changes have an interval of 10 pp."""
    effect = make_effect("x", 0.0, Verdict.UNDECIDED, make_target_effect(change or 0.0, 0.05, verdict))
    before = None if predicted is None else Interval(estimate=predicted, low=predicted - 0.05, high=predicted + 0.05)
    stated = replace(
        effect.stated,
        symptom="" if is_asked else NO_REASON,
        prediction=Prediction(effect=before, basis="", before=before),
    )
    target = None if change is None else effect.target
    effect = replace(effect, stated=stated, target=target, p_noninferior=p_noninferior)
    return LoopOutcome(effects=(effect,), alpha=0.025)


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
    assert make_outcome().is_claimed
    assert not make_outcome(is_asked=False).is_claimed
    assert not make_outcome(verdict=Verdict.UNDECIDED).is_claimed
    assert not make_outcome(None).is_claimed
    assert not LoopOutcome().is_claimed


def test_an_outcome_is_read_back_as_it_was_stored() -> None:
    adapter = TypeAdapter(LoopOutcome)
    outcome = make_outcome(predicted=-0.3)
    assert adapter.validate_python(json.loads(adapter.dump_json(outcome))) == outcome


def test_predictions_are_recalibrated_by_worlds_that_they_are_not_judged_on() -> None:
    """Of what is predicted, half comes about; the interval as it was measured refutes itself."""
    generator = numpy_generator(0, "worlds")
    worlds = [
        make_outcome(change / 2, predicted=change + float(generator.normal(0, 0.02)))
        for change in (-generator.uniform(0.1, 0.4, 40)).tolist()
    ]
    known = fit_recalibrations([effect for world in worlds[:20] for effect in world.effects])
    assert known["x"].slope == pytest.approx(0.5, abs=0.03)
    found = [world.recalibrate(known) for world in worlds[20:]]
    outcomes = [effect.outcome for world in found for effect in world.effects]
    assert outcomes.count(Outcome.HELD) >= 19
    before = [effect.outcome for world in worlds[20:] for effect in world.recalibrate({}).effects]
    assert before.count(Outcome.REFUTED) > 5
    # The one intervention has the whole of alpha.
    assert found[0].effects[0].noninferior_level == 0.025
    assert found[0].recommend() == "x"


def tabulate(
    monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, LoopOutcome], tuning: int = 3, held_out: int = 20
) -> tuple[list[Table], dict[str, str]]:
    """Return the tables, and the judgement of each goal by its name."""
    monkeypatch.setattr(WorldCache, "repeat", lambda _cache, _function, world, count: [outcomes[world.kind]] * count)
    goals: list[Goal] = []
    tables, _ = tabulate_loops(dict.fromkeys(KINDS, (tuning, held_out)), 4, goals)
    return tables, {goal.name: goal.judgement for goal in goals}


def test_recommendations_are_right_wrong_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    # The target falls in all worlds of the first two kinds; a loss is not excluded in the second.
    outcomes = {
        "shared texture": make_outcome(),
        "shortcut": make_outcome(p_noninferior=0.5),
        "label noise": make_outcome(0.0),
    }
    tables, judged = tabulate(monkeypatch, outcomes)
    (table,) = (table for table in tables if table.title.startswith("Recommendations"))
    assert table.rows == [
        ["shared texture", "x", "20", "20", "0", "0"],
        ["shortcut", "x", "20", "0", "0", "20"],
        ["label noise", "none", "20", "0", "20", "0"],
    ]
    assert judged["right recommendations in worlds with help"] is Judgement.MISSED
    assert judged["wrong recommendations in worlds with help"] is Judgement.OPEN
    assert judged["recommendations in worlds without help"] is Judgement.MISSED
    outcomes = {"shared texture": make_outcome(), "shortcut": make_outcome(), "label noise": LoopOutcome()}
    _, judged = tabulate(monkeypatch, outcomes, held_out=80)
    assert judged["right recommendations in worlds with help"] is Judgement.MET
    assert judged["recommendations in worlds without help"] is Judgement.MET


def test_the_coverage_of_predictions_is_that_of_worlds_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = dict.fromkeys(KINDS, make_outcome(-0.2, predicted=-0.2))
    tables, judged = tabulate(monkeypatch, outcomes)
    (table,) = (table for table in tables if table.title.startswith("Predictions"))
    assert [row[:2] for row in table.rows] == [["x", "60"]]
    assert table.rows[0][2].startswith("60 of 60")
    assert judged["measured changes that predicted intervals cover"] is Judgement.OPEN


@pytest.mark.parametrize(
    ("num_worlds", "judgements"),
    [(10, [Judgement.OPEN, Judgement.OPEN, Judgement.MISSED]), (30, [Judgement.MET, Judgement.MET, Judgement.MISSED])],
)
def test_ten_worlds_in_which_all_is_claimed_leave_the_goals_of_help_open(
    monkeypatch: pytest.MonkeyPatch, num_worlds: int, judgements: list[Judgement]
) -> None:
    _, judged = tabulate(monkeypatch, dict.fromkeys(KINDS, make_outcome()), 0, num_worlds)
    assert [judgement for name, judgement in judged.items() if name.startswith("worlds with")] == judgements


def test_no_claim_in_ten_worlds_without_help_leaves_the_goal_open(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = make_outcome(verdict=Verdict.UNDECIDED)
    _, judged = tabulate(monkeypatch, dict.fromkeys(KINDS, nothing), 0, 10)
    found = [judgement for name, judgement in judged.items() if name.startswith("worlds with")]
    assert found == [Judgement.MISSED, Judgement.MISSED, Judgement.OPEN]
