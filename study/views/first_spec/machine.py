"""What this machine offers to a first study: devices, pretrained weights, and the measured cost of a trial."""

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from joblib import cpu_count

from search_spaces.config import TrialConfig
from search_spaces.errors import count_noun
from study.cluster.process_workers import own_threads
from study.inputs.preparation import fixed_settings
from study.spec.study_spec import StudySpec
from trainables.data.splits import Splits
from trainables.devices import choose_device, count_cuda_devices
from trainables.models.catalog import RESNETS, find_torchvision_url
from trainables.models.weights import find_weights_file
from trainables.processes import prepare_to_train, share_threads
from trainables.training.trial_cost import TrialCost, measure_trial_cost
from trainables.training.trial_data import TrialData

MAX_CPUS_PER_GPU_TRIAL = 4
NETWORK_SECONDS = 5.0
# Images that stand for all of the set while the cost is measured; how long a step takes does not depend on their content.
NUM_STAND_INS = 64
# For the head alone, on features that are computed once.
PROBE_FIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The devices of this machine.

    Attributes:
        num_cores: CPU cores.
        num_gpus: CUDA devices.
    """

    num_cores: int
    num_gpus: int

    @property
    def gpu_per_trial(self) -> int:
        """GPUs that a trial holds: one, if there is one."""
        return min(self.num_gpus, 1)

    @property
    def cpu_per_trial(self) -> int:
        """CPU cores that a trial holds."""
        return min(MAX_CPUS_PER_GPU_TRIAL, max(1, self.num_cores // self.num_gpus)) if self.num_gpus else 1

    @property
    def num_at_once(self) -> int:
        """Trials that run at once."""
        return self.num_gpus or self.num_cores

    def describe(self) -> str:
        """Return the devices in words."""
        cores = count_noun(self.num_cores, "CPU core")
        return f"{count_noun(self.num_gpus, 'GPU')} and {cores}" if self.num_gpus else cores


def find_machine() -> Machine:
    """Return the devices that Ray will find on this machine."""
    return Machine(num_cores=cpu_count(), num_gpus=count_cuda_devices())


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsChoice:
    """Pretrained weights for a first study.

    Attributes:
        weights: see `model.weights`.
        reason: why, in one sentence.
        are_missing: whether training begins from scratch only because there are no pretrained weights here.
    """

    weights: str
    reason: str
    are_missing: bool = False


def choose_weights(given: str | None) -> WeightsChoice:
    """Return the given weights, or ImageNet's if they are in torch's cache or can be downloaded, or "none".

    Raises:
        UserInputError: if the given weights cannot be found for every backbone.
    """
    if given is not None:
        for backbone in RESNETS:
            find_weights_file(backbone, given)
        is_local = given not in {"none", "imagenet"}
        return WeightsChoice(weights=str(Path(given).expanduser().resolve()) if is_local else given, reason="As given.")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    missing = [url for url in map(find_torchvision_url, RESNETS) if not (folder / url.rpartition("/")[2]).is_file()]
    if not missing:
        return WeightsChoice(weights="imagenet", reason=f"ImageNet's, from {folder}.")
    if all(map(_can_be_fetched, missing)):
        return WeightsChoice(weights="imagenet", reason=f"ImageNet's, which the launch downloads to {folder}.")
    return WeightsChoice(
        weights="none",
        reason=f'From scratch, because ImageNet\'s weights are neither in {folder} nor can they be downloaded. For "imagenet", '
        f"fetch {' and '.join(missing)} and put them there.",
        are_missing=True,
    )


def _can_be_fetched(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_SECONDS):
            return True
    except OSError:
        return False


def measure_costs(
    spec: StudySpec, *, num_classes: int, num_train: int, num_search: int, stored_side: int
) -> Mapping[str, TrialCost]:
    """Return the cost of a trial by arm, from a few training steps of each in this process.

    Args:
        spec: gives the arms, the image size and the batch size; its images are not read.
        num_classes: K.
        num_train: training images.
        num_search: images that each epoch is evaluated on.
        stored_side: side of the stored images in pixels.
    """
    generator = np.random.default_rng(0)
    positions = np.arange(max(num_train, num_search)) % NUM_STAND_INS
    splits = Splits(
        train=positions[:num_train],
        search=positions[:num_search],
        confirm=positions[:1],
        test=positions[:1],
        data_fingerprint="",
    )
    data = TrialData(
        images=generator.integers(0, 256, size=(NUM_STAND_INS, stored_side, stored_side, 3), dtype=np.uint8),
        labels=np.arange(NUM_STAND_INS) % num_classes,
        splits=splits,
        class_names=tuple(map(str, range(num_classes))),
    )
    fixed = fixed_settings(spec, splits, "none")
    costs = {}
    with own_threads():
        for arm in spec.arms():
            cpu, gpu = (spec.resources.of_arm(kind, arm.name) for kind in ("cpu", "gpu"))
            config = TrialConfig(arm=arm.name, seed=0, hyperparameters=arm.space.middle(), fixed=fixed)
            prepare_to_train(share_threads(cpu, config.whole("processes")))
            device = choose_device(spec.resources.device, gpu)
            costs[arm.name] = measure_trial_cost(config, data, device=device, weights="none")
    return costs


def estimate_probe_cost(full: TrialCost) -> TrialCost:
    """Return the cost of a trial with `tuning = "probe"`: a forward pass over the training images, and the head on its features.

    Args:
        full: cost of a trial that trains all layers. A forward pass is a third of a step, whose backward pass costs two.
    """
    return TrialCost(setup_seconds=full.epoch_seconds / 3 + PROBE_FIT_SECONDS, epoch_seconds=0.0)
