"""Root cause: a cue of the pair alone is named, shrinkage of all margins is not, and removals have equal doses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analysis.causes import root_cause
from analysis.causes.confused_images import CauseModels, ConfusedClasses, split_seeds
from analysis.causes.cues import CUES, MORE_SPARED_FRACTION, prepare_removal, remove_cues, remove_every_set
from analysis.causes.root_cause import find_root_causes
from analysis.causes.values import MATERIAL_EFFECT, MIXED, RootCause
from analysis.shortcuts.swaps import LUMA, AuditImages
from search_spaces.errors import UserInputError

K, SIDE = 4, 32
NAMES = ("a", "b", "c", "d")
LEVELS = np.array([60, 105, 150, 195])
HUES = np.array([[40, -40, 0], [-40, 40, 0], [0, -40, 40], [-40, 0, 40]])


def make_images(num_images: int = 400, seed: int = 0) -> AuditImages:
    """Return images in which each of four cues shows a class, usually that of the image.

    Context: gray level of the ring. Color: hue of the center. Texture: contrast of a checkerboard of pixels. Shape: the quarter
    of the center that is bright.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % K
    shown = {
        cue: np.where(rng.random(num_images) < 0.7, labels, rng.integers(K, size=num_images)) for cue in sorted(CUES)
    }
    pixels = np.full((num_images, SIDE, SIDE, 3), 110.0)
    pixels += HUES[shown["color"]][:, None, None]
    checker = np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 2 - 1
    pixels += checker[None, :, :, None] * (8 * shown["texture"])[:, None, None, None]
    for i, quarter in enumerate(shown["shape"]):
        y, x = 8 + 8 * (quarter // 2), 8 + 8 * (quarter % 2)
        pixels[i, y : y + 8, x : x + 8] += 40
    edge = np.ones((SIDE, SIDE), dtype=bool)
    edge[4:-4, 4:-4] = False
    pixels[:, edge] = LEVELS[shown["context"]][:, None, None]
    noisy = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    return AuditImages(images=noisy, labels=labels, class_names=NAMES)


def measure_cues(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return, per cue, the (n, K) similarity of an image to each class."""
    pixels = images.astype(float)
    center = pixels[:, 8:24, 8:24]
    gray = center.mean(axis=3)
    chroma = (center - gray[..., None]).mean(axis=(1, 2))
    checker = np.indices((16, 16)).sum(axis=0) % 2 * 2 - 1
    strength = (gray * checker).mean(axis=(1, 2))
    blocks = gray.reshape(len(images), 2, 8, 2, 8).mean(axis=(2, 4)).reshape(len(images), 4)
    ring = pixels[:, 0].mean(axis=(1, 2))
    hues = HUES - HUES.mean(axis=1, keepdims=True)
    return {
        "context": -np.abs(ring[:, None] - LEVELS) / 45,
        "color": -np.abs(chroma[:, None] - hues).sum(axis=2) / 80,
        "texture": -np.abs(strength[:, None] - 8 * np.arange(K)) / 8,
        "shape": (blocks - blocks.mean(axis=1, keepdims=True)) / 40,
    }


def use_cues(weights: dict[str, float], num_seeds: int = 6) -> Callable[[np.ndarray], np.ndarray]:
    def compute_logits(images: np.ndarray) -> np.ndarray:
        seen = measure_cues(images)
        logits = sum(weight * seen[cue] for cue, weight in weights.items())
        rng = np.random.default_rng(5)
        return np.stack([6 * logits + rng.normal(0, 0.3, logits.shape) for _ in range(num_seeds)])

    return compute_logits


PAIR = ConfusedClasses(one=0, other=1)


def find_all(
    weights: dict[str, float], audit_images: AuditImages, confusions: Sequence[ConfusedClasses], seed: int = 0
) -> tuple[RootCause, ...]:
    models = use_cues(weights)
    logits = models(audit_images.images)
    evidence = CauseModels(
        sample_ids=np.arange(len(audit_images.labels)),
        selecting=logits,
        measuring=logits,
        compute_logits=models,
        are_own_errors=False,
    )
    return find_root_causes(evidence, audit_images, confusions, seed=seed)


def find(weights: dict[str, float], audit_images: AuditImages, seed: int = 0) -> RootCause:
    return find_all(weights, audit_images, [PAIR], seed)[0]


def test_causes_hold_over_all_pairs_that_are_asked_for() -> None:
    images, weights = make_images(480, seed=1), {"color": 1.0}
    alone = find(weights, images)
    first, *others = find_all(weights, images, [PAIR, *(ConfusedClasses(one=2, other=k) for k in (0, 3))])
    assert all(cause.effects for cause in others)
    for one, among_three in zip(
        (alone.lead, alone.effects[0].effect), (first.lead, first.effects[0].effect), strict=True
    ):
        assert among_three.models.estimate == one.models.estimate
        assert among_three.models.low < one.models.low
        assert among_three.models.high > one.models.high


def test_a_cue_that_causes_the_other_errors_as_much_is_no_cause_of_the_pair() -> None:
    found = find({"color": 1.0}, make_images(480, seed=1))
    assert found.cause == MIXED
    assert found.effects
    assert found.num_references >= 8
    assert found == find({"color": 1.0}, make_images(480, seed=1))


def test_too_few_images_give_a_note_and_no_cause() -> None:
    audit_images = make_images()
    perfect = AuditImages(
        images=audit_images.images,
        labels=use_cues({"color": 1.0}, 1)(audit_images.images)[0].argmax(axis=1),
        class_names=NAMES,
    )
    none = find({"color": 1.0}, perfect)
    assert (none.cause, none.recipe_cause, none.effects) == (MIXED, None, ())
    assert "too few images" in none.note


SHRINKAGE = {"texture": 0.15, "shape": 0.30, "color": 0.15, "context": 0.10}


class Margins:
    """Images that are numbers, and models whose margins are made up: each removed cue multiplies a margin by 1 - w.

    The first images are of the classes 0 and 1 and confused, the others are between the classes 2 to 5.
    """

    def __init__(
        self,
        confused: np.ndarray,
        others: np.ndarray,
        num_seeds: int,
        rng: np.random.Generator,
        shape_gain: float = 0.0,
        classes: tuple[int, int] = (0, 1),
    ) -> None:
        margins = np.concatenate([confused, others])
        total, first = len(margins), len(confused)
        self.labels = 2 + np.arange(total) % 4
        self.other = 2 + (np.arange(total) + 1 + np.arange(total) // 4 % 3) % 4
        self.labels[:first] = np.resize(classes, first)
        self.other[:first] = 1 - self.labels[:first]
        self.margins = margins + rng.normal(0, 0.5, (num_seeds, total))
        self.gain = self.gain_of_check = shape_gain * (np.arange(total) < first)
        self.noise = rng.normal(0, 0.3, (2 ** len(CUES), num_seeds, total))
        self.noise[0] = 0

    @property
    def audit_images(self) -> AuditImages:
        images = np.zeros((len(self.labels), 1, 1, 3), dtype=np.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = divmod(np.arange(len(self.labels)), 256)
        return AuditImages(images=images, labels=self.labels, class_names=tuple("abcdef"))

    def compute_logits(self, images: np.ndarray, seeds: slice) -> np.ndarray:
        number = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]
        is_check, removed = divmod(int(images[0, 0, 0, 2]), 1 << len(CUES))
        gain = (self.gain_of_check if is_check else self.gain)[number]
        cues = [cue for place, cue in enumerate(CUES) if removed >> place & 1]
        margins = self.margins[seeds][:, number] * np.prod([1 - SHRINKAGE[cue] for cue in cues])
        margins = margins + self.noise[removed][seeds][:, number] + gain * ("shape" in cues)
        logits = np.full((len(margins), len(number), 6), -50.0)
        logits[:, np.arange(len(number)), self.labels[number]] = 0.0
        logits[:, np.arange(len(number)), self.other[number]] = -margins
        return logits

    def find(self, *, is_directed: bool = False) -> RootCause:
        selecting, measuring = split_seeds(len(self.margins))
        images = self.audit_images
        models = CauseModels(
            sample_ids=np.arange(len(self.labels)),
            selecting=self.compute_logits(images.images, selecting),
            measuring=self.compute_logits(images.images, measuring),
            compute_logits=lambda changed: self.compute_logits(changed, measuring),
            are_own_errors=len(self.margins) == 1,
        )
        return find_root_causes(models, images, [ConfusedClasses(one=0, other=1, is_directed=is_directed)])[0]


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removals of cues are written into the images' third channel."""

    def remove(images: np.ndarray, removal: SimpleNamespace) -> Iterator[tuple[frozenset[str], np.ndarray]]:
        for number in range(1 << len(CUES)):
            changed = images.copy()
            changed[..., 2] = number + (1 << len(CUES)) * (removal.spared_fraction == MORE_SPARED_FRACTION)
            yield frozenset(cue for place, cue in enumerate(CUES) if number >> place & 1), changed

    monkeypatch.setattr(
        "analysis.causes.cues.prepare_removal",
        lambda *arguments: SimpleNamespace(spared_fraction=arguments[-1], absent=()),
    )
    monkeypatch.setattr("analysis.causes.cues.remove_every_set", remove)


@pytest.mark.usefixtures("numbered")
def test_shrinkage_of_all_margins_is_no_cause() -> None:
    """Removing any useful cue moves confused images up and correctly classified ones down; neither is specific to a pair."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        confused, correct = rng.normal(-1, 1, 60), rng.normal(6, 1.5, 120)
        alone = Margins(confused, correct, 4, rng).find()
        assert alone.cause == MIXED
        assert "no comparable references" in alone.note
        with_errors = Margins(confused, np.concatenate([correct, rng.normal(-1.5, 1.2, 120)]), 4, rng).find()
        assert (with_errors.cause, with_errors.recipe_cause) == (MIXED, MIXED)
        assert with_errors.imbalance is not None
        assert abs(with_errors.imbalance) < root_cause.MAX_IMBALANCE


@pytest.mark.usefixtures("numbered")
@pytest.mark.parametrize(("num_seeds", "recipe"), [(4, "shape"), (1, None)])
def test_a_cue_of_the_pair_is_named_among_errors_that_shrink(num_seeds: int, recipe: str | None) -> None:
    rng = np.random.default_rng(0)
    made = Margins(rng.normal(-1, 1, 60), rng.normal(-1.5, 1.2, 120), num_seeds, rng, shape_gain=0.6)
    found = made.find()
    assert (found.cause, found.recipe_cause) == ("shape", recipe)
    by_cue = {effect.cue: effect.effect for effect in found.effects}
    assert by_cue["shape"].models.low > 0
    assert found.lead.models.low > 0
    assert by_cue["shape"].estimate == pytest.approx(0.6, abs=0.25)
    assert (by_cue["shape"].recipe is None) == (num_seeds == 1)
    assert found.note == ("" if num_seeds > 1 else "one model: the images were chosen by its own errors")


@pytest.mark.usefixtures("numbered")
def test_an_effect_that_is_certain_but_small_is_no_cause() -> None:
    certain = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        found = Margins(rng.normal(-1, 1, 120), rng.normal(-1.2, 1.2, 240), 7, rng, shape_gain=0.08).find()
        effect = next(e.effect.models for e in found.effects if e.cue == "shape")
        certain += effect.low > 0
        assert effect.low < MATERIAL_EFFECT
        assert found.cause == MIXED
    assert certain >= 3


@pytest.mark.usefixtures("numbered")
def test_a_gain_that_ends_where_wide_patterns_are_spared_is_not_one_of_shape() -> None:
    rng = np.random.default_rng(0)
    made = Margins(rng.normal(-1, 1, 60), rng.normal(-1.5, 1.2, 120), 4, rng, shape_gain=0.6)
    made.gain_of_check = np.zeros_like(made.gain)
    found = made.find()
    assert (found.cause, found.recipe_cause) == (MIXED, MIXED)
    assert found.lead.models.low > 0


@pytest.mark.usefixtures("numbered")
def test_a_cue_that_no_error_but_the_pair_resists_is_no_cause() -> None:
    """Other errors that a removal makes worse leave the pair with a lead, although nothing helps the pair itself."""
    rng = np.random.default_rng(1)
    made = Margins(rng.normal(-1, 1, 60), rng.normal(-1.2, 1.0, 120), 4, rng)
    made.gain = -2.0 * (np.arange(180) >= 60)
    found = made.find()
    by_cue = {effect.cue: effect.effect for effect in found.effects}
    assert by_cue["shape"].models.low > 1
    made.gain -= 0.5 * (np.arange(180) < 60)
    assert made.find().cause == MIXED


@pytest.mark.usefixtures("numbered")
def test_twenty_images_of_one_direction_are_measured() -> None:
    rng = np.random.default_rng(2)
    made = Margins(np.full(20, -1.0), rng.normal(-1, 0.5, 120), 3, rng, shape_gain=1.0, classes=(0, 0))
    for is_directed in (False, True):
        found = made.find(is_directed=is_directed)
        assert (found.cause, found.is_directed) == ("shape", is_directed)
    back = Margins(np.full(20, -1.0), rng.normal(-1, 0.5, 120), 3, rng, shape_gain=1.0, classes=(1, 1))
    assert "too few images" in back.find(is_directed=True).note


def test_a_third_of_the_seeds_chooses_and_the_others_measure() -> None:
    split = {s: tuple(len(range(s)[part]) for part in split_seeds(s)) for s in (1, 2, 3, 6, 10)}
    assert split == {1: (1, 1), 2: (1, 1), 3: (1, 2), 6: (2, 4), 10: (3, 7)}
    assert range(2)[split_seeds(2)[1]] == range(1, 2)


def test_doses_change_the_pixels_equally_and_none_is_zero() -> None:
    audit_images = make_images()
    rng = np.random.default_rng(0)
    donors = audit_images.images[rng.permutation(len(audit_images.images))]
    removal = prepare_removal(audit_images.images, donors, rng)
    assert max(removal.doses.values()) == pytest.approx(1.0)
    assert min(removal.doses.values()) > 0
    change = {
        cue: np.sqrt(
            np.mean(
                (remove_cues(audit_images.images, frozenset({cue}), removal).astype(float) - audit_images.images) ** 2
            )
        )
        for cue in CUES
    }
    assert max(change.values()) / min(change.values()) < 1.05
    assert np.array_equal(remove_cues(audit_images.images, frozenset(), removal), audit_images.images)


def test_every_set_of_cues_is_removed_as_if_alone() -> None:
    images = make_images().images[:9]
    rng = np.random.default_rng(0)
    removal = prepare_removal(images, images[rng.permutation(9)], rng)
    sets = dict(remove_every_set(images, removal))
    assert len(sets) == 2 ** len(CUES)
    assert all(np.array_equal(removed, remove_cues(images, cues, removal)) for cues, removed in sets.items())
    assert len({removed.tobytes() for removed in sets.values()}) == len(sets)


def test_the_removal_of_shape_spares_smooth_surroundings() -> None:
    """Permuted as they are, the patches of a gradient from 40 to 215 change by 70 levels."""
    gradient = np.tile(np.linspace(40, 215, SIDE).astype(np.uint8)[None, :, None, None], (20, 1, SIDE, 3))
    full = replace(prepare_removal(gradient, gradient, np.random.default_rng(0)), doses=dict.fromkeys(CUES, 1.0))
    change = remove_cues(gradient, frozenset({"shape"}), full).astype(float) - gradient
    assert np.sqrt(np.mean(change[:, 4:28, 4:28] ** 2)) < 4


def test_full_removals_change_their_cue_and_nothing_else() -> None:
    audit_images = make_images(40)
    rng = np.random.default_rng(0)
    donors = audit_images.images[::-1].copy()
    full = replace(prepare_removal(audit_images.images, donors, rng), doses=dict.fromkeys(CUES, 1.0))
    turned = remove_cues(audit_images.images, frozenset({"color"}), full).astype(float)
    inside = ((turned > 0) & (turned < 255)).all(axis=3)
    assert np.abs((turned - audit_images.images) @ LUMA)[inside].max() < 1.5
    chroma = [
        np.linalg.norm(x - (x @ LUMA)[..., None], axis=3)[inside] for x in (turned, audit_images.images.astype(float))
    ]
    assert chroma[0].mean() == pytest.approx(chroma[1].mean(), rel=0.15)
    assert np.abs(turned - audit_images.images)[inside].mean() > 5
    assert (remove_cues(audit_images.images, frozenset({"context"}), full)[:, 0] == donors[:, 0]).all()
    shuffled = remove_cues(audit_images.images, frozenset({"shape"}), full)
    assert np.array_equal(shuffled[:, :4], audit_images.images[:, :4])
    quarters = [measure_cues(images)["shape"] for images in (audit_images.images, shuffled)]
    assert np.abs(quarters[1]).mean() < 0.75 * np.abs(quarters[0]).mean()
    assert shuffled[:, 4:28, 4:28].mean() == pytest.approx(audit_images.images[:, 4:28, 4:28].mean(), abs=1)
    checker = np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 2 - 1
    smooth = remove_cues(audit_images.images, frozenset({"texture"}), full)
    contrast = [np.abs((x.mean(axis=3) * checker).mean(axis=(1, 2))).mean() for x in (audit_images.images, smooth)]
    assert contrast[1] < 0.75 * contrast[0]
    step = np.full((1, SIDE, SIDE, 3), 40, dtype=np.uint8)
    step[:, :, SIDE // 2 :] = 210
    one = replace(full, donors=step, orders=full.orders[:1], turns=full.turns[:1])
    assert np.abs(remove_cues(step, frozenset({"texture"}), one).astype(int) - step).max() < 10
    with pytest.raises(UserInputError, match="12 pixels a side"):
        prepare_removal(audit_images.images[:, :6, :6], donors[:, :6, :6], rng)


def test_a_cue_that_the_images_lack_does_not_stop_the_removal_of_the_others() -> None:
    """Gray images have no hue to turn; its change of nearly nothing was the dose of all cues."""
    gray = make_images(40)
    images = np.repeat((gray.images @ LUMA).round().astype(np.uint8)[..., None], 3, axis=3)
    removal = prepare_removal(images, images[::-1].copy(), np.random.default_rng(0))
    assert removal.absent == ("color",)
    for cue in ("texture", "shape", "context"):
        change = remove_cues(images, frozenset({cue}), removal).astype(float) - images
        assert np.sqrt(np.mean(change**2)) > 2, cue
    assert np.abs(remove_cues(images, frozenset({"color"}), removal).astype(int) - images).max() <= 1
    plain = prepare_removal(gray.images, gray.images[::-1].copy(), np.random.default_rng(0))
    assert plain.absent == ()


def test_with_folds_the_model_of_the_fold_is_asked_and_donors_are_of_the_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    images, models = make_images(480, seed=1), use_cues({"color": 1.0}, num_seeds=1)
    folds = np.random.default_rng(0).integers(2, size=480)
    place = {image.tobytes(): number for number, image in enumerate(images.images)}
    asked: list[list[int]] = []

    def check(confused: np.ndarray, donors: np.ndarray, *rest: Any) -> Any:
        of_images, of_donors = ([folds[place[one.tobytes()]] for one in some] for some in (confused, donors))
        assert of_images == of_donors
        asked.append(of_images)
        return prepare_removal(confused, donors, *rest)

    def compute(removed: np.ndarray, own: np.ndarray) -> np.ndarray:
        assert own.tolist() == asked[-1]
        return models(removed)

    monkeypatch.setattr("analysis.causes.cues.prepare_removal", check)
    logits = models(images.images)
    evidence = CauseModels(
        sample_ids=np.arange(480), selecting=logits, measuring=logits, compute_logits=compute, are_own_errors=True
    )
    (found,) = find_root_causes(evidence, replace(images, folds=folds), [PAIR])
    assert asked
    assert set(asked[0]) == {0, 1}
    assert found.effects
