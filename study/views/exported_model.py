"""An exported model: its description, its files in the layout of timm's `local-dir:` and Hugging Face, and ONNX."""

import importlib.util
import json
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import nn

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from search_spaces.extensions import locate, refusing
from study.inputs.provenance import STORED_SIZE
from study.open_study import OpenStudy, read_passport
from trainables.data.image_array import PAD_COLOR
from trainables.models import catalog
from trainables.models.backbones import build_model
from trainables.models.heads import find_head
from trainables.seeds import torch_generator
from trainables.training.trainable import TRAINABLE_ENTRY_POINTS, is_own_loop
from trainables.training.trial_run import unpack_state

# How images become squares, by data.aspect.
RESIZE_STEPS = {
    "crop": "the shorter side to image_size, then the center of image_size x image_size",
    "pad": f"the longer side to image_size, then padded with {PAD_COLOR} on both sides alike to image_size x image_size",
    "squash": "to image_size x image_size, without crop",
}
STATE = "state.bin"
WEIGHTS, CONFIG, CARD, STUDY = "model.safetensors", "config.json", "README.md", "study.json"


def write_model(folder: Path, config: TrialConfig, weights: bytes, class_names: Sequence[str], aspect: str) -> None:
    """Write weights and `config.json` into a new folder; of a custom training loop, the state that its `restore` takes.

    Args:
        folder: to create.
        config: of the trial.
        weights: content of the safetensors file.
        class_names: K names.
        aspect: `data.aspect` of the study: "crop", "pad" or "squash".
    """
    folder.mkdir(parents=True)
    if is_own_loop(config):
        (folder / STATE).write_bytes(unpack_state(load(weights)))
        return
    (folder / WEIGHTS).write_bytes(weights)
    text = json.dumps(describe_architecture(config, class_names, aspect), indent=1, sort_keys=True, allow_nan=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def describe_architecture(config: TrialConfig, class_names: Sequence[str], aspect: str) -> dict[str, Any]:
    """Return the content of `config.json`: architecture, its arguments, classes and preprocessing, in timm's words."""
    backbone, side = catalog.read_backbone(config), config.whole("image_size")
    head, layer = find_head(build_model(config, len(class_names), weights="none"))
    return {
        # What timm calls it: a name of timm has no prefix there, and its ResNets are torchvision's.
        "architecture": config.word("backbone").removeprefix(catalog.TIMM),
        "model_args": backbone.read_arguments(config),
        "num_classes": len(class_names),
        "num_features": layer.in_features,
        "label_names": list(class_names),
        "pretrained_cfg": {
            "classifier": head,
            "input_size": [3, side, side],
            "interpolation": config.word("interpolation"),
            "crop_pct": 1.0,
            # "border" pads with the mean, rounded to whole gray levels.
            "crop_mode": {"crop": "center", "pad": "border", "squash": "squash"}[aspect],
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "num_classes": len(class_names),
        },
    }


def describe_model(study: OpenStudy, config: TrialConfig) -> dict[str, Any]:
    """Return what `study.json` says of every model of a study: how to load it, its classes, and its preprocessing."""
    data = read_passport(study.store)["data"]
    class_names = list(data["class_names"])
    return {
        "study": study.name,
        "architecture": config.word("trainable" if is_own_loop(config) else "backbone"),
        "arguments": {} if is_own_loop(config) else catalog.read_backbone(config).read_arguments(config),
        "loading": explain_loading(config, len(class_names)),
        "class_names": class_names,
        "preprocessing": _describe_preprocessing(config, study.spec.data.aspect, data[STORED_SIZE]),
        "configuration": config.to_dict(),
    }


def _describe_preprocessing(config: TrialConfig, aspect: str, stored: Sequence[int]) -> dict[str, Any]:
    """Return the steps from an image file to the model's input.

    Args:
        config: of the trial.
        aspect: `data.aspect` of the study.
        stored: height and width at which the study stores its images.
    """
    height, width = stored
    # How files become the images that the study stores, of which training and every score are.
    storing = {
        "crop": f"turned as EXIF says, the shorter side to {height}, then the center of {width} x {height}",
        "pad": f"turned as EXIF says, the longer side to {height}, then padded with {PAD_COLOR} on both sides alike to "
        f"{width} x {height}",
        "squash": f"not turned as EXIF says, to {width} x {height}, without crop",
    }
    first = {"stored_size": [height, width], "stored": f"{storing[aspect]} (bicubic, antialiased)"}
    if is_own_loop(config):
        shape = "(N, H, W, 3), as the study stores its images"
        return {"channels": "RGB", "dtype": "uint8", "shape": shape, **first}
    backbone, resize = catalog.read_backbone(config), RESIZE_STEPS[aspect]
    if aspect == "pad" and (own := tuple(round(255 * value) for value in backbone.mean)) != PAD_COLOR:
        resize = resize.replace(
            str(PAD_COLOR), f"{PAD_COLOR} (but by timm, as config.json cannot say that, with {own})"
        )
    return {
        **first,
        "channels": "RGB",
        "image_size": config.whole("image_size"),
        "resize": resize,
        "interpolation": config.word("interpolation"),
        "antialias": True,
        "clamp": "to [0, 255] after resizing",
        "scale": "divide by 255",
        "mean": list(backbone.mean),
        "std": list(backbone.std),
    }


def explain_loading(config: TrialConfig, num_classes: int) -> str:
    """Return the Python lines that load an exported model from its folder."""
    if is_own_loop(config):
        module, _, loop = locate(config.word("trainable"), TRAINABLE_ENTRY_POINTS).partition(":")
        lines = ["from pathlib import Path", "", f"from {module} import {loop}", "", f"model = {loop}()"]
        return "\n".join([*lines, f'model.restore(Path("FOLDER/{STATE}").read_bytes())'])
    name, arguments = config.word("backbone"), catalog.read_backbone(config).read_arguments(config)
    if name in catalog.RESNETS or name.startswith(catalog.TIMM):
        return 'import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True).eval()'
    bare = name.removeprefix(catalog.TORCHVISION)
    if bare in catalog.VISION_TRANSFORMERS:
        lines, builder = ["import torchvision"], "torchvision.models.VisionTransformer"
        arguments = {**catalog.VISION_TRANSFORMERS[bare], **arguments}
    elif name.startswith(catalog.TORCHVISION):
        lines, builder = ["import torchvision"], f"torchvision.models.{bare}"
        arguments = {**(catalog.NO_AUXILIARIES if bare in catalog.WITH_AUXILIARIES else {}), **arguments}
    else:
        module, builder = catalog.locate_builder(name)
        lines = [f"from {module} import {builder.partition('.')[0]}"]
    given = ", ".join(f"{name}={value!r}" for name, value in {**arguments, "num_classes": num_classes}.items())
    lines += ["from safetensors.torch import load_file", "", f"model = {builder}({given})"]
    lines += [f'model.load_state_dict(load_file("FOLDER/{WEIGHTS}"))', "model.eval()"]
    return "\n".join(lines)


ONNX = "model.onnx"
INPUT, OUTPUT = "input", "logits"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Largest difference from torch's logits, as a part of the largest of them or of 1. Sums in another order differ by 1e-6.
TOLERANCE = 1e-4
# The model is traced with two images; others check that the number of images is free.
TRACED_IMAGES, CHECKED_IMAGES = 2, (1, 5)
# A protobuf file has at most 2 GB; larger models get a second file with their weights.
MAX_BYTES = 1.5e9


def check_packages() -> None:
    """Raise UserInputError with what to install if a package of the extra is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserInputError(
            f'--onnx needs {", ".join(missing)}, not installed here; run `pip install "abstudy[onnx]"`, or leave out --onnx'
        )


def write_onnx(folder: Path, config: TrialConfig, weights: bytes, num_classes: int) -> dict[str, Any]:
    """Write `model.onnx`, which maps normalized (N, 3, S, S) float32 images to (N, K) logits, for any number of images N.

    Args:
        folder: of the arm, where the file is written.
        config: of the trial.
        weights: content of the safetensors file.
        num_classes: K.

    Returns:
        What `study.json` records: names, shapes, opset, versions, and the largest difference from torch's logits in float32 on
        random images.

    Raises:
        UserInputError: if the model cannot be exported, or its logits differ by more than `TOLERANCE`.
    """
    model = build_model(config, num_classes, weights="none").eval()
    model.load_state_dict(load(weights))
    side, name = config.whole("image_size"), config.word("backbone")
    generator = torch_generator(0, "onnx")
    images = [torch.randn(n, 3, side, side, generator=generator) for n in (TRACED_IMAGES, *CHECKED_IMAGES)]
    with refusing(lambda reason: f"{name} cannot be exported to ONNX: {reason}; leave out --onnx"):
        opset = _export(model, images[0], folder / ONNX)
        difference = _compare(model, folder / ONNX, images)
    if not difference["max_difference"] <= difference["allowed"]:
        raise UserInputError(
            f"the ONNX model of {name} differs from torch by {difference['max_difference']:.2g} in its logits, more than "
            f"{difference['allowed']:.2g}; leave out --onnx"
        )
    return {
        "file": ONNX,
        "input": {"name": INPUT, "shape": ["N", 3, side, side], "dtype": "float32"},
        "output": {"name": OUTPUT, "shape": ["N", num_classes], "dtype": "float32"},
        "opset": opset,
        "versions": {package: metadata.version(package) for package in (*PACKAGES, "torch")},
        "parity": difference,
    }


def _export(model: nn.Module, images: torch.Tensor, path: Path) -> int:
    """Write the file; return the version of its operators."""
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own exporter
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=num_bytes > MAX_BYTES)
    return int(program.model.opset_imports[""])


def _compare(model: nn.Module, path: Path, images: list[torch.Tensor]) -> dict[str, Any]:
    """Return the largest difference of the logits, over all batches."""
    ort = importlib.import_module("onnxruntime")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences, sizes = [], []
    for batch in images:
        with torch.no_grad():
            expected: NDArray[np.float32] = model(batch).numpy()
        found = session.run([OUTPUT], {INPUT: batch.numpy()})[0]
        differences.append(np.abs(found - expected).max() if found.shape == expected.shape else np.inf)
        sizes.append(np.abs(expected).max())
    return {
        "max_difference": float(np.max(differences)),
        "max_logit": float(np.max(sizes)),
        "allowed": TOLERANCE * max(1.0, float(np.max(sizes))),
        "num_images": sum(len(batch) for batch in images),
    }
