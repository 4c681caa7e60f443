"""Grad-CAM of a torchvision ResNet, as raw energy: the only file that imports pytorch_grad_cam.

The library scales every map to [0, 1] and resizes it to the input, after which an empty map looks like any other. Here the
scaling is left out, so that empty maps can be counted and energies can be added.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.grad_cam import GradCAM
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget
from scipy.special import softmax
from torch import nn

from analysis.findings.forensic_findings import CamView
from analysis.heat_maps.panels import ArmCam
from search_spaces.errors import UserInputError, nearest_name
from trainables.seeds import derive_seed, numpy_generator

CAM_LAYERS = ("layer4", "layer3", "layer2", "layer1")
# Pixels that are kept (most relevant first) or removed (least relevant first), in percent.
ROAD_PERCENTILES = (25, 50, 75)
# Images per forward pass.
BATCH_SIZE = 64
MINIMUM_SIZE = 4


class NoCamLayerError(UserInputError):
    """Raised if no layer's maps are large enough for a heat map."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CamLayer:
    """A layer of CAM_LAYERS, with the (height, width) of its output in cells."""

    name: str
    size: tuple[int, int]


def choose_cam_layer(model: nn.Module, image_size: int) -> CamLayer:
    """Return the deepest of layer4 .. layer1 whose output has at least `MINIMUM_SIZE` cells in height and width.

    Args:
        model: a torchvision ResNet.
        image_size: side of the square network input in pixels; sizes are measured by a forward pass of zeros.

    Raises:
        UserInputError: if the model lacks such layers.
        NoCamLayerError: if none is large enough.
    """
    layers = {name: _find_layer(model, name) for name in CAM_LAYERS}
    sizes: dict[str, tuple[int, int]] = {}

    def record(name: str) -> Any:
        return lambda _module, _inputs, output: sizes.__setitem__(name, tuple(output.shape[-2:]))

    handles = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    parameter = next(model.parameters())
    try:
        with _state_as_found(model), torch.no_grad():
            model.eval()
            model(torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
    for name in CAM_LAYERS:
        if min(sizes[name]) >= MINIMUM_SIZE:
            return CamLayer(name=name, size=sizes[name])
    largest = sizes[CAM_LAYERS[-1]]
    raise NoCamLayerError(
        f"Grad-CAM needs a map of at least {MINIMUM_SIZE}x{MINIMUM_SIZE} cells, but at {image_size} px the largest "
        f"is {largest[0]}x{largest[1]} ({CAM_LAYERS[-1]}): raise train.image_size"
    )


def compute_cams(
    model: nn.Module, inputs: torch.Tensor, targets: Sequence[int] | NDArray[np.int64] | torch.Tensor, layer: str
) -> NDArray[np.float32]:
    """Return the raw Grad-CAM energy of each image for its target class (Selvaraju et al. 2017, equations 1 and 2).

    Each map is ReLU(sum over channels of mean gradient x activation) at the layer's own resolution, unscaled.

    Args:
        model: runs in evaluation mode; its modes, requires_grad, gradients and hooks are restored.
        inputs: (N, 3, H, W) float32, normalized.
        targets: (N,) class indices.
        layer: a name in CAM_LAYERS.

    Returns:
        (N, h, w) float32, >= 0.

    Raises:
        UserInputError: for an unknown layer.
        ValueError: if inputs and targets do not fit each other.
    """
    classes = [int(target) for target in targets]
    if inputs.ndim != 4 or len(inputs) != len(classes):
        raise ValueError(f"inputs (N, 3, H, W) need N targets, but got {tuple(inputs.shape)}, {len(classes)}")
    return compute_logits_and_cams(model, inputs, layer, classes)[1]


def compute_logits_and_cams(
    model: nn.Module, inputs: torch.Tensor, layer: str, classes: Sequence[int] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return (N, K) logits and (N, h, w) raw maps, from one pass; without `classes`, the maps of the predicted classes.

    Arguments, maps and errors are otherwise those of `compute_cams`.
    """
    target_layer = _find_layer(model, layer)
    deterministic = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    maps, logits = [], []
    with _state_as_found(model), torch.enable_grad(), deterministic:
        model.requires_grad_(False)
        # The graph starts at the layer, so that nothing before it is differentiated.
        cut = target_layer.register_forward_hook(lambda _module, _inputs, output: output.detach().requires_grad_(True))
        cam = _RawGradCam(model=model, target_layers=[target_layer])
        # Not `with cam:`, which swallows an IndexError and leaves the result undefined.
        try:
            for start in range(0, len(inputs), BATCH_SIZE):
                part = slice(start, start + BATCH_SIZE)
                wanted = None if classes is None else [ClassifierOutputTarget(c) for c in classes[part]]
                maps.append(cam(inputs[part].detach().to(cam.device), wanted))
                logits.append(cam.outputs.detach().double().cpu().numpy())
        finally:
            cam.activations_and_grads.release()
            cut.remove()
    if not maps:
        return np.zeros((0, 0)), np.zeros((0, 0, 0), dtype=np.float32)
    return np.concatenate(logits), np.ascontiguousarray(np.concatenate(maps), dtype=np.float32)


def is_degenerate(cam: NDArray[np.float32]) -> bool:
    """Return whether a raw map (h, w) is empty: no positive energy, not finite, or the same in every cell."""
    return not np.isfinite(cam).all() or float(cam.max()) <= 0.0 or float(cam.max()) == float(cam.min())


def compute_arm_cams(
    model: nn.Module,
    inputs: torch.Tensor,
    labels: NDArray[np.int64],
    *,
    arm: str,
    class_names: Sequence[str],
    layer: CamLayer,
) -> tuple[ArmCam, ...]:
    """Return the maps for the predicted and the true class of each image, with their probabilities.

    Args:
        model: of the arm.
        inputs: (N, 3, H, W) float32, normalized.
        labels: (N,) true classes, indices of `class_names`.
        arm: its name.
        class_names: K names.
        layer: whose maps are computed.

    Returns:
        N values in the order of the inputs; `degenerate` is set if either map is.
    """
    if not len(labels):
        return ()
    logits, predicted_cams = compute_logits_and_cams(model, inputs, layer.name)
    probabilities = softmax(logits, axis=1)
    predicted = probabilities.argmax(axis=1)
    true_cams = compute_cams(model, inputs, labels, layer.name)
    return tuple(
        ArmCam(
            view=CamView(
                arm=arm,
                layer=layer.name,
                map_size=layer.size,
                predicted_class=class_names[int(predicted[i])],
                predicted_probability=float(probabilities[i, predicted[i]]),
                true_probability=float(probabilities[i, labels[i]]),
                degenerate=is_degenerate(predicted_cams[i]) or is_degenerate(true_cams[i]),
            ),
            predicted_cam=predicted_cams[i],
            true_cam=true_cams[i],
        )
        for i in range(len(labels))
    )


def compute_model_logits(model: nn.Module, inputs: torch.Tensor) -> NDArray[np.float64]:
    """Return (N, K) logits for (N, 3, H, W) inputs, in evaluation mode; the model's state is restored."""
    device = next(model.parameters()).device
    with _state_as_found(model), torch.no_grad():
        model.eval()
        batches = torch.split(inputs, BATCH_SIZE)
        return np.asarray(torch.cat([model(batch.to(device)).double().cpu() for batch in batches]).numpy())


def compute_road(
    model: nn.Module, inputs: torch.Tensor, cams: NDArray[np.float32], targets: NDArray[np.int64], *, seed: int
) -> NDArray[np.float64]:
    """Return each map's ROAD score (Rong et al. 2022); higher where the map marks pixels that the model needs.

    The score is half the difference between the probability after removing the least relevant pixels and that after removing
    the most relevant ones, averaged over `ROAD_PERCENTILES`. Only the order of a map's pixels matters; ties are ordered at
    random.

    Args:
        model: runs in evaluation mode; its state is restored.
        inputs: (N, 3, H, W) float32, normalized.
        cams: (N, h, w) raw maps, enlarged bilinearly to (H, W).
        targets: (N,) classes whose probability is measured.
        seed: of the order of ties and of the imputed pixels' noise; the global random state is restored.

    Returns:
        (N,) float64.
    """
    ranks = _rank_pixels(cams, tuple(inputs.shape[-2:]), numpy_generator(seed, "road order"))
    road = ROADCombined(percentiles=list(ROAD_PERCENTILES))
    wanted = [ClassifierOutputSoftmaxTarget(int(c)) for c in targets]
    device = next(model.parameters()).device
    # The library converts tensors to arrays in a way that NumPy 2 deprecates.
    silence = warnings.catch_warnings(action="ignore", category=DeprecationWarning)
    with _state_as_found(model), torch.random.fork_rng(devices=[]), silence:
        torch.manual_seed(derive_seed(seed, "road noise"))
        model.eval()
        return np.asarray(road(inputs.to(device), ranks, wanted, model), dtype=np.float64)


def _rank_pixels(
    cams: NDArray[np.float32], size: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return (N, H, W) ranks in (0, 1) of the enlarged maps' pixels, without ties."""
    large = torch.nn.functional.interpolate(torch.from_numpy(cams)[:, None], size=size, mode="bilinear")[:, 0]
    flat = large.flatten(1).numpy()
    order = np.lexsort((generator.random(flat.shape), flat), axis=1)
    ranks = np.empty_like(flat)
    steps = (np.arange(flat.shape[1], dtype=np.float32) + 0.5) / flat.shape[1]
    np.put_along_axis(ranks, order, np.broadcast_to(steps, flat.shape), axis=1)
    return ranks.reshape(len(cams), *size)


def _find_layer(model: nn.Module, name: str) -> nn.Module:
    if name not in CAM_LAYERS:
        raise UserInputError(f"there is no Grad-CAM layer {name!r}{nearest_name(name, CAM_LAYERS)}")
    layer = getattr(model, name, None)
    if not isinstance(layer, nn.Module):
        raise UserInputError(
            f"Grad-CAM reads {', '.join(CAM_LAYERS)} of a torchvision ResNet, but {type(model).__name__} has no {name}"
        )
    return layer


@contextmanager
def _state_as_found(model: nn.Module) -> Iterator[None]:
    """Restore every module's training mode and every parameter's requires_grad and gradient."""
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, gradient in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


class _RawGradCam(GradCAM):  # type: ignore[misc]
    """Grad-CAM without the library's scaling, resizing and averaging over layers."""

    def compute_cam_per_layer(
        self, input_tensor: torch.Tensor, targets: list[Any], eigen_smooth: bool
    ) -> list[NDArray[np.float32]]:
        found = self.activations_and_grads
        activations, gradients = (x[0].float().numpy() for x in (found.activations, found.gradients))
        layer = self.target_layers[0]
        cam = self.get_cam_image(input_tensor, layer, targets, activations, gradients, eigen_smooth)
        return [np.maximum(cam, 0)]

    def aggregate_multi_layers(self, cam_per_target_layer: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return cam_per_target_layer[0]
