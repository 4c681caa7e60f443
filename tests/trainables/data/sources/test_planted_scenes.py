"""Planted scenes: the correlation of each cue with the class, and its place in the image."""

import hashlib
import itertools
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from search_spaces.errors import UserInputError
from trainables.data.sources import load_image_set
from trainables.data.sources import planted_drawing as drawing
from trainables.data.sources.planted_scenes import (
    CUES,
    DEFAULT_CORRELATION,
    SHORTCUTS,
    CueExchange,
    PlantedScenes,
    make_planted_scenes,
)

ALL_SHORTCUTS = dict.fromkeys(SHORTCUTS, 0.0)


@pytest.fixture(scope="module")
def scenes() -> PlantedScenes:
    return make_planted_scenes(seed=4, num_images=4000, shortcuts={"frame": 0.7})


def test_the_same_seed_gives_the_same_bytes() -> None:
    sets = [load_image_set("planted", seed=seed, num_images=60) for seed in (1, 1, 2)]
    assert sets[0].images.tobytes() == sets[1].images.tobytes() != sets[2].images.tobytes()
    assert sets[0].labels.tobytes() == sets[1].labels.tobytes() != sets[2].labels.tobytes()


def test_the_bytes_are_equal_on_all_machines() -> None:
    scenes = make_planted_scenes(seed=0, num_images=600, shortcuts=ALL_SHORTCUTS)
    assert hashlib.sha256(scenes.image_set.images.tobytes()).hexdigest()[:16] == "3baf7b256f99e044"


def test_classes_are_balanced_and_named_after_the_shapes() -> None:
    image_set = load_image_set("planted", num_images=203)
    counts = np.bincount(image_set.labels, minlength=10)
    assert counts.max() - counts.min() <= 1
    assert set(image_set.class_groups) == {"round", "angular"}
    assert sorted(itertools.chain(*image_set.class_groups.values())) == sorted(image_set.class_names)


def test_rare_classes_have_their_share_of_the_images() -> None:
    image_set = load_image_set("planted", num_images=430, class_frequencies={"bar": 0.25, "cross": 0.5, "disc": 1.0})
    counts = dict(zip(image_set.class_names, np.bincount(image_set.labels).tolist(), strict=True))
    assert (counts["bar"], counts["cross"]) == (13, 25)
    assert {count for name, count in counts.items() if name not in ("bar", "cross")} == {49}
    assert len(image_set) == 430


@pytest.mark.parametrize("one_way", [False, True])
def test_exchanges_show_the_value_of_the_other_class(one_way: bool) -> None:
    exchange = CueExchange(cue="color", pairs=(("ring", "square"),), rate=0.3, one_way=one_way)
    plain, exchanged = (
        make_planted_scenes(seed=2, num_images=3000, image_size=24, cue_correlation=1.0, exchanges=exchanges)
        for exchanges in ((), (exchange,))
    )
    labels, values = exchanged.image_set.labels, exchanged.cue_values["color"]
    ring, square = drawing.SHAPES.index("ring"), drawing.SHAPES.index("square")
    assert set(values[labels == ring]) == {ring, square}
    assert abs((values[labels == ring] == square).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 300)
    assert ((values[labels == square] == ring).mean() > 0.15) is not one_way
    others = ~np.isin(labels, (ring, square))
    np.testing.assert_array_equal(values[others], labels[others])
    for cue in CUES:
        if cue != "color":
            np.testing.assert_array_equal(exchanged.cue_values[cue], plain.cue_values[cue])


def test_a_cue_can_have_another_correlation_in_some_classes() -> None:
    scenes = make_planted_scenes(
        seed=5,
        num_images=1000,
        image_size=24,
        cue_correlation=1.0,
        class_correlation={"background": {"disc": 0.0, "bar": 0.5}},
    )
    agrees = scenes.cue_values["background"] == scenes.image_set.labels
    shares = {name: agrees[scenes.image_set.labels == k].mean() for k, name in enumerate(drawing.SHAPES)}
    assert shares["disc"] < 0.3
    assert 0.35 < shares["bar"] < 0.75
    assert all(share == 1 for name, share in shares.items() if name not in ("disc", "bar"))


