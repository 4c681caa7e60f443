"""Photographs of objects under several lights: near-duplicates whose objects and light are known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 48
NUM_LIGHTS = 6
# Side of the random field that an object's surface is drawn from, and how bright the stripes are by which the classes differ.
FIELD_SIDE, STRIPES = 9, 0.16
CLASSES = ("rows", "columns")


@dataclass(frozen=True, slots=True)
class LitObjects:
    """N photographs.

    Attributes:
        images: (N, 48, 48, 3) uint8.
        labels: (N,) class of the object, a position in `CLASSES`.
        objects: (N,) number of the object.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    objects: NDArray[np.int64]


def photograph_objects(num_objects: int, seed: int, num_lights: int = NUM_LIGHTS) -> LitObjects:
    """Return photographs of random surfaces with faint rows or columns, each under lights of another strength, side and color."""
    generator = np.random.default_rng(seed)
    objects = np.repeat(np.arange(num_objects), num_lights)
    surfaces = [_draw_surface(number % 2, generator) for number in range(num_objects)]
    images = np.stack([light_surface(surfaces[number], generator) for number in objects])
    return LitObjects(images=images, labels=objects % 2, objects=objects)


def write_lit_objects(root: Path, num_objects: int, seed: int = 0, num_lights: int = NUM_LIGHTS) -> Path:
    """Write <class>/exp<light>_num_<object>.png below `root`, and return it."""
    found = photograph_objects(num_objects, seed, num_lights)
    for place, (image, label, number) in enumerate(zip(found.images, found.labels, found.objects, strict=True)):
        file = root / CLASSES[label] / f"exp{place % num_lights}_num_{1000 + number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return root


def _draw_surface(label: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return (48, 48, 3) reflectances in [0.1, 0.95]."""
    field = generator.uniform(0, 255, (FIELD_SIDE, FIELD_SIDE)).astype(np.uint8)
    surface = np.asarray(Image.fromarray(field).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
    stripes = np.sin(2 * np.pi * np.arange(SIDE) / 8 + generator.uniform(0, 2 * np.pi))
    surface = 0.5 + 0.5 * (surface - 0.5) + STRIPES * (stripes[:, None] if label == 0 else stripes[None, :]) / 2
    return np.clip(surface[..., None] * generator.uniform(0.8, 1.0, 3), 0.1, 0.95)


def light_surface(surface: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return a photograph, (H, W, 3): light from a side, of a strength and a color, with a camera's curve and noise."""
    across, down = np.meshgrid(*(np.linspace(-1, 1, side) for side in surface.shape[1::-1]))
    angle = generator.uniform(0, 2 * np.pi)
    light = 1 + generator.uniform(0, 0.5) * (np.cos(angle) * across + np.sin(angle) * down)
    seen = surface * light[..., None] * generator.uniform(0.5, 1.1) * generator.uniform(0.9, 1.1, 3)
    seen = np.clip(seen, 0, 1) ** generator.uniform(0.7, 1.3)
    return np.clip(np.rint(255 * seen + generator.normal(0, 3, seen.shape)), 0, 255).astype(np.uint8)
