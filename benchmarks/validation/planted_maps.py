"""Heat maps of networks that are known to read the object, the background, or nothing, and maps that belong to another network.

Their table of FORENSICS.md says how often maps are admitted.

In the scenes of the audits all objects lie in the center, so that one image's map suits every other image and ROAD, which
compares an image's own map with another's, can tell nothing. Here objects are smaller and lie anywhere.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from analysis.heat_maps.cam_layers import CamNetwork
from analysis.heat_maps.validity_tests import CamModels, admit_cams
from analysis.shortcuts.swaps import AuditImages
from benchmarks.pages import Table
from benchmarks.performance.reference_recipe import make_config
from benchmarks.validation.goals import Goal, at_least, at_most, format_share
from benchmarks.validation.planted_models import CLEAR, FIRST_WORLD, IMAGE_SIZE, TRAINING, to_audit_images
from benchmarks.validation.worlds import WorldCache
from search_spaces.config import TrialConfig
from trainables.data.images import ImageSet
from trainables.data.sources.planted_drawing import NUM_VALUES, SHAPES, draw_scenes
from trainables.data.splits import make_splits
from trainables.models.backbones import build_model, place_model
from trainables.seeds import numpy_generator
from trainables.training.loop import TrainingRun
from trainables.training.trial_data import TrialData

# Half of them are for the tests; the ring test needs some hundreds.
NUM_IMAGES = 1000
SCATTERED: dict[str, Any] = {**CLEAR, "object_scale": 0.8, "max_offset": 0.6}
CUES = ("shape", "texture", "color", "background")
# The cue that shows the class, of what a network is to read, with training images, epochs and the maximum learning rate.
RECIPES = {"object": ("color", 1500, 5, 0.04), "background": ("background", 800, 4, 0.02)}
SAMPLE_WORLDS = 4
WHOLE_WORLDS = 24
# Maps that show nothing of the network; none of 72 is the fewest that meets it.
MAX_ADMITTED = 0.05
# Networks of lower accuracy do not count as reading the cue.
MIN_ACCURACY = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class MapWorld:
    """Scenes whose class is shown by the color of the object ("object") or by the background ("background")."""

    size: int = IMAGE_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOutcome:
    """The admission of one network's maps.

    Attributes:
        accuracy: of the network.
        source: method and layer of the maps.
        is_admitted: whether they are.
        failed: names of the tests that failed.
        void: names of the tests that do not apply.
        road: gain of the test.
        focus: share of the energy on the object minus that inside other images' masks.
        focus_low, focus_high: its interval for this model.
    """

    accuracy: float
    source: str
    is_admitted: bool
    failed: tuple[str, ...]
    void: tuple[str, ...]
    road: float
    focus: float
    focus_low: float
    focus_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldOutcome:
    """The admission of a network that reads the object, of one that reads the background, and of those that must be refused.

    `foreign` is the network that reads the object with the maps of the network that reads the background.
    """

    reads_object: MapOutcome
    reads_background: MapOutcome
    untrained: MapOutcome
    foreign: MapOutcome


class ForeignMaps(nn.Module):
    """A network with the logits of one network and the layers, and so the maps, of another one."""

    def __init__(self, network: nn.Module, mapped: nn.Module) -> None:
        super().__init__()
        # Only the modules of `mapped` are found, under their own names. Nobody else sets the mode of `network`.
        self._networks = [network.eval(), mapped]
        for name, module in mapped.named_children():
            self.add_module(name, module)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits of `network`, whose gradients are those of `mapped`."""
        network, mapped = self._networks
        with torch.no_grad():
            logits = network(inputs).float()
        other = mapped(inputs).float()
        result: torch.Tensor = logits + (other - other.detach())
        return result


def map_world(world: MapWorld, seed: int) -> WorldOutcome:
    """Train both networks and return the admissions of their maps, on scenes that they were not trained on."""
    seed += FIRST_WORLD
    audited = {reads: to_audit_images(draw_scattered(reads, NUM_IMAGES, 2 * seed + 1, world.size)) for reads in RECIPES}
    trained = {reads: train_reader(reads, 2 * seed, world.size) for reads in RECIPES}
    config = trained["object"].config
    untrained, reference = (make_untrained(config.with_seed(number), NUM_VALUES) for number in (10**6 + seed, seed))
    foreign = ForeignMaps(trained["object"].model, trained["background"].model)
    return WorldOutcome(
        reads_object=judge_maps(trained["object"], reference, audited["object"], seed),
        reads_background=judge_maps(trained["background"], reference, audited["background"], seed),
        untrained=judge_maps(untrained, reference, audited["object"], seed),
        foreign=judge_maps(CamNetwork(model=foreign, config=config), reference, audited["object"], seed),
    )


