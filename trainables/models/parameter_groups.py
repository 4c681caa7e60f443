"""The parameters of a model in groups: backbone and head, layers by depth, and those that take no weight decay."""

import re
from typing import Any

from torch import nn

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from trainables.models.heads import find_head

BACKBONE, HEAD = "backbone", "head"
# Numbers of blocks in names: "features.3", "encoder_layer_0", "layer1", "denseblock2".
_NUMBERED = re.compile(r"^\d+$|(layer|block|stage)s?_?\d+$")
# Embeddings, tokens and scales, by the last part of their name. Decay would pull them towards 0, which is no simpler model.
_SPARED = re.compile(
    r"(cls|class|dist|reg|mask|register)_tokens?|pos(ition)?_embed(ding)?s?|absolute_pos_embed|gamma(_?\d)?|layer_?scale(_?\d)?"
    r"|relative_position_bias_table|rel_pos(_[hw])?|logit_scale|attention_biases|bias"
)
# A container with more layers, such as VGG's "features", is more than a stem.
MOST_IN_STEM = 2
# The first one is the base of BatchNorm and InstanceNorm.
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)


def group_parameters(model: nn.Module, config: TrialConfig) -> list[dict[str, Any]]:
    """Return the parameter groups of the optimizer: the trainable parameters, backbone first, then by depth, decayed ones first.

    The learning rate is `max_lr` in the head and `max_lr * backbone_lr_ratio` in the backbone, where with `layer_decay` the
    rate of the layer at depth d is multiplied by layer_decay^(D - d) (D is the depth of the head; Clark et al. 2020, ELECTRA,
    arXiv:2003.10555; Bao et al. 2022, BEiT, arXiv:2106.08254). Without weight decay are biases, norms, scales, position
    embeddings and class tokens: by the model's own `no_weight_decay()`, by type and by name. The entry "part" is "backbone" or
    "head".

    Args:
        model: Of `trainables.models.backbones.build_model`.
        config: Reads `max_lr`, `backbone_lr_ratio`, `layer_decay` and `weight_decay`.
    """
    max_lr, layer_decay = config.number("max_lr"), config.number("layer_decay")
    backbone_lr, weight_decay = max_lr * config.number("backbone_lr_ratio"), config.number("weight_decay")
    depths, spared = find_depths(model), find_spared(model)
    deepest = max(depths.values())
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        depth = deepest if depths[name] == deepest else depths[name] if layer_decay < 1 else 0
        if parameter.requires_grad:
            members.setdefault((depth, name in spared), []).append(parameter)
    return [
        {
            "params": members[depth, is_spared],
            "lr": max_lr if depth == deepest else backbone_lr * layer_decay ** (deepest - depth),
            "weight_decay": 0.0 if is_spared else weight_decay,
            "part": HEAD if depth == deepest else BACKBONE,
        }
        for depth, is_spared in sorted(members)
    ]


def find_spared(model: nn.Module) -> set[str]:
    """Return the names of the parameters that take no weight decay."""
    own = getattr(model, "no_weight_decay", None)
    spared = set(own()) if callable(own) else set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_norm = isinstance(module, _NORMS) or type(module).__name__.lower().endswith(("norm", "norm2d"))
            if is_norm or parameter.ndim <= 1 or _SPARED.fullmatch(name):
                spared.add(f"{prefix}.{name}" if prefix else name)
    return spared


def find_depths(model: nn.Module) -> dict[str, int]:
    """Return the depth of each parameter's layer by name: 0 for the stem, 1 to D - 1 for the blocks, D for the head.

    timm's models say it (`group_matcher`). Else a block is what has a number of its own in the names of parameters
    ("layer1.0", "features.3", "encoder_layer_11"). Parameters after the first block without a number, such as a last norm, and
    blocks of nothing but vectors, such as the norm behind a convolution, belong to the block before. The stem is what comes
    before the first block, or where that has a number too its container ("features.0", "stem").

    Args:
        model: Of `build_model`.
    """
    head = find_head(model)[0]
    matcher = getattr(model, "group_matcher", None)
    if callable(matcher):
        from timm.models import group_parameters as group_of_timm

        layers = group_of_timm(model, matcher(coarse=False), reverse=True)
        deepest = max((depth for name, depth in layers.items() if not name.startswith(f"{head}.")), default=0) + 1
        return {name: deepest if name.startswith(f"{head}.") else layers[name] for name, _ in model.named_parameters()}
    sizes = {name: p.ndim for name, p in model.named_parameters() if not name.startswith(f"{head}.")}
    stem = _find_stem(list(sizes))
    members: dict[str, list[int]] = {}
    for name, size in sizes.items():
        if (block := _find_block(name)) is not None and not name.startswith(stem):
            members.setdefault(block, []).append(size)
    blocks: dict[str, int] = {}
    for block, own in members.items():
        blocks[block] = max(blocks.values(), default=0) + (max(own) > 1)
    depths: dict[str, int] = {}
    seen = 0
    for name in sizes:
        depth = blocks.get(_find_block(name) or "")
        depths[name] = 0 if name.startswith(stem) else seen if depth is None else depth
        seen = max(seen, depths[name])
    # Tokens and embeddings that are parameters of the model itself belong to the stem wherever they are registered.
    depths |= {name: 0 for name, _ in model.named_parameters(recurse=False) if name in depths}
    deepest = max(depths.values(), default=0) + 1
    return depths | {f"{head}.{name}": deepest for name, _ in find_head(model)[1].named_parameters()}


def freeze_layers(model: nn.Module, config: TrialConfig) -> None:
    """Freeze the backbone, or its first layers; frozen parameters require no gradient.

    Args:
        model: Of `build_model`.
        config: Reads `tuning` and `freeze_depth`, the number of frozen layers: 1 is the stem, 2 the first block too.

    Raises:
        UserInputError: If the model has fewer layers, or no blocks of which the last one could be trained.
    """
    depths, tuning, name = find_depths(model), config.word("tuning"), config.word("backbone")
    deepest = max(depths.values())
    if tuning == "last_block" and deepest < 2:
        raise UserInputError(
            f'model.tuning = "last_block" trains the last block of the backbone, but no blocks were found in {name}; '
            'use "full" or "probe"'
        )
    number = {"full": 0, "last_block": deepest - 1, "probe": deepest}[tuning]
    number = max(number, config.whole("freeze_depth"))
    if number > deepest:
        raise UserInputError(
            f"model.freeze_depth = {number}, but {name} has {deepest} layers without its head; "
            'give fewer, or model.tuning = "probe"'
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and depths[name] >= number)


def _find_stem(names: list[str]) -> tuple[str, ...]:
    """Return the beginnings of the names of the stem's parameters where the first parameter has a number; else ()."""
    first = _find_block(names[0]) if names else None
    if first is None:
        return ()
    parts = first.split(".")
    outer = ".".join(parts[:-1])
    alike = {block for name in names if (block := _find_block(name)) is not None and block.startswith(f"{outer}.")}
    if parts[0] == "stem":
        outer = "stem"
    elif not _NUMBERED.search(parts[-2] if len(parts) > 1 else "") and (not outer or len(alike) > MOST_IN_STEM):
        outer = first
    return (f"{outer}.",)


def _find_block(name: str) -> str | None:
    """Return the beginning of a parameter's name up to the number of its block; None if there is no number."""
    parts = name.split(".")[:-1]
    numbered = [place for place, part in enumerate(parts) if _NUMBERED.search(part)]
    if not numbered:
        return None
    first = numbered[0]
    return ".".join(parts[: first + 2 if first + 1 in numbered else first + 1])
