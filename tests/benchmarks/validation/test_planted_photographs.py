"""Planted photographs: what is pasted where, and how outcomes are counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.shortcuts.swaps import AuditImages
from benchmarks.validation.donor_coverage import DonorCoverage, draw_sample
from benchmarks.validation.goals import Judgement
from benchmarks.validation.planted_audits import RingOutcome
from benchmarks.validation.planted_photographs import PhotographOutcome, PhotographWorld, Planted, Treatment
from benchmarks.validation.planted_textures import TextureWorld
from benchmarks.validation.validate_photographs import judge, list_worlds, tabulate_coverage, tabulate_photographs
from trainables.data.augmentation.mixing import RING_FRACTIONS, make_ring

LABELS = np.arange(4000) % 10
IMAGES = np.random.default_rng(0).integers(256, size=(4000, 32, 32, 3), dtype=np.uint8)


def plant(
    planted: Planted, rho: float = 0.8, *, only_one: bool = False, part: str = "audit"
) -> tuple[np.ndarray, np.ndarray]:
    world = PhotographWorld(photographs="cifar10", planted=planted, data=Path(), rho=rho, only_one=only_one)
    return world.plant(IMAGES, LABELS, 10, 3, part)


@pytest.mark.parametrize(("planted", "pixels"), [(Planted.FRAME, 2 * 2 * (32 + 28)), (Planted.PATCH, 16)])
def test_a_frame_or_a_patch_has_the_color_of_the_class_with_rho_and_nothing_else_changes(
    planted: Planted, pixels: int
) -> None:
    images, labels = plant(planted)
    assert (labels == LABELS).all()
    ring = make_ring(32, 32, RING_FRACTIONS[-1])
    assert (images[:, ~ring] == IMAGES[:, ~ring]).all()
    is_painted = (images == images[:, :1, :1]).all(axis=(0, 3))
    assert is_painted.sum() == pixels
    own = {image.tobytes() for image in IMAGES[:, ring & ~is_painted]}
    moved = images[:, ring & ~is_painted]
    assert {image.tobytes() for image in moved} == own, "the rings of other photographs"
    assert (moved != IMAGES[:, ring & ~is_painted]).any(axis=(1, 2)).mean() > 0.99
    colors = images[:, 0, 0].astype(int)
    own = [np.unique(colors[labels == c], axis=0, return_counts=True) for c in range(10)]
    assert all(counts.max() / counts.sum() == pytest.approx(0.82, abs=0.06) for _, counts in own)
    assert len({tuple(found[counts.argmax()]) for found, counts in own}) == 10
    assert (plant(planted)[0] == images).all()
    assert (plant(planted, part="training")[0] != images).any()


def test_one_class_or_none_is_shown_and_nothing_leaves_the_photographs() -> None:
    assert (plant(Planted.NOTHING, 0.0)[0] == IMAGES).all()
    for only_one, expected in ((True, 1), (False, 0)):
        images, labels = plant(
            Planted.FRAME if only_one else Planted.RINGS, 0.8 if only_one else 0.0, only_one=only_one
        )
        shares = [np.unique(images[labels == c][:, 0, 0], axis=0, return_counts=True)[1].max() / 400 for c in range(10)]
        assert sum(share > 0.5 for share in shares) == expected


def test_labels_are_exchanged_in_a_pair_and_a_texture_is_shared_by_it() -> None:
    images, labels = plant(Planted.LABELS)
    assert (images == IMAGES).all()
    changed = labels != LABELS
    assert set(zip(LABELS[changed].tolist(), labels[changed].tolist(), strict=True)) == {(3, 8), (8, 3)}
    textures, kept = plant(Planted.TEXTURE, 1.0)
    assert (kept == LABELS).all()
    waves = np.stack([((textures.astype(int) - IMAGES)[c == LABELS]).mean(axis=(0, 3)) for c in range(10)])
    alike = np.corrcoef(waves.reshape(10, -1)) > 0.9
    assert {(i, j) for i, j in np.argwhere(alike).tolist() if i < j} == {(3, 8)}


def test_textures_of_a_pair_tell_it_apart_in_training_and_mislead_about_half_of_the_audited_photographs() -> None:
    world = TextureWorld(photographs="cifar10", planted=Planted.TEXTURE, data=Path(), rho=1.0)
    ways = {}
    for part in ("training", "audit"):
        images, labels = world.plant(IMAGES, LABELS, 10, 3, part)
        assert (labels == LABELS).all()
        changed = (images != IMAGES).any(axis=(1, 2, 3))
        assert set(LABELS[changed]) == {3, 8}
        waves = (images.astype(int) - IMAGES).mean(axis=3)[changed].reshape(changed.sum(), -1)
        likeness = np.corrcoef(waves[LABELS[changed] == 3][:100])
        ways[part] = np.mean(likeness > 0.5)
    assert ways["training"] == 1.0
    assert ways["audit"] == pytest.approx(0.5, abs=0.1)


def make_outcome(*, fails: bool, cause: str, is_better: bool) -> PhotographOutcome:
    ring = RingOutcome(
        gap=0.2,
        highest_gap=0.3,
        fails=fails,
        is_confirmed=fails,
        recipe_confirmed=fails,
        first_confirmed=fails,
        region="",
    )
    treatment = Treatment(before=0.2, after=0.1, is_better=is_better, accuracy=0.0, seconds=1.0)
    return PhotographOutcome(
        accuracy=0.7,
        rings=(ring, ring),
        num_classes=10,
        num_decided=9,
        half_width=0.04,
        num_color_losses=2,
        cause=cause,
        treatments={"head_ring_swaps": treatment},
        seconds=3.0,
    )


def test_goals_count_controls_and_planted_worlds_apart(tmp_path: Path) -> None:
    worlds = list(list_worlds(tmp_path, sample=False))
    assert sum(count for world, count in worlds if world.planted is Planted.RINGS) == 30
    assert sum(count for world, count in worlds if world.planted is Planted.TEXTURE) == 17
    assert {world.rho for world, _ in worlds} == {0.0, 0.5, 0.8, 1.0}
    outcomes = {
        world: [
            make_outcome(
                fails=world.rho > 0,
                cause="texture" if world.planted is Planted.TEXTURE else "mixed",
                is_better=world.rho > 0,
            )
        ]
        * (20 * count)
        for world, count in worlds
    }
    covered = [[DonorCoverage(num_donors=8, num_intervals=600, num_covered=580, half_width=0.1, seconds=1.0)]] * 2
    audits, causes, _ = tabulate_photographs(outcomes)
    assert len(causes.rows) - len(audits.rows) == 5, "no ring is audited where a pair was planted"
    assert tabulate_coverage(covered).rows == [["8", "1200", "0.967", "10.0", "1.00"]]
    goals = list(judge(outcomes, covered))
    assert {goal.judgement for goal in goals} == {Judgement.MET}
    wrong = {world: [make_outcome(fails=True, cause="color", is_better=True)] * 40 for world, _ in worlds}
    narrow = [[replace(covered[0][0], num_covered=540)]] * 2
    missed = {goal.name for goal in judge(wrong, narrow) if goal.judgement is Judgement.MISSED}
    assert missed == {
        "controls whose ring audit is confirmed",
        "a texture that misleads is the cause",
        "a texture that two classes share is the cause",
        "a cause without one",
        "a new head or a swap is BETTER in controls",
        "intervals of gaps cover with 8 donors",
    }


def test_samples_are_drawn_with_replacement_equally_many_of_each_class() -> None:
    population = AuditImages(images=IMAGES[:50], labels=LABELS[:50], class_names=tuple("abcdefghij"))
    sample = draw_sample(population, 80, np.random.default_rng(0))
    assert (np.bincount(sample.labels) == 8).all()
    assert {image.tobytes() for image in sample.images} < {image.tobytes() for image in population.images}


def test_interventions_are_tried_where_a_full_shortcut_shows_all_classes_and_where_none_does() -> None:
    whole = [
        (world, sum(map(world.is_treated, range(count)))) for world, count in list_worlds(Path("data"), sample=False)
    ]
    assert {(world.planted, world.only_one, world.rho) for world, treated in whole if treated} == {
        (Planted.NOTHING, False, 0.0),
        (Planted.RINGS, False, 0.0),
        (Planted.FRAME, False, 0.8),
        (Planted.PATCH, False, 0.8),
    }
    assert {treated for _, treated in whole} == {0, 1, 2, 3, 5}
