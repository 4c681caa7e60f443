"""The model that a study hands over, chosen on the confirm split, and its row against the linear probe on the test split."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

import numpy as np

from analysis.arms.arm_evidence import ArmEvidence
from analysis.baselines.values import LINEAR_PROBE, BaselineFindings
from analysis.comparison.paired_difference import compare_arms
from analysis.comparison.values import ComparisonRow
from analysis.statistics.arm_predictions import stack_predictions
from study.baselines.files import read_baselines
from study.baselines.stored import read_test_predictions
from study.confirmation.candidates import mean_confirm, outcomes_of
from study.confirmation.plan import Plan, ranking_seeds
from study.open_study import OpenStudy, read_passport
from trainables.training.evaluation import compute_mean_f1
from trainables.training.linear_probe import PROBE
from trainables.training.predictions import Predictions


def choose_handover(study: OpenStudy, plan: Plan, baselines: BaselineFindings) -> BaselineFindings:
    """Return the baselines with the winner among the arms, and what is handed over: the winner or the probe.

    The winner has the highest mean macro-F1 on the confirm split over the first look's seeds, where a run that diverged has 0.
    With folds, of which every trial has seen that split, it is over the seeds of the ranking. Ties go to the first arm, and from
    the probe to the winner.
    """
    seeds = set(ranking_seeds(study.spec) if study.spec.confirm.folds else plan.seeds[: plan.looks[0]])
    scores = {}
    for arm, trial_id in plan.chosen.items():
        outcomes = outcomes_of(study.book, study.book.get("search", trial_id))
        scores[arm] = mean_confirm([run for run in outcomes if run.config.seed in seeds])
    winner, score = max(scores.items(), key=lambda item: item[1])
    probe = baselines.probe
    chosen = LINEAR_PROBE if probe is not None and probe.confirm_macro_f1 > score else winner
    return replace(baselines, winner=winner, winner_confirm_macro_f1=score, handed_over=chosen)


def compute_handover(study: OpenStudy, plan: Plan, evidence: Mapping[str, ArmEvidence]) -> BaselineFindings | None:
    """Return the baselines with what the comparison adds; None if the study has none.

    The probe is one model, so it is constant over the seeds of the row: the variance between seeds is that of the winner's. With
    folds, it is fitted anew for each seed. The test split judges the choice and never makes it.

    Args:
        study: confirmed.
        plan: of its comparison.
        evidence: by arm, all its runs with their test predictions; one that diverged is an outcome of the winner.
    """
    stored = read_baselines(study)
    if stored is None:
        return None
    found = choose_handover(study, plan, stored.findings)
    if probe := read_test_predictions(study):
        by_seed = dict(zip(plan.seeds, probe if len(probe) > 1 else itertools.repeat(probe[0]), strict=False))
        found = _judge(found, plan, evidence.get(found.winner), by_seed, study.spec.confirm.folds)
    if some := next((arm for arm in evidence.values() if arm.predictions), None):
        found = _score_majority(found, study, some.predictions[0])
    return found


def share_features(study: OpenStudy, evidence: Mapping[str, ArmEvidence]) -> dict[str, ArmEvidence]:
    """Return the evidence of the arms with the device time of their probes' features, divided by the trials that used them.

    The features were computed for the baseline of the same backbone, and are counted once for each view.
    """
    stored = read_baselines(study)
    seconds = {} if stored is None else {probe.backbone: probe.seconds for probe in stored.findings.probes}
    shared = dict(evidence)
    for arm, found in evidence.items():
        config, backbone = found.source.config, str(found.source.config.get("backbone", ""))
        if config.get("tuning", "") == PROBE and backbone in seconds:
            num_trials = sum(r.config.arm == arm for r in study.book)
            cost = seconds[backbone] * found.source.devices_per_trial * config.whole("probe_views")
            shared[arm] = replace(found, shared_seconds=cost / num_trials)
    return shared


def _judge(
    found: BaselineFindings,
    plan: Plan,
    evidence: ArmEvidence | None,
    predictions: Mapping[int, Predictions],
    folds: int,
) -> BaselineFindings:
    test = fmean(compute_mean_f1(p.labels, p.predicted, p.logits.shape[1]) for p in predictions.values())
    probes = tuple(replace(p, test_macro_f1=test) if p is found.probe else p for p in found.probes)
    row = None if evidence is None or not evidence.runs else _compare(found, plan, evidence, predictions)
    return replace(found, probes=probes, row=row, folds=folds)


def _compare(
    found: BaselineFindings, plan: Plan, evidence: ArmEvidence, predictions: Mapping[int, Predictions]
) -> ComparisonRow:
    assert found.probe is not None
    control = stack_predictions(LINEAR_PROBE, {seed: predictions[seed] for seed in evidence.seeds})
    return compare_arms(
        evidence.stacked(),
        control,
        margin=plan.margin,
        alpha=plan.alpha,
        num_rows=1,
        cost_ratio=evidence.device_seconds / max(found.probe.seconds, 1e-3),
        look=len(plan.looks),
        num_looks=len(plan.looks),
    )


def _score_majority(found: BaselineFindings, study: OpenStudy, test: Predictions) -> BaselineFindings:
    """Return the findings with the majority class on the test split, whose labels the predictions of an arm have."""
    place = read_passport(study.store)["data"]["class_names"].index(found.majority.class_name)
    score = compute_mean_f1(test.labels, np.full(len(test.labels), place), test.logits.shape[1])
    return replace(found, majority=replace(found.majority, test_macro_f1=score))
