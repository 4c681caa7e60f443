"""What a study takes, before it starts: the full trials of each arm, their device time, and the disk space of their weights.

Device time is measured on the cluster, before a budget of device-seconds is accepted.
"""

import math
from collections.abc import Mapping
from statistics import fmean

from analysis.formats.numbers import format_count, format_seconds
from analysis.formats.text_sections import SectionTable
from search_spaces.config import TrialConfig
from search_spaces.designs import Arm
from search_spaces.errors import UserInputError
from study.cluster.connection import Cluster, make_workers
from study.cluster.tasks import find_device, make_task
from study.inputs.preparation import Prepared
from study.scheduling.sampler import ArmSampler
from study.spec.study_spec import StudySpec, list_backbone_configs
from study.state.record_book import MemoryBook
from study.views.forecast_basis import Basis
from study.views.live_view import plan_confirmation_trials
from trainables.models.backbones import build_model, count_forward_flops
from trainables.processes import prepare_to_train, share_threads
from trainables.records.trial_files import NUM_CHECKPOINTS_KEPT
from trainables.training.trial_cost import measure_trial_cost
from trainables.training.trial_data import TrialData

# Of the head, which is small beside a backbone; a spec does not say the number of its data's classes.
NUM_CLASSES = 10
MEGABYTE = 1e6
MIN_TRIALS = 5
NUM_IMAGENET_CLASSES = 1000
# A checkpoint has the weights and, of every weight, what the optimizer keeps; with averaged weights these, too.
OPTIMIZER_COPIES = {"sgd": 1, "adamw": 2}


def describe_size(spec: StudySpec) -> str:
    """Return a sentence on the study's size when it ends, and on the checkpoints of a running trial."""
    total, parts, largest = 0.0, [], 0.0
    # Search trials of an arm that keep their weights; None if they are all of an unknown number.
    kept = 1 if spec.has_given_arms else spec.num_kept_weights
    confirmed = plan_confirmation_trials(spec, MemoryBook())
    for arm in spec.arms():
        size, num_confirmed = measure_weights(spec, arm), confirmed[arm.name]
        if size is None:
            return f"size on disk: not known, because {arm.name} is trained by a custom loop"
        largest = max(largest, size)
        if kept is None:
            parts.append(f"{arm.name} {size / MEGABYTE:.0f} MB for every search trial and {num_confirmed} others")
        else:
            total += size * (kept + num_confirmed)
            parts.append(f"{arm.name} {size / MEGABYTE:.0f} MB in {kept} + {num_confirmed} trials")
    about = "" if kept is None else f"about {total / 1e9:.1f} GB, "
    averaged = any(float(decay) > 0 for decay in spec.setting_values("ema_decay"))
    copies = 1 + max(OPTIMIZER_COPIES[str(name)] for name in spec.setting_values("optimizer")) + averaged
    checkpoint = NUM_CHECKPOINTS_KEPT * largest * copies
    return (
        f"size on disk when it ends: {about}nearly all of it weights ({'; '.join(parts)}); a running trial adds up to "
        f"{checkpoint / MEGABYTE:.0f} MB of checkpoints"
    )


def measure_weights(spec: StudySpec, arm: Arm) -> float | None:
    """Return the bytes of a model's weights in the arm, of the largest where backbones vary; None where there is no network."""
    states = [build_model(config, NUM_CLASSES, weights="none").state_dict() for config in list_networks(spec, arm)]
    sizes = [sum(tensor.numel() * tensor.element_size() for tensor in state.values()) for state in states]
    return float(max(sizes)) if sizes else None


def list_networks(spec: StudySpec, arm: Arm) -> list[TrialConfig]:
    """Return a configuration of each backbone of the arm, with its largest images and all layers trained."""
    fixed = {"image_size": spec.values_of(arm, "image_size")[-1], "tuning": "full"}
    return list_backbone_configs(arm, {}, fixed)


