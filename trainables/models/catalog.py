"""Backbones by name: torchvision's, timm's, entry points of installed packages, and custom functions."""

import functools
import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, first_line, nearest_name
from search_spaces.extensions import BACKBONE_ENTRY_POINTS, list_entry_points, load_object, locate, refusing
from trainables.data.augmentation.pipeline import IMAGENET_MEAN, IMAGENET_STD

ENTRY_POINTS = BACKBONE_ENTRY_POINTS
TORCHVISION, TIMM = "torchvision:", "timm:"
# The default space's. Their names have no prefix, since studies from before there were others use them.
RESNETS = ("resnet18", "resnet50")
# Outputs of a model before its head is replaced, so that its initial backbone does not depend on the number of classes.
NUM_OUTPUTS = 1000

# Arguments of torchvision's transformers (Dosovitskiy et al. 2021, table 1), whose functions let nobody change them.
VISION_TRANSFORMERS = {
    "vit_b_16": {"patch_size": 16, "num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072},
    "vit_b_32": {"patch_size": 32, "num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072},
    "vit_l_16": {"patch_size": 16, "num_layers": 24, "num_heads": 16, "hidden_dim": 1024, "mlp_dim": 4096},
    "vit_l_32": {"patch_size": 32, "num_layers": 24, "num_heads": 16, "hidden_dim": 1024, "mlp_dim": 4096},
    "vit_h_14": {"patch_size": 14, "num_layers": 32, "num_heads": 16, "hidden_dim": 1280, "mlp_dim": 5120},
}

# torchvision trains them with auxiliary outputs, and their weights expect inputs that lie in [-1, 1].
WITH_AUXILIARIES = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
NO_AUXILIARIES = {"aux_logits": False, "init_weights": True}
# Names in the published files of DenseNets, from when module names could have dots: norm.1 is now norm1.
_DENSE_LAYER = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))")

Build = Callable[..., nn.Module]
State = Mapping[str, Tensor]
Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """An architecture: how it is built, initialized and fed.

    A custom function returns a model, or a `Backbone` is named instead, to say more than the model does.

    Attributes:
        name: As in a spec; that under which a custom `Backbone` was found replaces the name that it was given.
        build: Called with `num_classes` and the arguments of `[model.arguments]`; returns a float32 model on the CPU that maps
            (N, 3, S, S) inputs to (N, num_classes) logits. It may draw from torch's default generator, which is seeded.
        head: Dotted name of its classification layer; "" for the last linear layer with `num_classes` outputs.
        size_argument: Argument of `build` that gets the side S of the inputs where `[model.arguments]` does not; "" for none.
        mean, std: Of the normalization of inputs in [0, 1], per channel.
        build_from: Called as `build` and with a state dict of pretrained weights, which it loads; None if the names of the
            weights are those of the model.
        adapt: Returns the state dict of a published file with the names of the model; None where they are the same.
        fetch: Returns the file of the published weights; None if there are none.
        is_fixed_init: Whether the state dict holds everything that initialization sets, so that it may be skipped.
    """

    name: str
    build: Build
    head: str = ""
    size_argument: str = ""
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    build_from: Build | None = None
    adapt: Callable[[State], State] | None = None
    fetch: Callable[[], Path] | None = field(default=None)
    is_fixed_init: bool = False

    @property
    def is_of_library(self) -> bool:
        """Whether torchvision or timm builds it."""
        return self.name in RESNETS or self.name.startswith((TORCHVISION, TIMM))

    @property
    def file_stem(self) -> str:
        """Name of its weights in a folder, without suffix: the name without the prefix of the library."""
        return self.name.rpartition(":")[2]

    def read_arguments(self, config: TrialConfig) -> dict[str, Any]:
        """Return the arguments of `build` from `[model.arguments]`: those for every backbone, and those under its own name.

        Raises:
            UserInputError: If they hold num_classes, which follows from the images.
        """
        given = json.loads(config.word("model_arguments"))
        arguments = {name: value for name, value in given.items() if not isinstance(value, dict)}
        arguments |= given.get(self.name, {})
        if "num_classes" in arguments:
            raise UserInputError("model.arguments has num_classes, which follows from the images; remove it")
        if self.size_argument:
            arguments.setdefault(self.size_argument, config.whole("image_size"))
        return arguments

    def construct(self, arguments: Mapping[str, Any], num_outputs: int) -> nn.Module:
        """Return the model with `num_outputs` outputs; raise UserInputError for arguments that it does not take."""
        shown = ", ".join(f"{name} = {value!r}" for name, value in arguments.items()) or "no arguments"
        hint = f'; arguments for one of several backbones stand in [model.arguments."{self.name}"]' if arguments else ""
        with refusing(lambda reason: f"{self.name} cannot be built with {shown}: {reason}{hint}"):
            model = self.build(num_classes=num_outputs, **arguments)
        if not isinstance(model, nn.Module):
            raise UserInputError(f"{self.name} must return a torch.nn.Module, but returned {type(model).__name__}")
        return model

    def construct_from(
        self, arguments: Mapping[str, Any], num_outputs: int, state: Mapping[str, Tensor], path: Path
    ) -> nn.Module:
        """Return the model with the weights of a file by `build_from`; raise UserInputError if they are not of this model."""
        assert self.build_from is not None
        with refusing(lambda reason: f"{str(path)!r} must hold the weights of {self.name}, but: {reason}"):
            return self.build_from(num_classes=num_outputs, state=dict(state), **arguments)


