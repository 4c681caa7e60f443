"""The cost of a full trial of each arm, measured on the cluster before a budget of device-seconds is accepted."""

from search_spaces.arms import Arm
from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from study.cluster.connection import Cluster, make_workers
from study.cluster.tasks import Task
from study.inputs.preparation import Prepared
from study.scheduling.sampler import ArmSampler
from study.spec.study_spec import StudySpec, list_backbone_configs
from trainables.devices import choose_device
from trainables.processes import prepare_to_train, share_threads
from trainables.training.trial_cost import measure_trial_cost
from trainables.training.trial_data import TrialData


def measure_full_trials(spec: StudySpec, prepared: Prepared, cluster: Cluster) -> dict[str, float]:
    """Return the device-seconds of a full trial by arm, measured on the connected cluster with the devices of a trial.

    If the backbone of an arm is searched, the most expensive backbone counts.

    Raises:
        UserInputError: if the spec's budget of device-seconds gives some arm less than one full trial.
    """
    workers = make_workers(cluster, spec, prepared.data)
    costs = {}
    for arm in spec.arms():
        cpu, gpu = (spec.resources.of_arm(kind, arm.name) for kind in ("cpu", "gpu"))
        tasks = [
            Task(arguments=(config, prepared.weights, spec.resources.device, cpu, gpu), cpu=cpu, gpu=gpu)
            for config in _representatives(spec, arm, prepared)
        ]
        costs[arm.name] = max(workers.run_tasks(_measure, tasks)) * (gpu or cpu)
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


def _measure(config: TrialConfig, weights: str, device: str, cpu: float, gpu: float, *, data: TrialData) -> float:
    prepare_to_train(share_threads(cpu, config.whole("processes")))
    cost = measure_trial_cost(config, data, device=choose_device(device, gpu), weights=weights)
    return cost.of_epochs(config.whole("max_epochs"))
