"""Default values of a spec, by version: a study goes on under the defaults that it was launched with.

A study's spec.toml records `defaults_version`; one that records none was launched before versions were recorded, under version 1.
To change a default, change it in `study.spec.sections`, raise `CURRENT_VERSION`, and give the new version a table of its own:
``2: {**_VERSION_1, "train.batch_size": 64}``. Values in the tables of earlier versions never change; a new key gets in them the
value that stands for the behavior before it. A version also stands for a rule of the search that no key sets
(`StudySpec.reports_divergence_first`, `StudySpec.has_late_rungs`, `StudySpec.leaves_out_repeated_recipes`,
`StudySpec.tells_gp_all_trials`, `StudySpec.num_prior_trials`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from search_spaces.errors import UserInputError

FIRST_VERSION = 1
CURRENT_VERSION = 10
VERSION_KEY = "defaults_version"

# Of two keys that exclude each other, the second has no default where the first is given.
EXCLUDED_BY = {"search.device_seconds": "search.num_trials"}

_VERSION_1: dict[str, Any] = {
    "seed": 0,
    "data.search_fraction": 0.15,
    "data.confirm_fraction": 0.15,
    "data.aspect": "squash",
    "data.on_bad_image": "refuse",
    "model.weights": "imagenet",
    "model.freeze": False,
    "model.freeze_depth": 0,
    "train.image_size": 224,
    "train.batch_size": 128,
    "train.precision": "bf16",
    "train.head_precision": "as_backbone",
    "train.channels_last": True,
    "train.compile": "none",
    "train.crop_min_area": 1.0,
    "train.crop_max_ratio": 4 / 3,
    "train.flip_probability": 0.5,
    "train.rotation_degrees": 10.0,
    "train.brightness_fraction": 0.2,
    "train.augmentation": "default",
    "train.crop_padding": 0,
    "train.crop_padding_mode": "reflect",
    "train.trivial_augment": False,
    "train.contrast_fraction": 0.0,
    "train.saturation_fraction": 0.0,
    "train.hue_fraction": 0.0,
    "train.erase_probability": 0.0,
    "train.mixup_probability": 0.0,
    "train.mixup_alpha": 0.2,
    "train.ring_swap_probability": 0.0,
    "train.lr_peak_fraction": 0.3,
    "train.layer_decay": 1.0,
    "train.momentum": 0.9,
    "train.weighted_group": "",
    "train.hard_group": "",
    "train.hard_fraction": 0.0,
    "train.hard_from_epoch": 1,
    "train.leave_out": "",
    "train.optimizer": "sgd",
    "train.schedule": "onecycle",
    "train.warmup_fraction": 0.05,
    "train.ema_decay": 0.0,
    "train.clip_norm": 0.0,
    "train.accumulate": 1,
    "train.processes": 1,
    "train.tf32": False,
    "train.deterministic": True,
    "train.trainable": "network",
    "search.space": "transfer_learning",
    "search.factor": "backbone",
    "search.allocation": "per_arm",
    "search.num_trials": 20,
    "search.max_epochs": 10,
    "search.sampler": "tpe_multivariate",
    "search.start": [],
    "search.keep_weights": "all",
    "search.asha.enabled": True,
    "search.asha.reduction_factor": 2.0,
    "search.asha.first_rung": 0,
    "confirm.top_k": 2,
    "confirm.num_ranking_seeds": 1,
    "confirm.fresh_seeds": False,
    "confirm.diverged_runs": "drop",
    "confirm.seed_name": "",
    "confirm.looks": [5],
    "confirm.intervals": "planned",
    "confirm.margin": 0.005,
    "confirm.alpha": 0.05,
    "analyze.num_panels": 8,
    "analyze.num_audit_images": 2000,
    "resources.cpu": 1.0,
    "resources.gpu": 0.0,
    "resources.device": "auto",
    "resources.max_concurrent": 0,
    "resources.autoscaling": False,
    "resources.retries": 2,
    "resources.timeout_seconds": 3600.0,
    "resources.checkpoint_seconds": 0.0,
    "resources.max_failed_fraction": 0.5,
    "resources.profile": False,
    "resources.images": "stored",
    "resources.stream_workers": 0,
    "resources.image_folder": "",
}

_VERSION_2 = {
    **_VERSION_1,
    "train.head_precision": "fp32",
    "confirm.fresh_seeds": True,
    "confirm.diverged_runs": "count",
}

_VERSION_3 = {**_VERSION_2, "data.aspect": "crop"}

# Since version 4, a search without `search.start` starts with a portfolio, and one without `search.keep_weights` keeps those that
# may be confirmed.
_VERSION_4 = {k: value for k, value in _VERSION_3.items() if k not in {"search.start", "search.keep_weights"}}

_VERSION_5 = _VERSION_4

# Since version 6, the first rung of ASHA lies at three quarters of a trial (`StudySpec.has_late_rungs`).
_VERSION_6 = _VERSION_5

# Since version 7, a recipe that in the study's ranges says no more than an earlier one is left out
# (`StudySpec.leaves_out_repeated_recipes`).
_VERSION_7 = _VERSION_6

# Since version 8, the sampler "gp" hears of trials that diverged or were stopped (`StudySpec.tells_gp_all_trials`).
_VERSION_8 = _VERSION_7

# Since version 9, the default sampler is a Gaussian process for the first trials of an arm.
_VERSION_9 = {**_VERSION_8, "search.sampler": "auto"}

# Since version 10, fewer suggestions come from priors (`StudySpec.num_prior_trials`).
_VERSION_10 = _VERSION_9

DEFAULTS: Mapping[int, Mapping[str, Any]] = MappingProxyType(
    {
        **{1: _VERSION_1, 2: _VERSION_2, 3: _VERSION_3, 4: _VERSION_4, 5: _VERSION_5, 6: _VERSION_6, 7: _VERSION_7},
        **{8: _VERSION_8, 9: _VERSION_9, 10: _VERSION_10},
    }
)


def fill_defaults(data: Mapping[str, Any], version: object) -> dict[str, Any]:
    """Return a spec's data with the defaults of one version written into it.

    Args:
        data: the parsed TOML of a spec; keys that it gives keep their values.
        version: a key of `DEFAULTS`.

    Raises:
        UserInputError: for a version that this installation does not know.
    """
    if version not in DEFAULTS:
        raise UserInputError(
            f"{VERSION_KEY} must be in 1..{CURRENT_VERSION}, but got {version!r}; "
            "a study launched by a newer abstudy needs that one"
        )
    filled = {**data, VERSION_KEY: version}
    excluded = {key for by, key in EXCLUDED_BY.items() if _get(data, by) is not None}
    for key, value in DEFAULTS[version].items():  # type: ignore[index]
        if key not in excluded:
            _set_missing(filled, key.split("."), value)
    return filled


def _get(data: Mapping[str, Any], key: str) -> Any:
    section, name = key.split(".")
    found = data.get(section)
    return found.get(name) if isinstance(found, Mapping) else None


def _set_missing(data: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set a nested key unless it is there; whatever stands in the place of a section is left for the validation to refuse."""
    name, *rest = parts
    if not rest:
        data.setdefault(name, value)
        return
    section = data.get(name, {})
    if isinstance(section, dict):
        data[name] = dict(section)
        _set_missing(data[name], rest, value)
