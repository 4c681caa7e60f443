"""The time that a stage of a study still takes, from the epochs left and the measured cost of an epoch of each arm."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from study.confirmation.candidates import count_ranking_trials
from study.confirmation.plan import confirmation_seeds, read_plan
from study.open_study import OpenStudy, has_finished_search, read_passport
from study.spec.study_spec import StudySpec
from study.state.paths import COMPARISON_CSV, FINDINGS, Stage
from study.state.record_book import MemoryBook
from trainables.records.record import TrialRecord


def compute_remaining_seconds(study: OpenStudy, stage: Stage) -> float | None:
    """Return the wall seconds until the end of a stage, without pauses; None while no epoch has been measured.

    Waiting trials are assigned to the slots that become free first, each with the expected cost of a trial of its arm.
    """
    records = study.book.of_stage(stage)
    if has_finished_search(study) if stage == "search" else has_finished_confirmation(study):
        return 0.0
    arms = [arm.name for arm in study.spec.arms()]
    measured = {arm: [r for r in study.book if r.config.arm == arm and r.epochs] for arm in arms}
    costs = {a: sum(r.device_seconds for r in m) / sum(len(r.epochs) for r in m) for a, m in measured.items() if m}
    if not costs:
        return None
    # Device-seconds of an epoch, and of a whole trial. An arm without an epoch gets the mean of the others.
    epoch_costs = {arm: costs.get(arm, fmean(costs.values())) for arm in arms}
    trial_costs = {arm: epoch_costs[arm] * _expected_epochs(arm, records, study, stage) for arm in arms}
    left = {r.trial_id: r.config.whole("max_epochs") - len(r.epochs) for r in records}
    running = [(r.config.arm, r.trial_id) for r in records if not r.state.is_finished]
    started = [(arm, min(trial_costs[arm], epoch_costs[arm] * left[trial_id])) for arm, trial_id in running]
    num_devices = float(read_passport(study.store)["num_devices"])
    if stage == "search" and study.spec.search.device_seconds is not None:
        unspent = study.spec.search.device_seconds - sum(r.device_seconds for r in records)
        return max(unspent, sum(cost for _, cost in started)) / num_devices
    held = {arm: study.spec.resources.count_devices(arm) for arm in arms}
    slots = [cost / held[arm] for arm, cost in started]
    slots += [0.0] * (max(1, int(num_devices / max(held.values()) + 1e-9)) - len(slots))
    heapq.heapify(slots)
    for arm in _waiting_arms(study, stage, started, trial_costs):
        heapq.heapreplace(slots, slots[0] + trial_costs[arm] / held[arm])
    return max(slots)


def has_finished_confirmation(study: OpenStudy) -> bool:
    """Return whether the A/B table has been written and no trial of the plan was started since.

    A table of a part may come earlier, and a driver that died may have left a trial that nobody wants any more.
    """
    running = [record for record in study.book.of_stage("confirmation") if not record.state.is_finished]
    plan = read_plan(study.store) if running else None
    if plan is None and running:
        return False
    sources = [] if plan is None else [study.book.get("search", trial_id) for trial_id in plan.chosen.values()]
    wanted = {source.config.configuration_fingerprint for source in sources}
    if any(record.config.configuration_fingerprint in wanted for record in running):
        return False
    return study.store.exists(COMPARISON_CSV) or study.store.exists(FINDINGS)


def count_confirmation_trials(study: OpenStudy) -> dict[str, int]:
    """Return the trials of each arm that the confirmation runs: rankings of its candidates, and all seeds.

    Of a finished confirmation, they are those that it has run: rows that an early look decided need no more.
    """
    if has_finished_confirmation(study):
        counts = Counter(record.config.arm for record in study.book.of_stage("confirmation"))
        return {arm.name: counts[arm.name] for arm in study.spec.arms()}
    return plan_confirmation_trials(study.spec, study.book)


def plan_confirmation_trials(spec: StudySpec, book: MemoryBook) -> dict[str, int]:
    """Return the trials of each arm that a confirmation runs if no early look decides; before the search ends, an estimate."""
    num_seeds = len(confirmation_seeds(spec))
    return {arm.name: num_seeds + count_ranking_trials(book, spec, arm.name) for arm in spec.arms()}


def _expected_epochs(arm: str, records: Sequence[TrialRecord], study: OpenStudy, stage: Stage) -> float:
    """Return the epochs that a new trial is expected to run: in the search, those of the arm per trial that has ended.

    The epochs of running trials count, because the trials that end first are those that ASHA stops.
    """
    own = [r for r in records if r.config.arm == arm]
    num_ended = sum(r.state.is_finished for r in own)
    full = next(study.spec.max_epochs(found) for found in study.spec.arms() if found.name == arm)
    if stage != "search" or not num_ended:
        return full
    return min(full, sum(len(r.epochs) for r in own) / num_ended)


def _waiting_arms(
    study: OpenStudy, stage: Stage, started: Sequence[tuple[str, float]], trial_costs: Mapping[str, float]
) -> list[str]:
    """Return the arm of each trial that has not started; the search gives every arm equal device-seconds."""
    records = study.book.of_stage(stage)
    if stage != "search" or study.spec.has_given_arms:
        planned = dict.fromkeys(trial_costs, 1) if stage == "search" else count_confirmation_trials(study)
        started_of = Counter(r.config.arm for r in records)
        return [arm for arm in trial_costs for _ in range(planned[arm] - started_of[arm])]
    committed = {arm: sum(r.device_seconds for r in records if r.config.arm == arm) for arm in trial_costs}
    for arm, cost in started:
        committed[arm] += cost
    waiting = []
    for _ in range((study.spec.num_trials or 0) - len(records)):
        waiting.append(min(committed, key=lambda arm: committed[arm] + trial_costs[arm] / 2))
        committed[waiting[-1]] += trial_costs[waiting[-1]]
    return waiting
