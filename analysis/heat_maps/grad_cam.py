"""Grad-CAM, HiResCAM and LayerCAM of a network, as raw energy.

The library scales every map to [0, 1] and resizes it to the input, after which an empty map looks like any other. Here the
scaling is left out, so that empty maps can be counted and energies can be added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.grad_cam import GradCAM
from pytorch_grad_cam.hirescam import HiResCAM
from pytorch_grad_cam.layer_cam import LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from analysis.heat_maps.cam_layers import BATCH_SIZE, CamNetwork, Size, find_map_layers, find_module, to_map
from analysis.statistics.metrics import BoolArray, FloatArray, IntArray
from search_spaces.errors import UserInputError

MINIMUM_SIZE = 4

Cams = NDArray[np.float32]


class CamMethod(StrEnum):
    """How gradients weigh a layer's activations before they are summed over channels.

    Grad-CAM weighs by the mean gradient of the channel (Selvaraju et al. 2017, arXiv:1610.02391), HiResCAM by the gradient of
    each cell (Draelos and Carin 2020, arXiv:2011.08891), LayerCAM by its positive part (Jiang et al. 2021, IEEE Trans. Image
    Process. 30:5875).
    """

    GRAD_CAM = "Grad-CAM"
    HIRES_CAM = "HiResCAM"
    LAYER_CAM = "LayerCAM"


_LIBRARY_CLASSES = {CamMethod.GRAD_CAM: GradCAM, CamMethod.HIRES_CAM: HiResCAM, CamMethod.LAYER_CAM: LayerCAM}


class NoCamLayerError(UserInputError):
    """Raised if no layer's maps are large enough for a heat map."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CamPass:
    """Logits and maps of one forward and backward pass.

    Attributes:
        logits: (N, K).
        maps: (N, h, w) raw energy >= 0 of each method, for the classes that were asked for.
    """

    logits: FloatArray
    maps: dict[str, Cams]


def find_cam_layers(network: CamNetwork) -> list[tuple[str, Size]]:
    """Return the layers whose output has at least `MINIMUM_SIZE` cells in height and width, with its size, the deepest first.

    Sizes are measured by a forward pass of zeros (`analysis.heat_maps.cam_layers`).

    Raises:
        NoCamLayerError: if none is large enough.
    """
    image_size = network.config.whole("image_size")
    zeros = network.prepare(np.zeros((1, image_size, image_size, 3), dtype=np.uint8))
    found = find_map_layers(network.model, lambda: network.compute_logits(zeros))
    large = [(name, size) for name, size in found if min(size) >= MINIMUM_SIZE]
    if not large:
        name, (height, width) = max(found, key=lambda layer: min(layer[1]), default=("no layer", (0, 0)))
        raise NoCamLayerError(
            f"Grad-CAM needs a map of at least {MINIMUM_SIZE}x{MINIMUM_SIZE} cells, but at {image_size} px the largest "
            f"is {height}x{width} ({name}): raise train.image_size"
        )
    return large


def compute_cams(
    network: CamNetwork, inputs: torch.Tensor, layer: str, classes: Sequence[int] | IntArray | None = None
) -> CamPass:
    """Return the logits, and the maps of every method for one class per image.

    Each map is ReLU(sum over channels of weight x activation) at the layer's own resolution, unscaled.

    Args:
        network: its state and hooks are restored.
        inputs: (N, 3, H, W) float32, normalized.
        layer: name of a module whose output is a map or tokens.
        classes: (N,) target classes; by default those that are predicted.

    Raises:
        UserInputError: for an unknown layer.
        ValueError: if inputs and classes do not fit each other.
    """
    wanted = None if classes is None else [ClassifierOutputTarget(int(c)) for c in classes]
    if inputs.ndim != 4 or (wanted is not None and len(inputs) != len(wanted)):
        raise ValueError(f"inputs (N, 3, H, W) need N classes, but got {tuple(inputs.shape)}, {len(wanted or ())}")
    target_layer = find_module(network.model, layer)
    maps: list[dict[CamMethod, Cams]] = []
    logits = []
    with network.evaluating(), torch.enable_grad():
        network.model.requires_grad_(False)
        # The graph starts at the layer, so that nothing before it is differentiated.
        cut = target_layer.register_forward_hook(lambda _module, _inputs, output: output.detach().requires_grad_(True))
        # The library cannot read logits in bfloat16.
        widen = network.model.register_forward_hook(lambda _module, _inputs, output: output.float())
        cam = _RawCams(model=network.model, target_layers=[target_layer], reshape_transform=to_map)
        # What follows the layer may change its output in place, which neither a leaf of the graph nor the kept maps allow.
        spare = target_layer.register_forward_hook(lambda _module, _inputs, output: output.clone())
        # Not `with cam:`, which swallows an IndexError and leaves the result undefined.
        try:
            for start in range(0, len(inputs), BATCH_SIZE):
                part = slice(start, start + BATCH_SIZE)
                maps.append(cam(inputs[part].detach().to(cam.device), None if wanted is None else wanted[part]))
                logits.append(cam.outputs.detach().double().cpu().numpy())
        finally:
            cam.activations_and_grads.release()
            for handle in (spare, widen, cut):
                handle.remove()
    if not maps:
        return CamPass(logits=np.zeros((0, 0)), maps=dict.fromkeys(CamMethod, np.zeros((0, 0, 0), dtype=np.float32)))
    joined: dict[str, Cams] = {method: np.concatenate([m[method] for m in maps]) for method in CamMethod}
    return CamPass(logits=np.concatenate(logits), maps=joined)


def is_degenerate(cam: Cams) -> bool:
    """Return whether a raw map (h, w) is empty: no positive energy, not finite, or the same in every cell."""
    return not np.isfinite(cam).all() or float(cam.max()) <= 0.0 or float(cam.max()) == float(cam.min())


def find_degenerate(cams: Cams) -> BoolArray:
    """Return (N,) whether each of (N, h, w) raw maps is empty."""
    return np.array([is_degenerate(cam) for cam in cams], dtype=bool)


def enlarge(cams: Cams, size: tuple[int, ...]) -> Cams:
    """Return (N, h, w) maps resized bilinearly to (N, *size), as they are drawn."""
    large = torch.nn.functional.interpolate(torch.from_numpy(cams)[:, None], size=size, mode="bilinear")
    return np.asarray(large[:, 0].numpy())


class _RawCams(GradCAM):  # type: ignore[misc]
    """The maps of each method from one pass, without the library's scaling, resizing and averaging over layers."""

    def compute_cam_per_layer(
        self, input_tensor: torch.Tensor, targets: list[Any], eigen_smooth: bool
    ) -> dict[CamMethod, Cams]:
        found = self.activations_and_grads
        activations, gradients = (x[0].float().numpy() for x in (found.activations, found.gradients))
        layer = self.target_layers[0]
        maps = {}
        for method, library_class in _LIBRARY_CLASSES.items():
            # The library's formula of the method; none of them reads anything else of its object.
            cam = library_class.get_cam_image(self, input_tensor, layer, targets, activations, gradients, eigen_smooth)
            maps[method] = np.ascontiguousarray(np.maximum(cam, 0), dtype=np.float32)
        return maps

    def aggregate_multi_layers(self, cam_per_target_layer: dict[CamMethod, Cams]) -> dict[CamMethod, Cams]:
        return cam_per_target_layer
