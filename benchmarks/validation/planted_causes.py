"""Models trained on planted scenes in which the cause of one confusion is known, or in which there is none.

A network that has learned all four cues sees a pair of classes that are confused. In planted worlds one cue shows the other class
of the pair, or a part of one class has the background of the other, behind the object too. In null worlds nothing is specific to
the pair: a part of its labels is exchanged, or the two classes share the values of all cues, or its errors are what is left
everywhere. The other errors of the audited scenes serve as references.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

from analysis.causes.confused_images import CauseModels, ConfusedClasses, split_seeds
from analysis.causes.cues import CUES
from analysis.causes.root_cause import find_root_causes
from analysis.causes.values import MIXED
from analysis.shortcuts.swaps import AuditImages
from analysis.statistics.metrics import IntArray
from benchmarks.performance.reference_recipe import make_config
from benchmarks.validation.planted_models import (
    CLEAR,
    FIRST_WORLD,
    IMAGE_SIZE,
    NUM_TRAINING,
    SCENE_CUES,
    TRAINING,
    make_predict,
    train_runs,
)
from trainables.data.augmentation.pipeline import prepare_batch
from trainables.data.images import ImageSet
from trainables.data.sources.planted_drawing import NUM_VALUES, SHAPES, draw_scenes
from trainables.data.sources.planted_scenes import draw_cue
from trainables.models.backbones import build_model
from trainables.seeds import numpy_generator

# The cue of a scene, and its name in the root cause.
CAUSES = dict(zip(SCENE_CUES, ("shape", "texture", "color", "context"), strict=True))
NUM_MODELS = 4
MAX_EPOCHS = 2
NUM_PRETRAINING, PRETRAINING_EPOCHS, PRETRAINING_BATCH, PRETRAINING_LR = 8000, 12, 32, 0.1
# How often a cue shows the class: of classes without a cue of their own; of the others by their own cue and by the rest.
RHO, OWN_RHO, REST_RHO = 0.5, 0.8, 0.4
# Share of the labels of a pair that is exchanged.
NOISE = 0.35
# Share of the first class of a pair that has the background of the second, in worlds of that kind.
COMMON_BACKGROUND = 0.35
# Random features of the models that are fitted in closed form, of pixels of half the size with about this mean and deviation.
NUM_FEATURES, PIXEL_MEAN, PIXEL_SD = 300, 128.0, 64.0
# Audited scenes of each class of the confused pair, of each class of the three other pairs, and of each other class.
NUM_OF_PAIR, NUM_OF_OTHERS, NUM_OF_REST = 200, 120, 60


class Kind(StrEnum):
    """What confuses the pair of a world."""

    PLANTED = "a cue of its own"
    SHARED = "the cue that confuses the other pairs, too"
    NOISE = "exchanged labels"
    SIMILAR = "the same values of all cues"
    SHRINKAGE = "nothing"
    BACKGROUND = "a background that a part of the other class has, too"


NULLS = (Kind.NOISE, Kind.SIMILAR, Kind.SHRINKAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseWorld:
    """A pair of classes, and why networks confuse it.

    Attributes:
        kind: the reason.
        cue: of the scene, which misleads; "" in null worlds.
        weights: initial ones of the backbone, a file of `pretrain_cues`.
        num_models: one chooses, the others measure; with one it does both.
    """

    kind: Kind
    cue: str = ""
    weights: Path | None = None
    num_models: int = NUM_MODELS

    def draw_training(self, pair: tuple[int, int], seed: int) -> ImageSet:
        """Return scenes to train on; the cue that will mislead about a class shows it more often than the others."""
        generator = numpy_generator(seed, "training scenes")
        labels = np.arange(NUM_TRAINING, dtype=np.int64) % NUM_VALUES
        images, labels, masks = self._draw(labels, pair, generator, is_misleading=False)
        return ImageSet(images=images, labels=labels, class_names=SHAPES, source="planted", masks=masks)

    def draw_audited(self, pair: tuple[int, int], seed: int) -> AuditImages:
        """Return scenes of the audit; in planted and shared worlds, a cue of four pairs shows the other class."""
        generator = numpy_generator(seed, "audited scenes")
        sizes = np.full(NUM_VALUES, NUM_OF_REST)
        sizes[[c for two in find_other_pairs(pair) for c in two]] = NUM_OF_OTHERS
        sizes[list(pair)] = NUM_OF_PAIR
        labels = np.repeat(np.arange(NUM_VALUES), sizes)
        images, labels, masks = self._draw(labels, pair, generator, is_misleading=True)
        return AuditImages(images=images, labels=labels, class_names=SHAPES, masks=masks)

    def find_own_cues(self, pair: tuple[int, int]) -> dict[int, str]:
        """Return the cue, by class, that shows the partner in audited scenes; none in null worlds."""
        if not self.cue:
            return {}
        rest = [self.cue] * 3 if self.kind is Kind.SHARED else [cue for cue in SCENE_CUES if cue != self.cue]
        pairs = list(zip([pair, *find_other_pairs(pair)], [self.cue, *rest], strict=True))
        return {c: cue for two, cue in pairs[self.kind is Kind.BACKGROUND :] for c in two}

    def _draw(
        self, labels: IntArray, pair: tuple[int, int], generator: np.random.Generator, *, is_misleading: bool
    ) -> tuple[np.ndarray, IntArray, np.ndarray]:
        """Return scenes, labels and masks; with `is_misleading`, the own cue of a class shows its partner."""
        own_cues = self.find_own_cues(pair)
        shown = dict.fromkeys(SCENE_CUES, labels)
        if self.kind in (Kind.SIMILAR, Kind.BACKGROUND):
            shown = {
                cue: np.where(np.isin(labels, pair), generator.permuted(np.resize(pair, len(labels))), labels)
                for cue in SCENE_CUES
            }
        if self.kind is Kind.BACKGROUND:
            has_other = (labels == pair[0]) & (generator.random(len(labels)) < COMMON_BACKGROUND)
            shown["background"] = np.where(has_other, pair[1], labels)
            own_background = draw_cue(shown["background"], OWN_RHO, generator)
        has_own = np.isin(labels, list(own_cues))
        values = {
            cue: np.where(has_own, draw_cue(shown[cue], REST_RHO, generator), draw_cue(shown[cue], RHO, generator))
            for cue in SCENE_CUES
        }
        if self.kind is Kind.BACKGROUND:
            values["background"] = np.where(np.isin(labels, pair), own_background, values["background"])
        for label, cue in own_cues.items():
            own = np.full(len(labels), find_partner(label)) if is_misleading else draw_cue(labels, OWN_RHO, generator)
            values[cue] = np.where(labels == label, own, values[cue])
        images, masks = draw_scenes(values, image_size=IMAGE_SIZE, generator=generator, **CLEAR)
        if self.kind is Kind.NOISE:
            is_exchanged = np.isin(labels, pair) & (generator.random(len(labels)) < NOISE)
            labels = np.where(is_exchanged, (labels + NUM_VALUES // 2) % NUM_VALUES, labels)
        return images, labels, masks


def find_other_pairs(pair: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the three pairs of partners whose errors serve as references in worlds with a cue."""
    return [(one, find_partner(one)) for one in range(NUM_VALUES // 2) if one not in pair][:3]


def find_partner(label: int) -> int:
    """Return the class that a misleading cue shows: five apart, so that no cue makes the two similar."""
    return (label + NUM_VALUES // 2) % NUM_VALUES


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseOutcome:
    """The root cause of a world's pair.

    Attributes:
        cause: for the world's models: a cue, or "mixed".
        recipe_cause: for new seeds; None for one model.
        first: the cue with the largest effect; None where it was not measured.
        note: why it was not measured.
        num_images, num_references, imbalance: as in `RootCause`.
        accuracy: of the models on scenes like those of training.
        effects: by cue, for the models: estimate and half-width.
    """

    cause: str | None
    recipe_cause: str | None
    first: str | None
    note: str
    num_images: int
    num_references: int
    imbalance: float | None
    accuracy: float
    effects: dict[str, tuple[float, float]]


def explain_world(world: CauseWorld, seed: int) -> CauseOutcome:
    """Train the world's models and return the root cause of its pair, which depends on the seed."""
    seed += FIRST_WORLD
    pair = (seed % 5, seed % 5 + 5)
    runs = train_runs(world.draw_training(pair, 3 * seed), world.num_models, world.weights, MAX_EPOCHS)
    audited, fresh = world.draw_audited(pair, 3 * seed + 1), world.draw_training(pair, 3 * seed + 2)
    selecting, measuring = split_seeds(world.num_models)
    logits = make_predict(runs)(audited.images)
    models = CauseModels(
        sample_ids=np.arange(len(audited.labels)),
        selecting=logits[selecting],
        measuring=logits[measuring],
        compute_logits=make_predict(runs[measuring]),
        are_own_errors=world.num_models == 1,
    )
    (found,) = find_root_causes(models, audited, [ConfusedClasses(one=pair[0], other=pair[1])], seed=seed)
    by_cue = {effect.cue: effect.effect.models for effect in found.effects}
    return CauseOutcome(
        cause=found.cause,
        recipe_cause=found.recipe_cause,
        first=max(by_cue, key=lambda cue: by_cue[cue].estimate) if by_cue else None,
        note=found.note if not by_cue else "",
        num_images=found.num_images,
        num_references=found.num_references,
        imbalance=found.imbalance,
        accuracy=float(np.mean(make_predict(runs)(fresh.images[:300]).argmax(axis=2) == fresh.labels[:300])),
        effects={cue: (effect.estimate, effect.high - effect.estimate) for cue, effect in by_cue.items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NullStudy:
    """A study that asks for the root causes of all five pairs of partners, none of which is confused by a cue of its own.

    Its models are fitted in closed form: discriminants of random features, each on another sample of the scenes.

    Attributes:
        kind: of `NULLS`; it holds for one of the pairs, and nothing is specific to the others.
        num_models: one in four chooses, the others measure.
    """

    kind: Kind
    num_models: int = NUM_MODELS


@dataclass(frozen=True, slots=True, kw_only=True)
class NullOutcome:
    """What a study without a cause finds.

    Attributes:
        num_measured: pairs with enough errors and references.
        num_named: those of which a cue is named, for these models.
        num_recipe_named: the same for new seeds.
        accuracy: of the models on the audited scenes.
    """

    num_measured: int
    num_named: int
    num_recipe_named: int
    accuracy: float


def explain_null_study(study: NullStudy, seed: int) -> NullOutcome:
    """Return how many cues a study names where there is no cause."""
    seed += FIRST_WORLD
    world, pair = CauseWorld(kind=study.kind), (seed % 5, seed % 5 + 5)
    training, audited = world.draw_training(pair, 3 * seed), world.draw_audited(pair, 3 * seed + 1)
    readers = [fit_reader(training, seed, number) for number in range(study.num_models)]
    selecting, measuring = split_seeds(study.num_models)
    logits = np.stack([read(audited.images) for read in readers])
    models = CauseModels(
        sample_ids=np.arange(len(audited.labels)),
        selecting=logits[selecting],
        measuring=logits[measuring],
        compute_logits=lambda images: np.stack([read(images) for read in readers[measuring]]),
        are_own_errors=False,
    )
    pairs = [ConfusedClasses(one=one, other=find_partner(one)) for one in range(NUM_VALUES // 2)]
    found = find_root_causes(models, audited, pairs, seed=seed)
    return NullOutcome(
        num_measured=sum(bool(one.effects) for one in found),
        num_named=sum(one.cause not in (None, MIXED) for one in found),
        num_recipe_named=sum(one.recipe_cause not in (None, MIXED) for one in found),
        accuracy=float(np.mean(logits.argmax(axis=2) == audited.labels)),
    )


def fit_reader(scenes: ImageSet, seed: int, number: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from (n, H, W, 3) images to (n, 10) logits: linear discriminants of random features of the pixels."""
    generator = numpy_generator(seed, "reader", number)
    weights = generator.standard_normal((3 * (IMAGE_SIZE // 2) ** 2, NUM_FEATURES)) / IMAGE_SIZE
    shifts = generator.standard_normal(NUM_FEATURES)

    def describe(images: np.ndarray) -> np.ndarray:
        half = images.reshape(len(images), IMAGE_SIZE // 2, 2, IMAGE_SIZE // 2, 2, 3).mean(axis=(2, 4))
        return np.maximum((half.reshape(len(images), -1) - PIXEL_MEAN) / PIXEL_SD @ weights + shifts, 0.0)

    chosen = generator.integers(len(scenes.labels), size=len(scenes.labels))
    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    fitted.fit(describe(np.asarray(scenes.images)[chosen]), scenes.labels[chosen])
    return lambda images: np.asarray(fitted.decision_function(describe(images)))


def pretrain_cues(_name: str, file: Path) -> None:
    """Write the weights of a ResNet18 that has learned all four cues, each as a task of its own.

    One label that any of the cues may show would leave shape and texture unlearned: color and background explain it sooner.
    """
    generator = numpy_generator(10**6, "scenes of all cues")
    values = {cue: generator.integers(0, NUM_VALUES, NUM_PRETRAINING) for cue in SCENE_CUES}
    images, _ = draw_scenes(values, image_size=IMAGE_SIZE, generator=generator, **CLEAR)
    inputs = prepare_batch(
        torch.from_numpy(images), image_size=IMAGE_SIZE, interpolation="bicubic", channels_last=False
    )
    targets = torch.from_numpy(np.stack([values[cue] for cue in SCENE_CUES], axis=1))
    model = build_model(make_config("resnet18", IMAGE_SIZE, **TRAINING), len(SCENE_CUES) * NUM_VALUES, weights="none")
    optimizer = torch.optim.SGD(model.parameters(), lr=PRETRAINING_LR, momentum=0.9, weight_decay=1e-4)
    num_batches = NUM_PRETRAINING // PRETRAINING_BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PRETRAINING_LR, total_steps=PRETRAINING_EPOCHS * num_batches
    )
    model.train()
    for _ in range(PRETRAINING_EPOCHS):
        for batch in np.array_split(generator.permutation(NUM_PRETRAINING), num_batches):
            logits = model(inputs[batch]).view(-1, NUM_VALUES, len(SCENE_CUES))
            loss = len(SCENE_CUES) * nn.functional.cross_entropy(logits, targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    torch.save(model.state_dict(), file)


assert set(CAUSES.values()) == set(CUES)