def read_backbone(config: TrialConfig) -> Backbone:
    """Return the backbone of a configuration; raise UserInputError if there is none of its name."""
    return find_backbone(config.word("backbone"))


@functools.lru_cache(maxsize=256)
def find_backbone(name: str) -> Backbone:
    """Return the backbone of a name.

    Args:
        name: "resnet18" or "resnet50" (torchvision's), "torchvision:NAME", "timm:NAME" with the extra `abstudy[timm]`, the name
            of an entry point of the group `abstudy.backbones`, or "package.module:function" in the working folder.

    Raises:
        UserInputError: With the nearest names and how to list them.
    """
    if name in RESNETS:
        return _find_torchvision(name, name)
    if name.startswith(TORCHVISION):
        return _find_torchvision(name.removeprefix(TORCHVISION), name)
    if name.startswith(TIMM):
        return _find_timm(name.removeprefix(TIMM), name)
    own = list_entry_points(ENTRY_POINTS)
    if name in own or ":" in name:
        return _find_own(name)
    known = [*RESNETS, *own]
    near = nearest_name(name, known) or nearest_name(name, [TORCHVISION + n for n in list_torchvision()])
    raise UserInputError(
        f"there is no backbone {name!r}{near}: give {', '.join(known)}, torchvision:NAME, timm:NAME or "
        "package.module:function; `study models` lists the names"
    )


def list_torchvision() -> list[str]:
    """Return the names of torchvision's classifiers."""
    return list(torchvision.models.list_models(module=torchvision.models))


def list_timm() -> list[str]:
    """Return the names of timm's models; raise UserInputError if timm is not installed."""
    return list(_import_timm("timm:NAME").list_models())


def _find_torchvision(bare: str, name: str) -> Backbone:
    if bare not in list_torchvision():
        raise UserInputError(
            f"torchvision has no classifier {bare!r}{nearest_name(bare, list_torchvision())}; "
            "`study models torchvision` lists them"
        )
    if bare in VISION_TRANSFORMERS:
        return _make_vision_transformer(bare, name)
    builder = torchvision.models.get_model_builder(bare)
    # Without auxiliary outputs; both warn unless their initialization is chosen.
    extra = NO_AUXILIARIES if bare in WITH_AUXILIARIES else {}
    mean, std = _find_normalization(bare)

    def build(*, num_classes: int, **arguments: Any) -> nn.Module:
        model: nn.Module = builder(weights=None, num_classes=num_classes, **extra, **arguments)
        return model

    return Backbone(
        name=name,
        build=build,
        head="fc" if name in RESNETS else "",
        mean=mean,
        std=std,
        adapt=functools.partial(_adapt_torchvision, bare),
        fetch=lambda: download(find_torchvision_url(bare), name),
        is_fixed_init=name in RESNETS,
    )


