"""A package outside the tree brings source, sampler, backbone and training loop: from the spec to audits and export."""

import json
import pickle
from pathlib import Path

import pytest

from study.open_study import load_study
from study.results.stored_findings import load_findings
from tests.study.command_line import run_cli
from trainables.storage.store import Store

pytestmark = pytest.mark.ray_cluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "abstudy_example"
LOOP = "abstudy_example.loops:PixelRegression"
# The modules of the package, which is the working folder and not installed here; and less of everything.
OVERRIDES = (
    "data.source=abstudy_example.source:load",
    "search.sampler=abstudy_example.sampler:make_sampler",
    'search.space.backbone.choices=["abstudy_example.backbone:build"]',
    "data.num_images=300",
    "data.test_fraction=0.4",
    "search.num_trials=2",
    "search.max_epochs=2",
    "search.pruning=none",
    "confirm.top_k=1",
    "analyze.num_panels=1",
    "analyze.num_audit_images=20",
    "resources.max_concurrent=1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the example's study of its loop against its backbone, with its report."""
    root = tmp_path_factory.mktemp("studies")
    (root / "loops.toml").write_text((EXAMPLE / "loops.toml").read_text().replace("example-pixels", LOOP))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(EXAMPLE)
        arguments = [word for override in OVERRIDES for word in ("--set", override)]
        outcome = run_cli("run", root / "loops.toml", "--storage", root, "--trust-code", *arguments)
    assert outcome.status == 0, outcome
    return root / "loops"


@pytest.fixture(autouse=True)
def _example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLE)


def test_search_confirmation_table_and_audits_work_on_both(folder: Path) -> None:
    findings = load_findings(load_study(Store(folder)))
    arms = {arm.arm: arm for arm in findings.arms}
    network, pixels = arms["network"], arms[LOOP]
    assert len(pixels.seeds) == 2
    assert pixels.ring_audits
    assert findings.audit_note == (
        "No root cause is tested: cues are removed from images of 12 pixels a side at least, but these have 8 x 8."
    )
    assert pixels.exported is not None
    assert (pixels.num_parameters, pixels.forward_flops, pixels.cam_admission) == (0, 0, None)
    difference = pixels.test_macro_f1.estimate - network.test_macro_f1.estimate
    (row,) = findings.rows
    assert row.treatment == LOOP
    assert row.effect.estimate == pytest.approx(difference)
    assert [view.arm for panel in findings.panels for view in panel.views] in ([], ["network"], ["network"] * 2)


def test_the_loop_is_reproduced_bit_for_bit(folder: Path) -> None:
    outcome = run_cli("reproduce", folder, "--arm", LOOP, "--trust-code")
    assert outcome.status == 0, outcome
    assert "MATCH" in outcome.output


def test_the_loop_is_exported_as_its_state_with_the_lines_that_load_it(folder: Path, tmp_path: Path) -> None:
    outcome = run_cli("export", folder, "--to", tmp_path / "out", "--onnx", "--trust-code")
    assert outcome.status == 0, outcome
    assert f"no ONNX of {LOOP}: a custom training loop has no network" in outcome.output
    assert (tmp_path / "out" / "network" / "model.onnx").exists()
    own = tmp_path / "out" / LOOP
    classifier, epoch = pickle.loads((own / "state.bin").read_bytes())
    assert epoch == 2
    assert classifier.penalty in {"l1", "l2"}
    card = (own / "README.md").read_text(encoding="utf-8")
    assert "from abstudy_example.loops import PixelRegression" in card
    assert "Input: RGB, uint8" in card
    assert json.loads((own / "study.json").read_text(encoding="utf-8"))["architecture"].endswith("PixelRegression")
    assert (tmp_path / "out" / "network" / "model.safetensors").exists()