def test_the_published_test_set_has_its_own_exchanges() -> None:
    options = {"num_images": 200, "image_size": 24, "cue_correlation": 1.0, "noise_std": 0.0}
    dark_and_bright = {"cue": "background", "pairs": [["disc", "ring"]], "rate": 1.0}
    image_set = load_image_set("planted", **options, test_set={"num_images": 100, "exchanges": [dark_and_bright]})
    assert image_set.official_test is not None
    np.testing.assert_array_equal(np.flatnonzero(image_set.official_test), np.arange(200, 300))
    assert image_set.images[:200].tobytes() == load_image_set("planted", **options).images.tobytes()
    borders = image_set.images[:, 0].mean(axis=(1, 2))
    is_disc = image_set.labels == drawing.SHAPES.index("disc")
    assert borders[is_disc & ~image_set.official_test].max() < borders[is_disc & image_set.official_test].min()


def test_the_published_test_set_has_its_own_class_frequencies() -> None:
    options = {"num_images": 200, "seed": 3, "class_frequencies": {"cross": 0.2}}
    sizes = {}
    for name, of_test in (("as training", {}), ("equal", {"class_frequencies": {}})):
        image_set = load_image_set("planted", **options, test_set={"num_images": 100, **of_test})
        sizes[name] = np.bincount(image_set.labels[200:], minlength=10)[drawing.SHAPES.index("cross")]
    assert sizes == {"as training": 2, "equal": 10}


def test_the_published_test_set_has_its_own_correlation() -> None:
    def measure_frame_spread(correlation: dict[str, float]) -> dict[bool, float]:
        """Return how much the mean colors of the frames differ within a class, in the training and in the test images."""
        options = {
            "num_images": 300,
            "noise_std": 0.0,
            "cue_correlation": {"background": 0.0},
            "shortcuts": {"frame": 1.0},
        }
        found = load_image_set("planted", **options, test_set={"num_images": 300, "correlation": correlation})
        colors, parts = found.images[:, 0].mean(axis=1), found.official_test
        assert parts is not None
        return {
            part: float(np.mean([colors[(found.labels == k) & (parts == part)].std(axis=0).mean() for k in range(10)]))
            for part in (False, True)
        }

    same, other = measure_frame_spread({}), measure_frame_spread({"frame": 0.0})
    assert other[False] == same[False]
    assert same[True] < 0.2 * other[True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exchanges": [{"cue": "colr", "pairs": [], "rate": 0.1}]}, r"names the cue 'colr' \(did you mean 'color'"),
        ({"exchanges": [{"cue": "color", "pairs": [["disk", "ring"]], "rate": 0.1}]}, r"'disk' \(did you mean 'disc'"),
        ({"exchanges": [{"cue": "color", "pairs": [["disc", "disc"]], "rate": 0.1}]}, "'disc' with itself"),
        ({"exchanges": [{"cue": "color", "pairs": [["disc", "ring"]], "rate": 2}]}, "option exchanges.*but got 2"),
        ({"class_correlation": {"color": {"cros": 0.1}}}, r"'cros' \(did you mean 'cross'"),
        ({"class_correlation": {"colr": {"cross": 0.1}}}, r"names 'colr' \(did you mean 'color'"),
        ({"class_correlation": {"color": {"cross": 2.0}}}, "option class_correlation.*but got 2"),
        ({"class_frequencies": {"cros": 0.1}}, r"'cros' \(did you mean 'cross'"),
        ({"class_frequencies": {"cross": 0.001}}, "cross has none of 100"),
        ({"test_set": {"num_images": 30, "class_frequencies": {"cros": 0.5}}}, r"'cros' \(did you mean 'cross'"),
        ({"test_set": {"num_images": 30, "correlation": {"frame": 0.5}}}, "test_set.correlation names 'frame'"),
        ({"test_set": {"num_images": 30, "correlation": {"shape": 2.0}}}, "option test_set.*but got 2"),
        ({"test_set": {"num_images": 3}}, "option test_set.*but got 3"),
    ],
)
def test_wrong_exchanges_frequencies_and_test_sets_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        load_image_set("planted", num_images=100, **options)