def judge_maps(network: CamNetwork, untrained: CamNetwork, audited: AuditImages, seed: int) -> MapOutcome:
    """Return the admission of the network's maps."""
    found = admit_cams(CamModels(trained=[network], randomized=[untrained]), audited, seed=seed)
    logits = network.compute_logits(network.prepare(audited.images))
    assert found.object_focus is not None
    focus = found.object_focus.models
    return MapOutcome(
        accuracy=float(np.mean(logits.argmax(axis=1) == audited.labels)),
        source=f"{found.method}, {found.layer}",
        is_admitted=found.is_admitted,
        failed=tuple(t.name for t in found.tests if t.applies and not t.is_passed),
        void=tuple(t.name for t in found.tests if not t.applies),
        road=next(t.estimate.estimate for t in found.tests if t.name == "ROAD"),
        focus=focus.estimate,
        focus_low=focus.low,
        focus_high=focus.high,
    )


def draw_scattered(reads: str, number: int, seed: int, size: int) -> ImageSet:
    """Return scenes whose objects lie anywhere; one cue shows the class, and all others are random."""
    generator = numpy_generator(seed, "scattered scenes", reads)
    labels = generator.permutation(np.arange(number, dtype=np.int64) % NUM_VALUES)
    values = {cue: generator.integers(0, NUM_VALUES, number) for cue in CUES} | {RECIPES[reads][0]: labels}
    images, masks = draw_scenes(values, image_size=size, generator=generator, **SCATTERED)
    return ImageSet(images=images, labels=labels, class_names=SHAPES, source="planted", masks=masks)


def train_reader(reads: str, seed: int, size: int) -> CamNetwork:
    """Return a ResNet18 that was trained on such scenes."""
    _, number, max_epochs, max_lr = RECIPES[reads]
    scenes = draw_scattered(reads, number, seed, size)
    splits = make_splits(scenes, seed=0, search_fraction=0.02, confirm_fraction=0.02, test_fraction=0.02)
    data = TrialData(images=scenes.images, labels=scenes.labels, splits=splits, class_names=scenes.class_names)
    config = make_config("resnet18", size, max_lr=max_lr, max_epochs=max_epochs, **TRAINING).with_seed(seed)
    run = TrainingRun(config, data, device=torch.device("cpu"), weights="none")
    while not run.is_finished:
        run.run_epoch()
    return CamNetwork(model=run.model, config=config)


def make_untrained(config: TrialConfig, num_classes: int) -> CamNetwork:
    """Return a network with fresh parameters."""
    model = place_model(build_model(config, num_classes, weights="none"), config, torch.device("cpu"))
    return CamNetwork(model=model.eval(), config=config)


def tabulate_maps(cache: WorldCache, *, whole: bool) -> tuple[list[Table], list[Goal]]:
    """Return the table of admissions and its goals; `whole` takes more worlds."""
    worlds: list[WorldOutcome] = cache.repeat(map_world, MapWorld(), WHOLE_WORLDS if whole else SAMPLE_WORLDS)
    readers = [world.reads_object for world in worlds if world.reads_object.accuracy > MIN_ACCURACY]
    background = [world.reads_background for world in worlds if world.reads_background.accuracy > MIN_ACCURACY]
    untrained = [world.untrained for world in worlds]
    foreign = [world.foreign for world in worlds if world.foreign.accuracy > MIN_ACCURACY]
    rows = [
        _describe("reads the object", readers),
        _describe("reads the background", background),
        _describe("untrained", untrained),
        _describe("reads the object, maps of one that reads the background", foreign),
    ]
    admitted = [found for found in background if found.is_admitted]
    focused = [found for found in readers if found.is_admitted]
    goals = [
        at_least("networks that read the object: maps admitted", _count(readers), len(readers), 0.8),
        at_least("networks that read the background: maps admitted", _count(background), len(background), 0.8),
        at_least("of those: energy on the object not above chance", _count_elsewhere(admitted), len(admitted), 0.9),
        at_least("networks that read the object: energy above chance", _count_focused(focused), len(focused), 0.9),
        at_most("untrained networks: maps admitted", _count(untrained), len(untrained), MAX_ADMITTED),
        at_most("maps of another network: admitted", _count(foreign), len(foreign), MAX_ADMITTED),
    ]
    head = ["network", "accuracy", "admitted", "ROAD", "energy on the object (pp)", "method and layer", "failed tests"]
    title = f"Heat maps: admission, one network each (readers: accuracy above {MIN_ACCURACY})"
    return [Table(title, head, rows)], goals


def _describe(name: str, found: Sequence[MapOutcome]) -> list[str]:
    if not found:
        return [name, *["—"] * 6]
    sources = Counter(o.source for o in found)
    failed = Counter(test for o in found for test in o.failed)
    return [
        name,
        f"{fmean(o.accuracy for o in found):.2f}",
        format_share(_count(found), len(found)),
        f"{fmean(o.road for o in found):.3f}",
        f"{100 * fmean(o.focus for o in found):+.1f}",
        "; ".join(f"{source}: {number}" for source, number in sources.most_common()),
        "; ".join(f"{test}: {number}" for test, number in failed.most_common()) or "none",
    ]


def _count(found: Sequence[MapOutcome]) -> int:
    return sum(o.is_admitted for o in found)


def _count_elsewhere(found: Sequence[MapOutcome]) -> int:
    return sum(o.focus_low <= 0 for o in found)


def _count_focused(found: Sequence[MapOutcome]) -> int:
    return sum(o.focus_low > 0 for o in found)
