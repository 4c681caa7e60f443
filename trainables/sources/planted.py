"""Planted scenes: small RGB images whose every cue, and its correlation with the class, is known.

Ten classes. In each scene an object of some shape, texture and colour lies on some background; each of these cues takes one
of ten values. With the cue's correlation rho the value is the class's own, otherwise it is one of the other nine, so that
rho = 1 plants a cue and rho = 0.1 makes it carry no information. Shortcuts (a corner patch, a coloured frame, a faint
sinusoid over the whole image) can be planted in the same way; they are absent unless asked for. The object's mask is known
exactly, and the audits and the root-cause tests are judged by it.
"""

import colorsys
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError, nearest_name
from trainables.images import ImageSet
from trainables.seeds import numpy_generator

Floats = NDArray[np.float64]

CLASS_NAMES = ("disc", "ring", "square", "triangle", "cross", "star", "crescent", "bar", "twins", "hexagon")
CLASS_GROUPS = {
    "round": ("disc", "ring", "crescent", "twins"),
    "angular": ("square", "triangle", "cross", "star", "bar", "hexagon"),
}
CUES = ("shape", "texture", "colour", "background")
SHORTCUTS = ("corner_patch", "frame", "sinusoid")
DEFAULT_CORRELATION: Mapping[str, float] = {"shape": 0.97, "texture": 0.5, "colour": 0.4, "background": 0.3}
NUM_CLASSES = len(CLASS_NAMES)
NOISE_LEVEL = 0.05
SINUSOID_AMPLITUDE = 0.04
_CHUNK = 2000


def load_planted(
    path: str | None = None,
    *,
    seed: int = 0,
    num_images: int = 4000,
    native_size: int = 32,
    cue_correlation: Mapping[str, float] | float | None = None,
    shortcut_correlation: Mapping[str, float] | None = None,
) -> ImageSet:
    """Return planted scenes with object masks; a pure function of its arguments.

    Args:
        path: must be None; nothing is read.
        seed: of everything drawn.
        num_images: N, split evenly over the ten classes.
        native_size: side of the images in pixels, 16 to 128.
        cue_correlation: rho of "shape", "texture", "colour", "background", or one number for all four.
        shortcut_correlation: rho of "corner_patch", "frame", "sinusoid"; one that is not named is absent.

    Raises:
        UserInputError: for an unknown cue, a rho outside [0, 1], a size or number out of range.
    """
    if path is not None:
        raise UserInputError(f"planted scenes are made, not read: remove data.path ({path!r})")
    if num_images < NUM_CLASSES:
        raise UserInputError(f"data.num_images must be at least {NUM_CLASSES}, but got {num_images}")
    if not 16 <= native_size <= 128:
        raise UserInputError(f"16 <= native_size <= 128 must hold for planted scenes, but got {native_size}")
    if isinstance(cue_correlation, int | float):
        cue_correlation = dict.fromkeys(CUES, float(cue_correlation))
    cues = {**DEFAULT_CORRELATION, **_check_correlations(cue_correlation or {}, CUES)}
    shortcuts = _check_correlations(shortcut_correlation or {}, SHORTCUTS)
    labels = numpy_generator(seed, "planted", "labels").permutation(np.arange(num_images) % NUM_CLASSES)
    values = {
        name: draw_cue_values(labels, rho, numpy_generator(seed, "planted", name))
        for name, rho in {**cues, **shortcuts}.items()
    }
    images = np.empty((num_images, native_size, native_size, 3), dtype=np.uint8)
    masks = np.empty((num_images, native_size, native_size), dtype=np.bool_)
    for start in range(0, num_images, _CHUNK):
        chunk = slice(start, min(start + _CHUNK, num_images))
        generator = numpy_generator(seed, "planted", "scene", start)
        images[chunk], masks[chunk] = _render({n: v[chunk] for n, v in values.items()}, native_size, generator)
    return ImageSet(
        images=images,
        labels=labels.astype(np.int64),
        class_names=CLASS_NAMES,
        source="planted",
        masks=masks,
        class_groups=CLASS_GROUPS,
    )


