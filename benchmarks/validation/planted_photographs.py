"""Photographs in which something was planted, so that the truth is known, and what the audits and interventions make of them.

Frames and corner patches have the color of the class with a correlation, in rings that otherwise tell nothing about it, since
they come from other photographs; labels of two classes are exchanged; a texture is pasted
that shows the class, but is the same in two classes. The rest is real: photographs, pretrained weights, fine-tuned networks.
"""

import copy
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from analysis.causes.confused_images import CauseModels, ConfusedClasses, split_seeds
from analysis.causes.root_cause import find_root_causes
from analysis.interventions.effects import PairedShares, TargetRule, judge_target
from analysis.interventions.target_predictions import measure_loss
from analysis.interventions.values import TargetKind
from analysis.shortcuts.frequency_audit import bound_color_losses, measure_color_losses
from analysis.shortcuts.ring_audit import judge_ring, measure_rings
from analysis.shortcuts.swaps import AuditImages, Images, make_classifier, swap_ring
from analysis.shortcuts.values import GAP_TOLERANCE, AuditVerdict
from analysis.statistics.families import Scale
from analysis.statistics.metrics import FloatArray, IntArray
from benchmarks.performance.reference_recipe import make_config
from benchmarks.quality.drawn_sets import read_files
from benchmarks.validation.planted_audits import RingOutcome, conclude_ring
from benchmarks.validation.planted_models import FIRST_WORLD
from search_spaces.config import Value
from trainables.data.augmentation.mixing import RING_FRACTIONS, make_ring
from trainables.data.images import ImageSet
from trainables.data.splits import make_splits
from trainables.data.stratified import choose_stratified
from trainables.seeds import numpy_generator
from trainables.training.evaluation import compute_logits
from trainables.training.head_refit import refit_head
from trainables.training.loop import TrainingRun
from trainables.training.trial_data import TrialData

CPU = torch.device("cpu")
# By set: side of the network's input, images to train on, and images of the audit.
SETS: Mapping[str, tuple[int, int, int]] = {"cifar10": (32, 3000, 2000), "refuse": (48, 1500, 500)}
# In the product's own precision, which audits four times as many photographs a second as float32 where a core has units for it.
MAX_LR, MAX_EPOCHS = 0.02, 4
TRAINING: Mapping[str, Value] = {"batch_size": 32, "brightness_fraction": 0.0}
# Share of the split search: the images that new heads are fitted on.
SEARCH = 0.15
# Correlation of a full shortcut with the class.
FULL = 0.8
# Share of the labels of two classes that is exchanged, and height of the waves of a texture.
NOISE, HEIGHT, PERIOD = 0.35, 40.0, 3.0
# Of the two interventions of a world together; changes of the gap below the margin are negligible.
ALPHA, MARGIN = 0.05, 0.02
# Seeds of a kind of world with which interventions are tried: those below.
NUM_TREATED = 5


class Planted(StrEnum):
    """What is planted."""

    NOTHING = "nothing"
    RINGS = "rings of others"
    FRAME = "frame"
    PATCH = "corner patch"
    LABELS = "exchanged labels"
    TEXTURE = "a texture of two classes"


