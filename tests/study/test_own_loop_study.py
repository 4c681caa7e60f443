"""A training loop of one's own beside a network: from the spec to audits, reproduction and export."""

import json
import pickle
from pathlib import Path

import pytest

from study.open_study import load_study
from study.results.findings import load_findings
from tests.study.command_line import run_cli
from trainables.records.store import Store

pytestmark = pytest.mark.ray_cluster

EXAMPLES = Path(__file__).parents[2] / "examples" / "abstudy_example"
SPEC = """
name = "beside"
[data]
source = "planted"
num_images = 400
test_fraction = 0.4
options = { image_size = 24 }
[model]
weights = "none"
[train]
image_size = 24
batch_size = 32
precision = "fp32"
[search]
max_epochs = 2
[confirm]
top_k = 1
looks = [2]
margin = 0.05
[analyze]
num_panels = 1
num_audit_images = 40
[configurations.network]
backbone = "resnet18"
max_lr = 0.02
backbone_lr_ratio = 1.0
cutmix_probability = 0.0
class_weighting = "none"
interpolation = "bicubic"
weight_decay = 1e-4
label_smoothing = 0.0
[configurations.pixels]
trainable = "abstudy_example.loops:PixelRegression"
penalty = "l2"
alpha = 1e-3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of a network and a loop of one's own, with its report."""
    root = tmp_path_factory.mktemp("studies")
    (root / "spec.toml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{EXAMPLES}")
        patch.syspath_prepend(str(EXAMPLES))
        outcome = run_cli("run", root / "spec.toml", "--storage", root)
    assert outcome.status == 0, outcome
    return root / "beside"


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def test_search_confirmation_table_and_audits_work_on_both(folder: Path) -> None:
    findings = load_findings(load_study(Store(folder)))
    network, pixels = findings.arms
    assert (network.arm, pixels.arm) == ("network", "pixels")
    assert len(pixels.seeds) == 2
    assert pixels.ring_audits
    assert pixels.exported is not None
    assert (pixels.num_parameters, pixels.forward_flops, pixels.cam_admission) == (0, 0, None)
    difference = pixels.test_macro_f1.estimate - network.test_macro_f1.estimate
    assert findings.rows[0].effect.estimate == pytest.approx(difference)
    assert [view.arm for panel in findings.panels for view in panel.views] in ([], ["network"], ["network"] * 2)


def test_the_loop_is_reproduced_bit_for_bit(folder: Path) -> None:
    outcome = run_cli("reproduce", folder, "--arm", "pixels")
    assert outcome.status == 0, outcome
    assert "MATCH" in outcome.output


def test_the_loop_is_exported_as_its_state_with_the_lines_that_load_it(folder: Path, tmp_path: Path) -> None:
    outcome = run_cli("export", folder, "--to", tmp_path / "out")
    assert outcome.status == 0, outcome
    own = tmp_path / "out" / "pixels"
    classifier, epoch = pickle.loads((own / "state.bin").read_bytes())
    assert (epoch, classifier.penalty) == (2, "l2")
    card = (own / "README.md").read_text(encoding="utf-8")
    assert "from abstudy_example.loops import PixelRegression" in card
    assert "Input: RGB, uint8" in card
    assert json.loads((own / "study.json").read_text(encoding="utf-8"))["architecture"].endswith("PixelRegression")
    assert (tmp_path / "out" / "network" / "model.safetensors").exists()
