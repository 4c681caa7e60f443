"""P16: the analysis of a study on a cluster of two cores against one of a single core."""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from ray.cluster_utils import Cluster

from benchmarks.ratios import Ratio, measure_seconds

SPEC = """
name = "audited"
data = { source = "planted", num_images = 900, options = { test_set = { num_images = 600 } } }
model = { weights = "none" }
train = { image_size = 64, batch_size = 64 }
confirm = { top_k = 1, looks = [2] }
analyze = { num_panels = 0, num_audit_images = 300 }
[search]
factor = "interpolation"
num_trials = 2
max_epochs = 2
pruning = "none"
fixed = { class_weighting = "none", backbone = "resnet18" }
"""


def measure_workers() -> list[Ratio]:
    """P16: wall time of `study analyze` on one core over that on two, twice each, in turn."""
    program = str(Path(sys.executable).with_name("study"))
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as folder:
        spec = Path(folder, "audited.toml")
        spec.write_text(SPEC)
        _call([program, "run", str(spec), "--storage", folder])
        command = [program, "analyze", str(Path(folder, "audited"))]
        turns = [[_analyze(command, number) for number in (1, 2)] for _ in range(2)]
    ratios = tuple(one / two for one, two in turns)
    note = "; ".join(f"{one:.0f} s on one core, {two:.0f} s on two" for one, two in turns)
    name = "wall time of the analysis of two arms and two seeds, 300 images at 64 px: one core / two"
    return [Ratio("P16", name, ">= 1.7", ratios, f"{note}; Ray's workers start anew each time")]


def _analyze(command: list[str], num_cpus: int) -> float:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": num_cpus, "include_dashboard": False})
    try:
        return measure_seconds(partial(_call, [*command, "--address", cluster.address]))
    finally:
        cluster.shutdown()


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