IN_RING = (Planted.FRAME, Planted.PATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographWorld:
    """A set of photographs, and what is planted in it.

    Attributes:
        photographs: of `SETS`.
        planted: with "nothing", photographs are as they were taken. Else, where no pair is confused, each has the wide ring of
            any other, which tells nothing about its class; with "rings of others", frames have random colors, too.
        rho: correlation with the class.
        only_one: whether it shows one class alone, which depends on the seed.
        data: folder of the sets and the weights.
        num_models: seeds.
    """

    photographs: str
    planted: Planted
    data: Path
    rho: float = 0.0
    only_one: bool = False
    num_models: int = 3

    def find_classes(self, num_classes: int, seed: int) -> tuple[int, ...]:
        """Return the planted classes: all or one in the ring, else the pair that is confused."""
        if self.is_pair:
            return seed % num_classes, (seed + num_classes // 2) % num_classes
        return (seed % num_classes,) if self.only_one else tuple(range(num_classes))

    @property
    def is_pair(self) -> bool:
        """Whether two classes are confused, so that the cause is asked for and not the ring."""
        return self.planted in (Planted.LABELS, Planted.TEXTURE)

    def is_treated(self, seed: int) -> bool:
        """Return whether interventions are tried: on full shortcuts of all classes, and where nothing was planted."""
        return not self.is_pair and not self.only_one and self.rho in (0.0, FULL) and seed < NUM_TREATED

    def plant(
        self, images: Images, labels: IntArray, num_classes: int, seed: int, part: str
    ) -> tuple[Images, IntArray]:
        """Return (n, H, W, 3) photographs with what is planted, and their (n,) labels.

        Args:
            images: as they were taken.
            labels: their classes.
            num_classes: K.
            seed: of the world.
            part: names the images, so that those of training and audit are drawn apart.
        """
        generator = numpy_generator(seed, "photographs", part)
        classes = self.find_classes(num_classes, seed)
        if self.planted is Planted.LABELS:
            is_exchanged = np.isin(labels, classes) & (generator.random(len(labels)) < NOISE)
            return images, np.where(is_exchanged, sum(classes) - labels, labels)
        has_cue = generator.random(len(labels)) < self.rho
        if self.planted is Planted.TEXTURE:
            shown = np.where(labels == classes[1], classes[0], labels)
            shown = np.where(has_cue, shown, generator.integers(num_classes, size=len(labels)))
            return paste_textures(images, shown, num_classes), labels
        if self.planted is Planted.NOTHING:
            return images, labels
        ring = make_ring(images.shape[1], images.shape[2], RING_FRACTIONS[-1])
        images = swap_ring(images, images[generator.permutation(len(images))], ring)
        has_cue &= np.isin(labels, classes)
        shown = np.where(has_cue, labels, generator.integers(num_classes, size=len(labels)))
        return paint(images, shown, is_frame=self.planted is not Planted.PATCH), labels


def paint(images: Images, shown: IntArray, *, is_frame: bool) -> Images:
    """Return photographs with a frame, 2 of 32 pixels wide, or a corner patch, 4 of 32, in the color of a class each."""
    colors = (255 * np.array(colormaps["tab10"].colors)).astype(np.uint8)[shown % 10]  # type: ignore[attr-defined]
    side = images.shape[1]
    area = np.zeros((side, side), dtype=bool)
    if is_frame:
        width = max(1, round(side * 2 / 32))
        area[:] = True
        area[width:-width, width:-width] = False
    else:
        area[: round(side * 4 / 32), : round(side * 4 / 32)] = True
    return np.where(area[None, :, :, None], colors[:, None, None], images)


def paste_textures(images: Images, shown: IntArray, num_classes: int) -> Images:
    """Return photographs with waves of `PERIOD` pixels, whose direction shows a class."""
    y, x = np.indices(images.shape[1:3])
    angles = np.pi * np.arange(num_classes) / num_classes
    turns = [(np.cos(angle) * x + np.sin(angle) * y) / PERIOD for angle in angles]
    waves = HEIGHT * np.sin(2 * np.pi * np.stack(turns))[shown][..., None]
    return np.clip(np.rint(images + waves), 0, 255).astype(np.uint8)


def load_photographs(
    world: PhotographWorld, seed: int, num_audited: int | None = None
) -> tuple[TrialData, AuditImages]:
    """Return photographs to train on and others to audit, as many as in `SETS` by default, both with what is planted."""
    _, num_training, usual = SETS[world.photographs]
    num_audited = usual if num_audited is None else num_audited
    files, judging = read_files(world.data / "data" / world.photographs)
    generator = numpy_generator(seed, "photographs", world.photographs)
    labels = _find_labels(files)
    chosen = choose_stratified(labels, num_training, generator)
    rest = judging or [files[i] for i in np.setdiff1d(np.arange(len(files)), chosen)]
    audited = [rest[i] for i in choose_stratified(_find_labels(rest), min(num_audited, len(rest)), generator)]
    names = tuple(sorted({path.partition("/")[0] for path, _ in files}))
    parts = []
    for part, own in (("training", [files[i] for i in chosen]), ("audit", audited)):
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for _, content in own])
        parts.append(world.plant(pixels, _find_labels(own), len(names), seed, part))
    training = ImageSet(images=parts[0][0], labels=parts[0][1], class_names=names, source=world.photographs)
    splits = make_splits(training, seed=0, search_fraction=SEARCH, confirm_fraction=0.02, test_fraction=0.02)
    data = TrialData(images=training.images, labels=training.labels, splits=splits, class_names=names)
    return data, AuditImages(images=parts[1][0], labels=parts[1][1], class_names=names)