def _adapt_torchvision(bare: str, state: State) -> State:
    """Return the weights of a file with the names that torchvision gives them when it loads it."""
    dropped = WITH_AUXILIARIES.get(bare, ())
    return {_DENSE_LAYER.sub(r"\1\2", key): value for key, value in state.items() if not key.startswith(dropped)}


def _find_normalization(bare: str) -> tuple[Channels, Channels]:
    """Return the mean and the standard deviation of the inputs that the published weights were trained with."""
    if bare in WITH_AUXILIARIES:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    given = _choose_weights(bare).transforms.keywords
    return tuple(given.get("mean", IMAGENET_MEAN)), tuple(given.get("std", IMAGENET_STD))


def _make_vision_transformer(bare: str, name: str) -> Backbone:
    build = functools.partial(torchvision.models.VisionTransformer, **VISION_TRANSFORMERS[bare])

    def build_from(*, num_classes: int, state: dict[str, Tensor], **arguments: Any) -> nn.Module:
        """Interpolate the position embeddings to the size of the inputs; the head is not loaded."""
        model: nn.Module = build(num_classes=num_classes, **arguments)
        resized = torchvision.models.vision_transformer.interpolate_embeddings(
            arguments["image_size"], cast(int, model.patch_size), state
        )
        head = {key: value for key, value in model.state_dict().items() if key.startswith("heads.")}
        model.load_state_dict({key: value for key, value in resized.items() if not key.startswith("heads.")} | head)
        return model

    return Backbone(
        name=name,
        build=build,
        size_argument="image_size",
        build_from=build_from,
        fetch=lambda: download(find_torchvision_url(bare), name),
    )


def find_torchvision_url(bare: str) -> str:
    """Return the URL of the ImageNet weights of one of torchvision's classifiers.

    Those of the first version (V1) where there are some: later ones differ in the recipe, so that an A/B study of backbones would
    compare the recipes too.
    """
    return str(_choose_weights(bare).url)


def _choose_weights(bare: str) -> Any:
    members = torchvision.models.get_model_weights(bare)
    return members.IMAGENET1K_V1 if "IMAGENET1K_V1" in members.__members__ else members.DEFAULT