def draw_cue_values(labels: NDArray[np.int64], rho: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return (N,) cue values: the label with probability `rho`, else one of the other nine, each as likely."""
    other = (labels + generator.integers(1, NUM_CLASSES, len(labels))) % NUM_CLASSES
    return np.where(generator.random(len(labels)) < rho, labels, other).astype(np.int64)


def _check_correlations(given: Mapping[str, float], known: tuple[str, ...]) -> dict[str, float]:
    for name, rho in given.items():
        if name not in known:
            raise UserInputError(f"planted scenes have no cue {name!r}{nearest_name(name, known)}")
        if isinstance(rho, bool) or not isinstance(rho, int | float) or not 0 <= rho <= 1:
            raise UserInputError(f"the correlation of {name!r} must lie in [0, 1], but got {rho!r}")
    return {name: float(rho) for name, rho in given.items()}


def _render(
    values: Mapping[str, NDArray[np.int64]], size: int, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return (n, S, S, 3) uint8 scenes and (n, S, S) bool masks for the cue values of n scenes."""
    n = len(values["shape"])
    u, v, radius = _object_coordinates(n, size, generator)
    masks = _draw_shapes(values["shape"], u, v)
    light = generator.uniform(0.8, 1.2, (n, 1, 1))
    texture = _draw_textures(values["texture"], u * radius, v * radius)
    objects = _colours(values["colour"], 0.55, generator)[:, None, None, :] * (0.55 + 0.45 * texture)[..., None]
    scene = np.where(masks[..., None], objects, _draw_backgrounds(values["background"], size, generator))
    scene = scene * light[..., None] + generator.normal(0.0, NOISE_LEVEL, scene.shape)
    _add_shortcuts(scene, values, size)
    return (np.clip(scene, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8), masks


def _object_coordinates(n: int, size: int, generator: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Return each pixel's coordinates in its object's frame, (n, S, S) in units of the object's radius, and the radii."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    centre = generator.uniform(-0.3, 0.3, (2, n, 1, 1))
    radius = generator.uniform(0.45, 0.65, (n, 1, 1))
    angle = generator.uniform(-0.35, 0.35, (n, 1, 1))
    dx, dy = x - centre[0], y - centre[1]
    u = (np.cos(angle) * dx + np.sin(angle) * dy) / radius
    v = (-np.sin(angle) * dx + np.cos(angle) * dy) / radius
    return u, v, radius


def _draw_shapes(shapes: NDArray[np.int64], u: Floats, v: Floats) -> NDArray[np.bool_]:
    masks = np.zeros(u.shape, dtype=np.bool_)
    for index in range(NUM_CLASSES):
        own = shapes == index
        if own.any():
            masks[own] = _inside_shape(index, u[own], v[own])
    return masks


def _inside_shape(index: int, u: Floats, v: Floats) -> NDArray[np.bool_]:
    """Return which points lie inside the shape of class `index`, drawn to about unit radius."""
    r, phi = np.hypot(u, v), np.arctan2(v, u)
    inside: dict[str, NDArray[np.bool_]] = {
        "disc": r < 0.85,
        "ring": (r < 0.95) & (r > 0.5),
        "square": np.maximum(abs(u), abs(v)) < 0.75,
        "triangle": (v < 0.65) & (v > 1.9 * abs(u) - 0.95),
        "cross": (np.minimum(abs(u), abs(v)) < 0.28) & (np.maximum(abs(u), abs(v)) < 0.95),
        "star": r < 0.62 + 0.36 * np.cos(5 * phi),
        "crescent": (r < 0.95) & (np.hypot(u - 0.45, v) > 0.75),
        "bar": (abs(u) < 0.3) & (abs(v) < 1.0),
        "twins": np.minimum(np.hypot(u - 0.55, v), np.hypot(u + 0.55, v)) < 0.42,
        "hexagon": np.maximum(abs(u) * 0.866 + abs(v) * 0.5, abs(v)) < 0.8,
    }
    return inside[CLASS_NAMES[index]]


def _draw_textures(textures: NDArray[np.int64], x: Floats, y: Floats) -> Floats:
    """Return (n, S, S) in [-1, 1]: gratings of five orientations at two frequencies."""
    orientation = (textures % 5)[:, None, None] * np.pi / 5
    frequency = np.where(textures < 5, 9.0, 17.0)[:, None, None]
    grating: Floats = np.sign(np.sin(frequency * (np.cos(orientation) * x + np.sin(orientation) * y)))
    return grating


def _colours(values: NDArray[np.int64], saturation: float, generator: np.random.Generator) -> Floats:
    """Return (n, 3) RGB in [0, 1]: ten hues, each with some spread."""
    hues = (values / NUM_CLASSES + generator.normal(0.0, 0.015, len(values))) % 1.0
    return np.array([colorsys.hsv_to_rgb(hue, saturation, 0.85) for hue in hues])


def _draw_backgrounds(values: NDArray[np.int64], size: int, generator: np.random.Generator) -> Floats:
    """Return (n, S, S, 3): a pale hue with a gradient whose direction belongs to the value, and clutter that does not."""
    n = len(values)
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    direction = (values * 2 * np.pi / NUM_CLASSES)[:, None, None]
    gradient = 0.15 * (np.cos(direction) * x + np.sin(direction) * y)
    clutter = generator.normal(0.0, 1.0, (n, 4, 4))
    coarse = np.kron(clutter, np.ones((1, -(-size // 4), -(-size // 4))))[:, :size, :size]
    shade = 0.5 + gradient + 0.06 * coarse
    background: Floats = _colours(values, 0.25, generator)[:, None, None, :] * shade[..., None]
    return background


def _add_shortcuts(scene: Floats, values: Mapping[str, NDArray[np.int64]], size: int) -> None:
    """Paint the planted shortcuts over the scenes, in place."""
    if "corner_patch" in values:
        side = max(2, size // 8)
        for cell in range(4):
            bit = ((values["corner_patch"] + 1) >> cell & 1).astype(np.float64)[:, None, None, None]
            top, left = (cell // 2) * side // 2, (cell % 2) * side // 2
            scene[:, top : top + side // 2, left : left + side // 2] = bit
    if "frame" in values:
        hues = np.array([colorsys.hsv_to_rgb(value / NUM_CLASSES, 1.0, 0.9) for value in values["frame"]])
        width = max(1, size // 16)
        for edge in (np.s_[:, :width], np.s_[:, -width:], np.s_[:, :, :width], np.s_[:, :, -width:]):
            scene[edge] = hues[:, None, None, :]
    if "sinusoid" in values:
        y, x = np.mgrid[0:size, 0:size]
        cycles = 2 + values["sinusoid"][:, None, None]
        wave = SINUSOID_AMPLITUDE * np.sin(2 * np.pi * cycles * (x + y) / (2 * size))
        scene += wave[..., None]