@pytest.mark.parametrize("cue", [*CUES, "frame"])
def test_a_cue_agrees_with_the_class_at_the_expected_rate(scenes: PlantedScenes, cue: str) -> None:
    rho = {**DEFAULT_CORRELATION, "frame": 0.7}[cue]
    labels, values = scenes.image_set.labels, scenes.cue_values[cue]
    expected = rho + (1 - rho) / 10
    four_errors = 4 * np.sqrt(expected * (1 - expected) / len(labels))
    assert abs((labels == values).mean() - expected) < four_errors
    # Otherwise it is uniform: no other value is preferred.
    others = np.bincount((values - labels)[values != labels] % 10, minlength=10)[1:]
    assert others.min() > 0.6 * others.mean()


@pytest.mark.parametrize("rho", [0.0, 0.5, 1.0])
def test_cues_are_independent_given_the_class(rho: float) -> None:
    scenes = make_planted_scenes(seed=7, num_images=2000, cue_correlation=rho, shortcuts={"corner_patch": rho})
    agree = {cue: values == scenes.image_set.labels for cue, values in scenes.cue_values.items()}
    assert set(agree) == {*CUES, "corner_patch"}
    for one, other in itertools.combinations(agree.values(), 2):
        if rho == 1:
            assert one.all()
        else:
            assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(len(one))