def _find_labels(files: Sequence[tuple[str, bytes]]) -> IntArray:
    names = np.array([path.partition("/")[0] for path, _ in files])
    return np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64)


def train_networks(world: PhotographWorld, data: TrialData, **changes: Value) -> list[TrainingRun]:
    """Return finished runs of ResNet18 from pretrained weights, which differ in their seed."""
    config = make_config(
        "resnet18", SETS[world.photographs][0], max_lr=MAX_LR, max_epochs=MAX_EPOCHS, **TRAINING, **changes
    )
    weights = str(world.data / "weights" / "resnet18.pt")
    runs = [TrainingRun(config.with_seed(s), data, device=CPU, weights=weights) for s in range(world.num_models)]
    for run in runs:
        while not run.is_finished:
            run.run_epoch()
    return runs


def read_logits(runs: Sequence[TrainingRun]) -> Callable[[Images], FloatArray]:
    """Return the function from (n, H, W, 3) images to the (S, n, K) logits of the runs' networks."""

    def predict(images: Images) -> FloatArray:
        tensor, indices = torch.from_numpy(images), np.arange(len(images))
        logits = [compute_logits(run.model, tensor, indices, run.config, CPU, 256) for run in runs]
        return np.stack(logits).astype(np.float64)

    return predict


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What an intervention did to the gap of the narrow ring in the planted classes.

    Attributes:
        before, after: the gap, a fraction.
        is_better: whether its fall is certain, for new seeds and images, both interventions of the world together at 95 %.
        accuracy: change of the accuracy on audited photographs.
        seconds: of all models, on one core.
    """

    before: float
    after: float
    is_better: bool
    accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographOutcome:
    """What the audits of one world find.

    Attributes:
        accuracy: of the models on audited photographs.
        rings: the narrow and the wide one, about the planted classes; none where a pair was planted.
        num_classes: K, of those audited.
        num_decided: classes that pass or fail at the narrow ring, for these models.
        half_width: of the intervals there, mean over classes; NaN without any.
        num_color_losses: classes that certainly lose more than the tolerance without color.
        cause: of the confusion of the pair, for these models; "" where it was not measured.
        treatments: by intervention; of the worlds that are treated.
        seconds: of the audits of the rings.
    """

    accuracy: float
    rings: tuple[RingOutcome, ...]
    num_classes: int
    num_decided: int
    half_width: float
    num_color_losses: int
    cause: str
    treatments: dict[str, Treatment]
    seconds: float


def judge_photographs(world: PhotographWorld, seed: int) -> PhotographOutcome:
    """Train the networks of a world, audit them, and try what its findings would ask for."""
    is_treated = world.is_treated(seed)
    seed += FIRST_WORLD
    data, audited = load_photographs(world, seed)
    runs = train_networks(world, data)
    classify = make_classifier(read_logits(runs))
    classes = world.find_classes(len(audited.class_names), seed)
    started = time.perf_counter()
    measured = () if world.is_pair else measure_rings(classify, audited, seed=seed)
    seconds = time.perf_counter() - started
    found = judge_ring(measured[0]).classes if measured else ()
    colors = bound_color_losses(measure_color_losses(classify, audited))
    return PhotographOutcome(
        accuracy=float(np.mean(classify(audited.images) == audited.labels)),
        rings=tuple(conclude_ring(ring, [audited.class_names[c] for c in classes]) for ring in measured),
        num_classes=len(found),
        num_decided=sum(c.verdict is not AuditVerdict.UNDECIDED for c in found),
        half_width=fmean([(c.gap.models.high - c.gap.models.low) / 2 for c in found] or [math.nan]),
        num_color_losses=sum(loss.loss.models.low > GAP_TOLERANCE for loss in colors),
        cause=_find_cause(runs, audited, classes if world.is_pair else (0, 1), seed),
        treatments=_treat(world, runs, data, audited, classes, seed) if is_treated else {},
        seconds=seconds,
    )


def _find_cause(runs: Sequence[TrainingRun], audited: AuditImages, pair: tuple[int, ...], seed: int) -> str:
    selecting, measuring = split_seeds(len(runs))
    logits = read_logits(runs)(audited.images)
    models = CauseModels(
        sample_ids=np.arange(len(audited.labels)),
        selecting=logits[selecting],
        measuring=logits[measuring],
        compute_logits=read_logits(runs[measuring]),
        are_own_errors=False,
    )
    (found,) = find_root_causes(models, audited, [ConfusedClasses(one=pair[0], other=pair[1])], seed=seed)
    return (found.cause or "") if found.effects else ""


def _treat(
    world: PhotographWorld,
    runs: Sequence[TrainingRun],
    data: TrialData,
    audited: AuditImages,
    classes: Sequence[int],
    seed: int,
) -> dict[str, Treatment]:
    """Return what a new head and rings of other classes in training do to the gap of the planted classes."""
    makers: dict[str, Callable[[], list[TrainingRun]]] = {
        "head_ring_swaps": lambda: [_refit(run, data) for run in runs],
        "background_swap": lambda: train_networks(world, data, ring_swap_probability=0.5),
    }
    treatments = {}
    before = make_classifier(read_logits(runs))
    control = measure_loss(TargetKind.RING_GAP, before, audited, seed=seed).of_classes(np.array(classes))
    for name, make in makers.items():
        started = time.perf_counter()
        after = make_classifier(read_logits(make()))
        seconds = time.perf_counter() - started
        treated = measure_loss(TargetKind.RING_GAP, after, audited, seed=seed).of_classes(np.array(classes))
        change = treated.minus(control)
        shares = PairedShares(
            treatment=treated.values,
            control=control.values,
            labels=control.labels,
            beside=tuple(change.make_class_cells()),
            change=change.make_cell(),
        )
        rule = TargetRule(alpha=ALPHA, num_targets=len(makers), num_looks=1, margin=MARGIN)
        correct = [np.mean(read(audited.images) == audited.labels) for read in (before, after)]
        treatments[name] = Treatment(
            before=float(control.values.mean()),
            after=float(treated.values.mean()),
            is_better=judge_target(shares, rule, Scale.UNBOUNDED).verdict == "BETTER",
            accuracy=float(correct[1] - correct[0]),
            seconds=seconds,
        )
    return treatments


def _refit(run: TrainingRun, data: TrialData) -> TrainingRun:
    """Return a run whose network has a new head, fitted with rings of other classes."""
    treated = copy.copy(run)
    treated.model = copy.deepcopy(run.model)
    treated.config = replace(run.config, fixed={**run.config.fixed, "head_refit": "ring_swaps"})
    refit_head(treated.model, treated.config, data, torch.from_numpy(np.asarray(data.images)), CPU)
    return treated