def count_search_trials(spec: StudySpec, seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the full trials of each arm that the search's budget buys; arms get equal device time up to their most trials."""
    if spec.has_given_arms:
        return dict.fromkeys(seconds, 1.0)
    most = spec.search.max_trials_per_arm or math.inf
    if spec.search.device_seconds is not None:
        return {arm: min(spec.search.device_seconds / len(seconds) / cost, most) for arm, cost in seconds.items()}
    costs = dict(seconds if spec.search.epoch_cost is None else spec.search.epoch_cost)
    found: dict[str, float] = {}
    while len(found) < len(seconds):
        left = {arm: costs[arm] for arm in seconds if arm not in found}
        budget, unit = (spec.search.num_trials or 0) - sum(found.values()), sum(1 / cost for cost in left.values())
        shares = {arm: budget / cost / unit for arm, cost in left.items()}
        found |= {arm: most for arm, number in shares.items() if number > most} or shares
    return found


def describe_search_trials(spec: StudySpec, basis: Basis) -> tuple[str, ...]:
    """Return sentences with the full trials that the search's device time buys each arm, and a warning below `MIN_TRIALS`."""
    arms = [arm.name for arm in spec.arms()]
    if spec.has_given_arms or len(arms) < 2:
        return ()
    costs, source = _find_costs(spec, basis)
    budget = spec.search.device_seconds
    if budget is not None and basis.costs is None:
        return (
            "full trials per arm: not known; the budget is in device-seconds, and only --like or --pilot measures them",
        )
    num_trials = count_search_trials(spec, costs)
    cheapest = min(costs.values())
    found = ", ".join(f"{arm} {num_trials[arm]:.1f} (cost {costs[arm] / cheapest:.1f}x)" for arm in arms)
    lines = [f"full trials that equal device time buys: {found}; costs from {source}"]
    few = [arm for arm in arms if num_trials[arm] < MIN_TRIALS]
    if few:
        lines.append(
            f"warning: fewer than {MIN_TRIALS} full trials for {', '.join(few)}; raise the budget of the search, or lower "
            "search.max_epochs"
        )
    return tuple(lines)


def _find_costs(spec: StudySpec, basis: Basis) -> tuple[Mapping[str, float], str]:
    """Return the cost of a full trial by arm, and its source: measured, of the spec, or in proportion to the forward FLOPs."""
    if basis.costs is not None:
        return basis.costs, basis.source
    if spec.search.epoch_cost is not None:
        epochs = {arm.name: spec.max_epochs(arm) for arm in spec.arms()}
        return {arm: cost * epochs[arm] for arm, cost in spec.search.epoch_cost.items()}, "search.epoch_cost"
    costs = {}
    for arm in spec.arms():
        flops = [count_forward_flops(config, NUM_IMAGENET_CLASSES) for config in list_networks(spec, arm)]
        if not flops:
            raise UserInputError(
                f"the cost of the arm {arm.name!r} is that of {', '.join(spec.trainables_of(arm))}, which cannot be derived; "
                "set search.epoch_cost, or measure it with --pilot"
            )
        costs[arm.name] = fmean(flops) * spec.max_epochs(arm)
    return costs, "the FLOPs of a forward pass, because nothing was measured"


def describe_study_time(spec: StudySpec, seconds: Mapping[str, float], num_devices: float) -> tuple[str, SectionTable]:
    """Return a sentence on the study's time, and a table of its trials and device-seconds by arm.

    Args:
        spec: of the study.
        seconds: device-seconds of a full trial by arm.
        num_devices: that trials hold at once.
    """
    searched = count_search_trials(spec, seconds)
    confirmed = plan_confirmation_trials(spec, MemoryBook())
    total = sum((searched[arm] + confirmed[arm]) * seconds[arm] for arm in seconds)
    rows = tuple((arm, format_seconds(seconds[arm]), f"{searched[arm]:.1f}", str(confirmed[arm])) for arm in seconds)
    devices = f"{num_devices:g} {'device' if num_devices == 1 else 'devices'}"
    num_searched, num_confirmed = format_count(round(sum(searched.values()))), sum(confirmed.values())
    line = (
        f"the study takes at most about {total / 3600:.2g} device-hours, {format_seconds(total / num_devices)} on {devices}: "
        f"{num_searched} full trials of the search and {num_confirmed} of the confirmation"
    )
    columns = ("arm", "device time of a full trial", "full trials, search", "trials, confirmation")
    return line, SectionTable(columns=columns, rows=rows)


def measure_full_trials(spec: StudySpec, prepared: Prepared, cluster: Cluster) -> dict[str, float]:
    """Return the device-seconds of a full trial by arm, measured on the connected cluster with the devices of a trial.

    If the backbone of an arm is searched, the most expensive backbone counts.

    Raises:
        UserInputError: if the spec's budget of device-seconds gives some arm less than one full trial.
    """
    workers = make_workers(cluster, spec, prepared.data)
    costs = {}
    for arm in spec.arms():
        given = prepared.weights, spec.resources.of_arm("cpu", arm.name)
        tasks = [make_task(spec, arm.name, config, *given) for config in _representatives(spec, arm, prepared)]
        costs[arm.name] = max(workers.run_tasks(_measure_trial, tasks)) * spec.resources.count_devices(arm.name)
    check_device_seconds(spec, costs)
    return costs


def check_device_seconds(spec: StudySpec, full_trial_seconds: dict[str, float]) -> None:
    """Raise UserInputError if the budget of device-seconds gives some arm less than one full trial."""
    budget = spec.search.device_seconds
    if budget is None:
        return
    needed = len(full_trial_seconds) * max(full_trial_seconds.values())
    if budget < needed:
        costs = ", ".join(f"{seconds:.0f} for {arm}" for arm, seconds in full_trial_seconds.items())
        raise UserInputError(
            f"search.device_seconds is divided equally among the arms and must cover a full trial of each ({costs}), "
            f"so {needed:.0f} or more, but got {budget:g}; raise it, or lower search.max_epochs or data.num_images"
        )


def _representatives(spec: StudySpec, arm: Arm, prepared: Prepared) -> list[TrialConfig]:
    """Return one configuration for each backbone of the arm, if it has any, with its most epochs and its largest images."""
    chosen = ArmSampler(arm, sampler="random", seed=spec.seed).suggest("cost")
    most = {name: arm.space.values_of(name) for name in ("max_epochs", "image_size")}
    chosen |= {name: max(int(v) for v in values) for name, values in most.items() if values}
    without = TrialConfig(arm=arm.name, seed=0, hyperparameters=chosen, fixed=prepared.fixed)
    return list_backbone_configs(arm, chosen, prepared.fixed) or [without]


def _measure_trial(config: TrialConfig, weights: str, cpu: float, *, data: TrialData) -> float:
    prepare_to_train(share_threads(cpu, config.whole("processes")))
    cost = measure_trial_cost(config, data, device=find_device(), weights=weights)
    return cost.of_epochs(config.whole("max_epochs"))
