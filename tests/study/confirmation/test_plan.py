"""plan.json: written, read back, changed by hand, damaged."""

import json
from pathlib import Path
from typing import Any

import pytest

from search_spaces.designs import Contrast
from study.confirmation.plan import Plan, confirmation_seeds, ranking_seeds, read_plan, write_plan
from study.spec.reading import parse_spec
from study.state.paths import PLAN
from trainables.damaged_files import DamagedFileError
from trainables.storage.store import Store

ROW = Contrast(treatment="b", control="a", treatment_arms=("b",), control_arms=("a",))
CONTENT: dict[str, Any] = {
    "created": "2026-01-02T03:04:05+00:00",
    "chosen": {"a": "00000", "b": "00001"},
    "rows": [{"treatment": "b", "control": "a", "treatment_arms": ["b"], "control_arms": ["a"], "scale": 1.0}],
    "seeds": [11, 12, 13],
    "looks": [2, 3],
    "intervals": "planned",
    "margin": 0.005,
    "alpha": 0.05,
}


def make_plan() -> Plan:
    return Plan(
        created="2026-01-02T03:04:05+00:00",
        chosen={"a": "00000", "b": "00001"},
        rows=(ROW,),
        seeds=(11, 12, 13),
        looks=(2, 3),
        intervals="planned",
        margin=0.005,
        alpha=0.05,
    )


def test_plan_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert read_plan(store) is None
    write_plan(store, make_plan())
    assert read_plan(store) == make_plan()
    written = json.loads(store.read_text(PLAN))
    assert written.pop("checksum")
    assert written == CONTENT


def test_plan_changed_by_hand_is_accepted_and_marked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_plan(store, make_plan())
    store.write_text(PLAN, store.read_text(PLAN).replace("0.005", "0.01"))
    changed = read_plan(store)
    assert changed is not None
    assert (changed.margin, changed.is_changed) == (0.01, True)


def test_seeds_that_rank_the_candidates_are_not_compared_again() -> None:
    spec = parse_spec('name = "s"\n[data]\nsource = "planted"\n[confirm]\nnum_ranking_seeds = 3\n', "spec.toml")
    assert len(set(ranking_seeds(spec))) == 3
    assert not set(ranking_seeds(spec)) & set(confirmation_seeds(spec))


@pytest.mark.parametrize("seeds", ['"many"', "[1.5, 2]", "null"])
def test_invalid_plan_is_refused_by_the_name_of_its_field(tmp_path: Path, seeds: str) -> None:
    Store(tmp_path).write_text(PLAN, json.dumps(CONTENT | {"seeds": json.loads(seeds)}))
    with pytest.raises(DamagedFileError, match=r"plan\.json is damaged: seeds"):
        read_plan(Store(tmp_path))
