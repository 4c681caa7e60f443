"""Root cause: the one cue that a model uses is found, and removals have equal doses."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from analysis.audits.cues import CUES, LUMA, prepare_removal, remove_cues
from analysis.audits.root_cause import MIXED, find_root_cause
from analysis.audits.swap_effects import AuditImages
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
    pixels += HUES[shown["colour"]][:, None, None]
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
        "colour": -np.abs(chroma[:, None] - hues).sum(axis=2) / 80,
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


def find(
    weights: dict[str, float], audit_images: AuditImages, confused: list[tuple[int, int]] | None = None, seed: int = 0
):  # type: ignore[no-untyped-def]
    models = use_cues(weights)
    return find_root_cause(
        models(audit_images.images).argmax(axis=2), models, audit_images, (0, 1), confused or [(0, 1)], seed=seed
    )


@pytest.mark.parametrize("cue", ["texture", "colour", "context"])
def test_the_cue_that_the_models_use_is_named(cue: str) -> None:
    found = find({cue: 1.0}, make_images())
    assert found.cause == cue
    assert found.classes == ("a", "b")
    assert found.note == ""
    by_cue = {e.cue: e.effect for e in found.effects}
    assert by_cue[cue].low > 0
    assert found.lead.low > 0
    assert found.num_images > 8


def test_shape_is_distinguished_from_color_and_context_but_not_always_from_texture() -> None:
    """At equal doses, smoothing removes as much of these bright squares as shuffling patches does."""
    found = find({"shape": 1.0}, make_images())
    by_cue = {e.cue: e.effect for e in found.effects}
    assert found.cause in {"shape", MIXED}
    assert by_cue["shape"].low > max(by_cue["colour"].high, by_cue["context"].high)


def test_of_two_cues_in_use_both_have_an_effect_and_the_weaker_is_not_named() -> None:
    found = find({"context": 1.5, "colour": 1.0}, make_images(800))
    by_cue = {e.cue: e.effect for e in found.effects}
    assert by_cue["colour"].low > 0
    assert by_cue["context"].estimate > 0.5
    assert by_cue["texture"].estimate < min(by_cue["colour"].estimate, by_cue["context"].estimate)
    assert found.cause in {MIXED, max(("colour", "context"), key=lambda cue: by_cue[cue].estimate)}


def test_the_cause_is_the_same_for_the_same_seed() -> None:
    one, other = (find({"colour": 1.0}, make_images(), seed=3) for _ in range(2))
    assert one == other


def test_too_few_images_give_a_note_and_no_cause() -> None:
    audit_images = make_images()
    perfect = AuditImages(
        images=audit_images.images,
        labels=use_cues({"colour": 1.0}, 1)(audit_images.images)[0].argmax(axis=1),
        class_names=NAMES,
    )
    none = find({"colour": 1.0}, perfect)
    assert (none.cause, none.effects) == (MIXED, ())
    assert "too few images" in none.note
    everything = [(i, j) for i in range(K) for j in range(i)]
    assert "no other classes" in find({"colour": 1.0}, audit_images, everything).note


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


def test_full_removals_change_their_cue_and_nothing_else() -> None:
    audit_images = make_images(40)
    rng = np.random.default_rng(0)
    donors = audit_images.images[::-1].copy()
    full = replace(prepare_removal(audit_images.images, donors, rng), doses=dict.fromkeys(CUES, 1.0))
    turned = remove_cues(audit_images.images, frozenset({"colour"}), full).astype(float)
    inside = ((turned > 0) & (turned < 255)).all(axis=3)
    assert np.abs((turned - audit_images.images) @ LUMA)[inside].max() < 1.5
    chroma = [
        np.linalg.norm(x - (x @ LUMA)[..., None], axis=3)[inside] for x in (turned, audit_images.images.astype(float))
    ]
    assert chroma[0].mean() == pytest.approx(chroma[1].mean(), rel=0.15)
    assert np.abs(turned - audit_images.images)[inside].mean() > 5
    assert (remove_cues(audit_images.images, frozenset({"context"}), full)[:, 0] == donors[:, 0]).all()
    shuffled = remove_cues(audit_images.images, frozenset({"shape"}), full)
    assert np.array_equal(np.sort(shuffled.reshape(40, -1)), np.sort(audit_images.images.reshape(40, -1)))
    assert np.array_equal(shuffled[:, :4], audit_images.images[:, :4])
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