def test_the_object_never_reaches_the_outer_eighth() -> None:
    for size in (24, 32, 48):
        masks = load_image_set("planted", num_images=1000, image_size=size, cue_correlation=0.0).masks
        assert masks is not None
        inside = np.zeros((size, size), dtype=bool)
        inside[size // 8 : -(size // 8), size // 8 : -(size // 8)] = True
        assert not masks[:, ~inside].any()
        assert (masks.reshape(1000, -1).sum(axis=1) > size * size / 100).all()


def render(seed: int = 3, **changes: float) -> tuple[NDArray[np.int64], PlantedScenes]:
    """Scenes without noise, for comparisons."""
    scenes = make_planted_scenes(seed=seed, num_images=100, noise_std=0.0, cue_correlation={**changes})
    return scenes.image_set.images.astype(np.int64), scenes


def test_the_color_cue_does_not_change_the_luma() -> None:
    (one, a), (two, b) = render(color=1.0), render(color=0.0)
    changed = a.cue_values["color"] != b.cue_values["color"]
    assert 50 < changed.sum() < 100
    luma_weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(one - two)[changed].max(axis=(1, 2, 3)).min() > 20
    assert np.abs((one - two) @ luma_weights).max() < 1.5


@pytest.mark.parametrize("cue", ["color", "texture"])
def test_object_cues_stay_in_the_object(cue: str) -> None:
    (one, a), (two, b) = render(**{cue: 1.0}), render(**{cue: 0.0})
    masks = a.image_set.masks
    assert masks is not None
    np.testing.assert_array_equal(masks, b.image_set.masks)
    difference = np.abs(one - two).max(axis=3)
    assert difference[masks].max() > 20
    assert difference[~masks].max() == 0


def test_the_background_cue_stays_out_of_the_object() -> None:
    (one, a), (two, _) = render(background=1.0), render(background=0.0)
    masks = a.image_set.masks
    assert masks is not None
    core = masks.copy()
    for axis, step in itertools.product((1, 2), (-1, 1)):
        core &= np.roll(masks, step, axis=axis)
    difference = np.abs(one - two).max(axis=3)
    assert difference[~masks].max() > 20
    assert (difference[core] == 0).mean() > 0.95


@pytest.mark.parametrize(("shortcut", "region"), [("corner_patch", np.s_[:, :4, :4]), ("frame", np.s_[:, :2, :])])
def test_a_shortcut_lies_in_its_region(shortcut: str, region: tuple[slice, ...]) -> None:
    sets = [make_planted_scenes(seed=3, num_images=100, noise_std=0.0, shortcuts={shortcut: rho}) for rho in (1.0, 0.0)]
    difference = np.abs(sets[0].image_set.images.astype(int) - sets[1].image_set.images.astype(int)).max(axis=3)
    changed = sets[0].cue_values[shortcut] != sets[1].cue_values[shortcut]
    assert difference[region][changed].min() > 15
    difference[region] = 0
    if shortcut == "frame":
        assert difference[:, 2:-2, 2:-2].max() == 0
    else:
        assert difference.max() == 0


def test_the_sinusoid_is_faint_and_everywhere() -> None:
    sets = [
        make_planted_scenes(seed=3, num_images=100, noise_std=0.0, shortcuts={"sinusoid": rho}) for rho in (1.0, 0.0)
    ]
    difference = sets[0].image_set.images.astype(int) - sets[1].image_set.images.astype(int)
    changed = sets[0].cue_values["sinusoid"] != sets[1].cue_values["sinusoid"]
    assert np.abs(difference).max() <= 13
    assert ((difference[changed] != 0).mean(axis=(1, 2, 3)) > 0.5).all()


def test_every_pattern_is_the_same_after_a_flip() -> None:
    """Otherwise the augmentation's flips would change cue values."""
    values = np.arange(10, dtype=np.int64)
    axis = ((2 * np.arange(32) + 1) / 32 - 1).astype(np.float32)
    x, y = (np.broadcast_to(a, (10, 32, 32)).astype(np.float32) for a in (axis[None, None, :], axis[None, :, None]))
    shapes = drawing.draw_shape(values, x, y)
    chiral = [name for name in range(10) if not np.allclose(shapes[name], shapes[name][:, ::-1], atol=1e-5)]
    # Only the crescent changes, and it is drawn on either side.
    assert chiral == [3]
    speckle = np.zeros_like(x)
    for scale, of_scale in ((1.0, [0, 1, 3, 5, 7]), (1.8, [2, 4, 6, 8])):
        # A crest at x = 0: the flipped pattern is the pattern with another phase.
        textures = drawing.draw_texture(values, 3 * x + np.float32(0.25 / scale), 3 * y, speckle)[of_scale]
        np.testing.assert_allclose(textures, textures[:, :, ::-1], atol=4e-3)
    rows = axis[None, :, None]
    background = drawing.draw_background(values, axis[None, None, :], rows, np.random.default_rng(0))
    symmetric = [k for k in range(10) if k != 7]
    np.testing.assert_allclose(background[symmetric], background[symmetric][:, :, ::-1], atol=1e-3)
    assert (
        drawing.draw_sinusoid(values, axis[None, None, :], rows, np.random.default_rng(0)).std(axis=(1, 2)).min() > 0.5
    )


def test_ten_values_of_every_cue_are_distinct() -> None:
    values = np.arange(10, dtype=np.int64)
    axis = ((2 * np.arange(32) + 1) / 32 - 1).astype(np.float32)
    x, y = (np.broadcast_to(a, (10, 32, 32)).astype(np.float32) for a in (axis[None, None, :], axis[None, :, None]))
    blue, red = drawing.cue_chroma(values)
    speckle = np.random.default_rng(0).uniform(-1, 1, x.shape).astype(np.float32)
    drawn = {
        "shape": drawing.draw_shape(values, x, y) < 0,
        "texture": drawing.draw_texture(values, 3 * x, 3 * y, speckle),
        "color": np.concatenate([blue, red], axis=1) / 45,
    }
    for cue, pictures in drawn.items():
        flat = pictures.reshape(10, -1).astype(float)
        for one, other in itertools.combinations(range(10), 2):
            assert np.abs(flat[one] - flat[other]).mean() > 0.03, (cue, one, other)


def macro_accuracy(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    half = len(labels) // 2
    model = LogisticRegression(max_iter=300).fit(features[:half], labels[:half])
    return float((model.predict(features[half:]) == labels[half:]).mean())


def frame_features(rho: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    image_set = make_planted_scenes(seed=1, num_images=1000, cue_correlation=0.0, shortcuts={"frame": rho}).image_set
    return (image_set.images[:, :2].mean(axis=(1, 2)) - 128) / 10, image_set.labels


def test_the_accuracy_from_the_frame_alone_follows_its_correlation() -> None:
    accuracy = {rho: macro_accuracy(*frame_features(rho)) for rho in (0.0, 0.5, 1.0)}
    assert accuracy[0.0] < 0.2
    assert 0.4 < accuracy[0.5] < 0.7
    assert accuracy[1.0] > 0.95


def test_the_default_scenes_are_neither_trivial_nor_impossible() -> None:
    image_set = load_image_set("planted", num_images=1500)
    pixels = image_set.images.reshape(1500, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(1500, -1) / 64 - 2
    assert 0.13 < macro_accuracy(pixels, image_set.labels) < 0.6


def test_ten_thousand_images_take_seconds() -> None:
    start = time.perf_counter()
    assert len(load_image_set("planted", num_images=10_000)) == 10_000
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cue_correlation": {"shap": 0.5}}, "did you mean 'shape'"),
        ({"shortcuts": {"fram": 0.5}}, "did you mean 'frame'"),
        ({"cue_correlation": 1.5}, "cue_correlation"),
        ({"cue_correlation": {"shape": -0.1}}, "cue_correlation: .*greater than or equal to 0, but got -0.1"),
        ({"shortcuts": {"frame": float("nan")}}, "shortcuts"),
        ({"image_size": 8}, "image_size"),
        ({"num_images": 9}, "num_images"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"num_distractors": 1000}, "num_distractors"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_invalid_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserInputError, match=words) as caught:
        load_image_set("planted", **options)
    assert "\n" not in str(caught.value)


def test_larger_objects_reach_the_outer_eighth() -> None:
    ring = np.ones((32, 32), dtype=bool)
    ring[4:-4, 4:-4] = False
    shares = []
    for scale in (1.0, 1.4, 1.7):
        masks = load_image_set("planted", num_images=300, object_scale=scale).masks
        assert masks is not None
        shares.append(float((masks & ring).any(axis=(1, 2)).mean()))
    assert shares[0] == 0.0
    assert 0.4 < shares[1] < 0.7 < shares[2]


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_a_shortcut_of_some_classes_indicates_these_alone(rho: float) -> None:
    scenes = make_planted_scenes(
        seed=3, num_images=2000, image_size=24, shortcuts={"frame": rho}, cue_classes={"frame": ("ring", "bar")}
    )
    labels, values = scenes.image_set.labels, scenes.cue_values["frame"]
    own = np.isin(labels, (drawing.SHAPES.index("ring"), drawing.SHAPES.index("bar")))
    if rho == 1:
        assert (values[own] == labels[own]).all()
        assert not np.isin(values[~own], labels[own]).any()
    else:
        assert np.bincount(values[own], minlength=10).min() > 20
    # Among the other classes it indicates nothing.
    assert (values == labels)[~own].mean() == pytest.approx(0.1, abs=0.04)
    with pytest.raises(UserInputError, match=r"names the class 'rings'"):
        make_planted_scenes(seed=0, num_images=10, cue_classes={"shape": ("rings",)})
    with pytest.raises(UserInputError, match=r"cue_classes names 'frame'"):
        make_planted_scenes(seed=0, num_images=10, cue_classes={"frame": ("ring",)})
    with pytest.raises(UserInputError, match=r"some of the 10 classes"):
        make_planted_scenes(seed=0, num_images=10, cue_classes={"shape": ()})