def download(url: str, name: str) -> Path:
    """Return the file of a URL in torch's cache; raise UserInputError with what to fetch and where to put it."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    hash_prefix = path.stem.rpartition("-")[2]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix, progress=False)
    except (OSError, RuntimeError) as error:
        reason = first_line(error)[:120]
        raise UserInputError(
            f"the ImageNet weights of {name} are not in {str(path.parent)!r} and cannot be downloaded ({reason});\n"
            f"fetch {url} and put {path.name} into that folder, or set weights to a local file"
        ) from None
    return path


def _find_timm(bare: str, name: str) -> Backbone:
    timm = _import_timm(name)
    if not timm.is_model(bare) or (timm.get_pretrained_cfg(bare) is None and "." in bare):
        near = nearest_name(bare, timm.list_models()) or nearest_name(bare, timm.list_pretrained())
        raise UserInputError(f"timm has no model {bare!r}{near}; `study models timm` lists them")
    settings = timm.get_pretrained_cfg(bare)
    if settings is None or not isinstance(settings.classifier, str):
        raise UserInputError(
            f"the head of {name} was not found: timm names no single classification layer; wrap it in a function of your own "
            "and give model.backbone as package.module:function"
        )

    build = functools.partial(timm.create_model, bare)

    def build_from(*, num_classes: int, state: dict[str, Tensor], **arguments: Any) -> nn.Module:
        """Let timm load the weights, which adapts names and position embeddings; the head is as wide as in the file.

        timm would otherwise leave out the head, and with it the check that nothing else is missing. Self-supervised models have
        no head in their files.
        """
        weight = state.get(f"{settings.classifier}.weight")

        def load(outputs: int) -> nn.Module:
            source = {"state_dict": state, "num_classes": outputs, "label_offset": 0}
            model: nn.Module = build(num_classes=outputs, pretrained=True, pretrained_cfg_overlay=source, **arguments)
            return model

        try:
            return load(num_classes if weight is None else len(weight))
        except RuntimeError as error:
            # The file may have it under the name that its authors gave it, which timm knows.
            if weight is not None or not _lacks_only(error, f"{settings.classifier}."):
                raise
        model = load(0)
        model.reset_classifier(num_classes)  # type: ignore[operator]
        return model

    return Backbone(
        name=name,
        build=build,
        head=settings.classifier,
        size_argument="img_size" if settings.fixed_input_size else "",
        mean=tuple(settings.mean),
        std=tuple(settings.std),
        build_from=build_from,
        fetch=functools.partial(_fetch_timm, name, settings.hf_hub_id),
    )


def _lacks_only(error: RuntimeError, prefix: str) -> bool:
    """Return whether a state dict lacks parameters that begin with `prefix`, and nothing else is wrong with it."""
    missing = re.search(r"Missing key\(s\) in state_dict: (.*)", str(error))
    lacking = [] if missing is None else re.findall(r'"([^"]+)"', missing[1])
    is_all = not re.search(r"Unexpected key|size mismatch", str(error))
    return bool(lacking) and is_all and all(name.startswith(prefix) for name in lacking)


def _fetch_timm(name: str, hub_id: str | None) -> Path:
    """Return the file of the published weights in the cache of Hugging Face, downloaded if necessary."""
    from huggingface_hub import hf_hub_download  # comes with timm

    if not hub_id:
        raise UserInputError(f"there are no published weights of {name}; set model.weights to a file, a folder or none")
    try:
        return Path(hf_hub_download(hub_id, "model.safetensors"))
    except Exception as error:  # errors of the network have many classes
        reason = first_line(error)[:120]
        url = f"https://huggingface.co/{hub_id}/resolve/main/model.safetensors"
        stem = name.rpartition(":")[2]
        raise UserInputError(
            f"the published weights of {name} are not in the cache of Hugging Face and cannot be downloaded ({reason});\n"
            f"fetch {url}, save it as {stem}.safetensors in a folder, and set model.weights to that folder"
        ) from None


def _import_timm(name: str) -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise UserInputError(
            f'{name} needs timm, which is not installed; run `pip install "abstudy[timm]"` (on every node)'
        ) from None


def locate_builder(name: str) -> tuple[str, str]:
    """Return the module of a custom backbone, and the expression that builds it there: "net" or "net.build"."""
    module, _, builder = locate(name, ENTRY_POINTS).partition(":")
    is_described = isinstance(load_object(name, ENTRY_POINTS, "the backbone"), Backbone)
    return module, f"{builder}.build" if is_described else builder


def _find_own(name: str) -> Backbone:
    found = load_object(name, ENTRY_POINTS, "the backbone")
    if isinstance(found, Backbone):
        return replace(found, name=name)
    if not callable(found):
        raise UserInputError(f"the backbone {name!r} must be a function or a Backbone, but is {type(found).__name__}")
    parameters = inspect.signature(found).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if "num_classes" not in parameters and not takes_any:
        raise UserInputError(f"the backbone {name!r} must take the keyword argument num_classes")
    return Backbone(name=name, build=found, size_argument="image_size" if "image_size" in parameters else "")
