"""Drawing of planted scenes: each cue is a function of its value, vectorized over images.

Scenes are composed in luma and chroma (Rec. 601), so that the color cue does not change the luma and the other cues do not
change the chroma: conversion to grayscale removes exactly the color cue. All patterns are invariant under a horizontal flip,
so that flips preserve the cues' values. Coordinates range from -1 to 1 across the image, +y downwards.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

SHAPES = ("disc", "ring", "ellipse", "crescent", "dumbbell", "triangle", "square", "cross", "bar", "hourglass")
NUM_VALUES = len(SHAPES)

MID_LUMA = 128.0
CHROMA = 40.0
# Offset and radius of the object, which at a scale of 1 never reaches the outer eighth of the image.
MAX_OFFSET = 0.13
RADIUS = (0.42, 0.6)

# Sines come from a rounded table, since libraries differ in the last bit and data fingerprints must not.
_TABLE_SIZE = 4096
_SINE = (np.rint(np.sin(2 * np.pi * np.arange(_TABLE_SIZE) / _TABLE_SIZE) * 2**14) / 2**14).astype(np.float32)

Field = NDArray[np.float32]
Values = NDArray[np.int64]
Generator = np.random.Generator


def draw_scenes(
    cue_values: Mapping[str, Values],
    *,
    image_size: int,
    noise_std: float,
    num_distractors: int,
    generator: Generator,
    object_scale: float = 1.0,
    max_offset: float = MAX_OFFSET,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return (N, S, S, 3) uint8 scenes and (N, S, S) bool masks of the pixels that the object touches.

    Args:
        cue_values: (N,) int64 in [0, 10) for shape, texture, color, background and each shortcut.
        image_size: S in pixels.
        noise_std: Standard deviation of the pixel noise, in gray levels.
        num_distractors: Distractors per scene.
        generator: Draws everything else that varies.
        object_scale: Factor of the object's radius and offset.
        max_offset: Largest distance of the object from the center along each axis, before scaling.
    """
    n = len(cue_values["shape"])
    axis = ((2 * np.arange(image_size) + 1) / image_size - 1).astype(np.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    luma = draw_background(cue_values["background"], x, y, generator)
    tint = np.rint(generator.random((2, n, 1, 1), dtype=np.float32) * 16 - 8)
    blue = np.broadcast_to(tint[0], luma.shape).copy()
    red = np.broadcast_to(tint[1], luma.shape).copy()
    picture = [luma, blue, red]
    for _ in range(num_distractors):
        _add_distractor(picture, x, y, generator)
    mask = _add_object(picture, cue_values, x, y, generator, np.float32(object_scale), max_offset)
    if "frame" in cue_values:
        _paint(picture, _frame(image_size), cue_values["frame"])
    if "corner_patch" in cue_values:
        _paint(picture, _corner(image_size), cue_values["corner_patch"])
    if "sinusoid" in cue_values:
        picture[0] += 6 * draw_sinusoid(cue_values["sinusoid"], x, y, generator)
    return _to_rgb(picture, noise_std, generator), mask


def draw_shape(values: Values, x: Field, y: Field) -> Field:
    """Return approximate signed distances to each image's shape in units of its radius, negative inside.

    Args:
        values: (N,) int64, indices into `SHAPES`.
        x: (N, S, S) object coordinates; the shape lies within the unit circle.
        y: As `x`.
    """
    distance = np.empty_like(x)
    for value in range(NUM_VALUES):
        chosen = values == value
        distance[chosen] = _shape_distance(SHAPES[value], x[chosen], y[chosen])
    return distance


def _shape_distance(shape: str, x: Field, y: Field) -> Field:
    ax, ay = np.abs(x), np.abs(y)
    radius = np.sqrt(x * x + y * y)
    match shape:
        case "disc":
            distance = radius - 0.85
        case "ring":
            distance = np.abs(radius - 0.7) - 0.22
        case "ellipse":
            distance = (np.sqrt(x * x + 4 * y * y) - 0.98) * 0.6
        case "crescent":
            distance = np.maximum(radius - 0.95, 0.75 - np.sqrt((x - 0.5) ** 2 + y * y))
        case "dumbbell":
            distance = np.minimum(np.sqrt((ax - 0.55) ** 2 + y * y) - 0.42, np.maximum(ay - 0.14, ax - 0.5))
        case "triangle":
            distance = np.maximum(y - 0.5, 0.8660254 * ax - 0.5 * y - 0.5)
        case "square":
            distance = np.maximum(ax, ay) - 0.68
        case "cross":
            distance = np.minimum(np.maximum(ax - 0.93, ay - 0.27), np.maximum(ay - 0.93, ax - 0.27))
        case "bar":
            distance = np.maximum(ax - 0.93, ay - 0.3)
        case _:
            assert shape == "hourglass"
            distance = np.maximum(ay - 0.68, ax - 0.85 * ay - 0.1)
    return np.asarray(distance, dtype=np.float32)


def draw_texture(values: Values, u: Field, v: Field, speckle: Field) -> Field:
    """Return (N, S, S) textures in [-1, 1].

    Value 0 is plain; 1 to 4 are stripes (horizontal coarse and fine, vertical coarse and fine); 5 and 6 checks (coarse, fine);
    7 and 8 dots (coarse, fine); 9 is speckle.

    Args:
        values: (N,) int64.
        u: (N, S, S) horizontal texture coordinate, in periods of the coarse patterns.
        v: (N, S, S) vertical texture coordinate, in the same unit.
        speckle: (N, S, S) in [-1, 1], independent per pixel.
    """
    texture = np.zeros_like(u)
    for value in range(1, NUM_VALUES):
        chosen = values == value
        scale = np.float32(1.0 if value in (1, 3, 5, 7) else 1.8)
        across, down = sine(scale * u[chosen]), sine(scale * v[chosen])
        match value:
            case 1 | 2:
                texture[chosen] = down
            case 3 | 4:
                texture[chosen] = across
            case 5 | 6:
                texture[chosen] = across * down
            case 7 | 8:
                texture[chosen] = np.maximum(across + down - 0.5, -0.5) * np.float32(0.9)
            case _:
                texture[chosen] = speckle[chosen]
    return texture


def draw_background(values: Values, x: Field, y: Field, generator: Generator) -> Field:
    """Return (N, S, S) luma in gray levels: smooth patterns that pass a low-pass filter.

    Value 0 is dark; 1 bright; 2 lighter towards the top; 3 towards the bottom; 4 towards the center; 5 away from it; 6 has
    wide horizontal bands; 7 wide vertical bands; 8 is lighter at the sides; 9 lighter at top and bottom.

    Args:
        values: (N,) int64.
        x: (1, 1, S) coordinates.
        y: (1, S, 1) coordinates.
        generator: Draws phase, contrast and level.
    """
    n = len(values)
    phase = generator.random((n, 1, 1), dtype=np.float32)
    contrast = 28 + 12 * generator.random((n, 1, 1), dtype=np.float32)
    level = MID_LUMA - 8 + 16 * generator.random((n, 1, 1), dtype=np.float32)
    r2, saddle = np.minimum(x * x + y * y, np.float32(1.5)), x * x - y * y
    whole = np.zeros_like(x + y)
    patterns = (whole - 1, whole + 1, whole - y, whole + y, 0.7 - r2, r2 - 0.7, None, None, saddle, -saddle)
    pattern = np.empty((n, y.shape[1], x.shape[2]), dtype=np.float32)
    for value, fixed in enumerate(patterns):
        chosen = values == value
        if fixed is None:
            pattern[chosen] = sine((y if value == 6 else x) + phase[chosen]) + 0 * whole
        else:
            pattern[chosen] = fixed
    return np.asarray(level + contrast * pattern, dtype=np.float32)


def draw_sinusoid(values: Values, x: Field, y: Field, generator: Generator) -> Field:
    """Return (N, S, S) waves in [-1, 1] with 3, 5, 7, 9 or 11 periods, down the image (values 0-4) or across (5-9)."""
    n = len(values)
    periods = (3 + 2 * (values % 5)).astype(np.float32)[:, None, None]
    across = (values >= 5)[:, None, None]
    return sine(np.where(across, x, y) * periods / 2 + generator.random((n, 1, 1), dtype=np.float32))


def sine(periods: NDArray[np.floating]) -> Field:
    """Return sin(2 pi t) for t in periods, from the table."""
    index = np.floor(periods * _TABLE_SIZE).astype(np.int64) & (_TABLE_SIZE - 1)
    return np.asarray(_SINE[index], dtype=np.float32)


def cue_chroma(values: Values) -> tuple[Field, Field]:
    """Return the (N, 1, 1) blue and red chroma of color values: ten equally strong hues on a circle."""
    turns = values.astype(np.float32)[:, None, None] / NUM_VALUES
    return CHROMA * sine(turns + np.float32(0.25)), CHROMA * sine(turns)


def _uniform(n: int, low: float, high: float, generator: Generator) -> Field:
    return np.asarray(low + (high - low) * generator.random((n, 1, 1), dtype=np.float32), dtype=np.float32)


def _add_object(
    picture: list[Field],
    cue_values: Mapping[str, Values],
    x: Field,
    y: Field,
    generator: Generator,
    scale: np.float32,
    max_offset: float,
) -> NDArray[np.bool_]:
    """Draw each scene's object into `picture` and return its mask."""
    n, size = len(cue_values["shape"]), y.shape[1]
    radius = scale * _uniform(n, *RADIUS, generator)
    dx, dy = (place - scale * _uniform(n, -max_offset, max_offset, generator) for place in (x, y))
    # Up to 15 degrees, drawn as the sine.
    turn = _uniform(n, -0.26, 0.26, generator)
    cosine = np.sqrt(1 - turn * turn)
    side = np.where(generator.random((n, 1, 1)) < 0.5, np.float32(-1), np.float32(1))
    distance = draw_shape(
        cue_values["shape"], side * (cosine * dx + turn * dy) / radius, (cosine * dy - turn * dx) / radius
    )
    pixel = 2 / size / radius
    coverage = np.clip(0.5 - distance / pixel, 0, 1)
    # Textures have a period of 5.8 of 32 px and a random phase, and do not rotate with the object.
    shift = generator.random((2, n, 1, 1), dtype=np.float32)
    zero = np.zeros_like(distance)
    speckle = generator.integers(0, 256, distance.shape, dtype=np.uint8).astype(np.float32) / 127.5 - 1
    texture = draw_texture(cue_values["texture"], zero + 2.75 * x + shift[0], zero + 2.75 * y + shift[1], speckle)
    rim = np.clip(1 + (distance / pixel + 0.5) / 1.5, 0, 1)
    luma = _uniform(n, MID_LUMA - 20, MID_LUMA + 20, generator) + 30 * texture - 45 * rim
    blue, red = cue_chroma(cue_values["color"])
    # Paler where the rim is dark, so that no channel is clipped, which would change the luma.
    strength = _uniform(n, 0.7, 1.1, generator) * (1 - 0.6 * rim)
    _blend(picture, coverage, (luma, strength * blue, strength * red))
    return np.asarray(coverage > 0)


def _add_distractor(picture: list[Field], x: Field, y: Field, generator: Generator) -> None:
    """Draw one small disc or square per scene, of random color and position."""
    n, size = len(picture[0]), y.shape[1]
    radius = _uniform(n, 0.08, 0.17, generator)
    dx, dy = x - _uniform(n, -1, 1, generator), y - _uniform(n, -1, 1, generator)
    is_disc = generator.random((n, 1, 1)) < 0.5
    distance = np.where(is_disc, np.sqrt(dx * dx + dy * dy), np.maximum(np.abs(dx), np.abs(dy))) - radius
    blue, red = cue_chroma(generator.integers(0, NUM_VALUES, n))
    luma = _uniform(n, MID_LUMA - 60, MID_LUMA + 60, generator)
    _blend(picture, np.clip(0.5 - distance * (size / 2), 0, 1), (luma, 0.6 * blue, 0.6 * red))


def _blend(picture: list[Field], coverage: Field, color: tuple[Field, Field, Field]) -> None:
    for channel, value in zip(picture, color, strict=True):
        channel += coverage * (value - channel)


def _paint(picture: list[Field], region: NDArray[np.bool_], values: Values) -> None:
    """Fill a fixed region of each scene with the color of the scene's value."""
    blue, red = cue_chroma(values)
    for channel, value in zip(picture, (np.full_like(blue, MID_LUMA), blue, red), strict=True):
        channel[:, region] = value[:, 0]


def _frame(size: int) -> NDArray[np.bool_]:
    region = np.ones((size, size), dtype=bool)
    width = size // 16
    region[width:-width, width:-width] = False
    return region


def _corner(size: int) -> NDArray[np.bool_]:
    region = np.zeros((size, size), dtype=bool)
    region[: size // 8, : size // 8] = True
    return region


def _to_rgb(picture: list[Field], noise_std: float, generator: Generator) -> NDArray[np.uint8]:
    """Return (N, S, S, 3) uint8; the noise is the difference of two uniform bytes, scaled to `noise_std`."""
    luma, blue, red = picture
    rgb = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1)
    if noise_std > 0:
        bytes_ = generator.integers(0, 256, (2, *rgb.shape), dtype=np.uint8)
        # The variance of one uniform byte is (256^2 - 1) / 12.
        scale = np.float32(noise_std / np.sqrt((256**2 - 1) / 6))
        rgb += scale * (bytes_[0].astype(np.float32) - bytes_[1].astype(np.float32))
    return np.asarray(np.clip(np.rint(rgb), 0, 255), dtype=np.uint8)
