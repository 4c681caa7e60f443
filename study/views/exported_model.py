"""The files of an exported model in the layout that timm's `local-dir:` and Hugging Face read, and how to load it elsewhere."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load

from search_spaces.config import TrialConfig
from search_spaces.extensions import locate
from trainables.models import catalog
from trainables.models.backbones import build_model
from trainables.models.heads import find_head
from trainables.training.trainable import TRAINABLE_ENTRY_POINTS, is_own_loop
from trainables.training.trainable_run import unpack_state

STATE = "state.bin"
WEIGHTS, CONFIG, CARD, STUDY = "model.safetensors", "config.json", "README.md", "study.json"


def write_model(folder: Path, config: TrialConfig, weights: bytes, class_names: Sequence[str], aspect: str) -> None:
    """Write weights and `config.json` into a new folder; of a custom training loop, the state that its `restore` takes.

    Args:
        folder: to create.
        config: of the trial.
        weights: content of the safetensors file.
        class_names: K names.
        aspect: `data.aspect` of the study: "crop" or "squash".
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
            "crop_mode": "center" if aspect == "crop" else "squash",
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "num_classes": len(class_names),
        },
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
