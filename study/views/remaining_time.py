"""The time that a stage of a study still takes, from the epochs left and the measured cost of an epoch of each arm."""

import heapq
from collections.abc import Mapping, Sequence
from statistics import fmean

from study.confirmation.plan import confirmation_seeds
from study.open_study import OpenStudy, full_trial_seconds, has_finished_search, read_passport
from study.state.paths import Stage
from trainables.records.record import TrialRecord


def compute_remaining_seconds(study: OpenStudy, stage: Stage) -> float | None:
    """Return the wall seconds until the end of a stage, without pauses; None while no epoch has been measured.

    A new search trial of an arm is expected to run as many epochs as the arm's trials have run per ended trial, and at most
    all. This counts the epochs of running trials, because the trials that end first are those that ASHA stops.
    """
    records = study.book.of_stage(stage)
    running = [r for r in records if not r.state.is_finished]
    if stage == "search" and has_finished_search(study):
        return 0.0
    costs = _epoch_costs(study)
    if not costs:
        return None
    epochs = {arm.name: _expected_epochs(arm.name, records, study, stage) for arm in study.spec.arms()}
    max_epochs = study.spec.search.max_epochs
    started = [
        (r.config.arm, costs[r.config.arm] * min(epochs[r.config.arm], max_epochs - len(r.epochs))) for r in running
    ]
    budget = study.spec.search.device_seconds if stage == "search" else None
    num_devices = float(read_passport(study.store)["num_devices"])
    if budget is not None:
        left = budget - sum(r.device_seconds for r in records)
        return max(left, sum(seconds for _, seconds in started)) / num_devices
    trial_costs = {arm: costs[arm] * epochs[arm] for arm in costs}
    waiting = _waiting_arms(study, stage, records, started, trial_costs)
    held = {arm: _devices_held(study, arm) for arm in costs}
    num_slots = max(1, len(running), int(num_devices / max(held.values()) + 1e-9))
    seconds = [cost / held[arm] for arm, cost in started]
    return _finish_time(seconds, [trial_costs[arm] / held[arm] for arm in waiting], num_slots)


def _epoch_costs(study: OpenStudy) -> dict[str, float]:
    """Return the device-seconds of an epoch by arm, set-up and checkpoint included; empty while none is known.

    An arm that has no epoch yet gets the mean of the others.
    """
    arms = [arm.name for arm in study.spec.arms()]
    full = full_trial_seconds(study.store) or {}
    costs = {arm: seconds / study.spec.search.max_epochs for arm, seconds in full.items()}
    for arm in arms:
        measured = [r for r in study.book if r.config.arm == arm and r.epochs]
        if measured:
            costs[arm] = sum(r.device_seconds for r in measured) / sum(len(r.epochs) for r in measured)
    return {arm: costs.get(arm, fmean(costs.values())) for arm in arms} if costs else {}


def _expected_epochs(arm: str, records: Sequence[TrialRecord], study: OpenStudy, stage: Stage) -> float:
    own = [r for r in records if r.config.arm == arm]
    num_ended = sum(r.state.is_finished for r in own)
    if stage != "search" or not num_ended:
        return study.spec.search.max_epochs
    return min(study.spec.search.max_epochs, sum(len(r.epochs) for r in own) / num_ended)


def _waiting_arms(
    study: OpenStudy,
    stage: Stage,
    records: Sequence[TrialRecord],
    started: Sequence[tuple[str, float]],
    trial_costs: Mapping[str, float],
) -> list[str]:
    """Return the arm of each trial that has not started; the search gives every arm equal device-seconds."""
    if stage != "search" or study.spec.has_given_arms:
        num_each = 1 if stage == "search" else len(confirmation_seeds(study.spec))
        # Distinct seeds, because the candidates of an arm are ranked with the same ones.
        seeds = {arm: {r.config.seed for r in records if r.config.arm == arm} for arm in trial_costs}
        return [arm for arm in trial_costs for _ in range(num_each - len(seeds[arm]))]
    committed = {arm: sum(r.device_seconds for r in records if r.config.arm == arm) for arm in trial_costs}
    for arm, seconds in started:
        committed[arm] += seconds
    waiting = []
    for _ in range((study.spec.num_trials or 0) - len(records)):
        arm = min(committed, key=lambda name: committed[name] + trial_costs[name] / 2)
        committed[arm] += trial_costs[arm]
        waiting.append(arm)
    return waiting


def _devices_held(study: OpenStudy, arm: str) -> float:
    return study.spec.resources.of_arm("gpu", arm) or study.spec.resources.of_arm("cpu", arm)


def _finish_time(running: Sequence[float], waiting: Sequence[float], num_slots: int) -> float:
    """Return when the last trial ends, if each waiting trial starts in the slot that becomes free first."""
    slots = [*running, *[0.0] * (num_slots - len(running))]
    heapq.heapify(slots)
    for seconds in waiting:
        heapq.heapreplace(slots, slots[0] + seconds)
    return max(slots)
