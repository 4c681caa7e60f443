"""Heat maps that cannot be drawn: the reason comes from the worker as a sentence, without the traceback of its task."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analysis.heat_maps.grad_cam import NoCamLayerError
from study.results import figure_files as heat_map_panels
from tests.study.simulated import make_spec
from trainables.storage.store import Store

REASON = "the largest maps have 2 x 2 values"


def test_reason_of_a_network_without_large_maps_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_: object) -> None:
        raise NoCamLayerError(REASON)

    monkeypatch.setattr(heat_map_panels, "load_cam_network", lambda *_: None)
    monkeypatch.setattr(heat_map_panels, "find_cam_layers", refuse)
    monkeypatch.setattr(heat_map_panels, "has_network", lambda _: True)
    monkeypatch.setattr(heat_map_panels, "choose_panel_images", lambda *_: [(3, "confused")])
    data = SimpleNamespace(class_names=("a", "b"))

    def run_tasks(function: Any, tasks: Any) -> Any:
        return (function(*task.arguments, data=data) for task in tasks)

    study: Any = SimpleNamespace(spec=make_spec(), store=Store(tmp_path))
    evidence: Any = {
        "one": SimpleNamespace(runs=[None], predictions=[SimpleNamespace(sample_ids=np.arange(5))], folds=())
    }
    workers: Any = SimpleNamespace(run_tasks=run_tasks)
    with pytest.raises(NoCamLayerError, match=f"^{REASON}$"):
        heat_map_panels.draw_panels(study, evidence, {"one": None}, SimpleNamespace(), workers)  # type: ignore[arg-type]
    found = heat_map_panels.compute_views(str(tmp_path), evidence["one"], None, np.array([3]), data=data)  # type: ignore[arg-type]
    assert found == REASON
