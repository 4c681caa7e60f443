"""The comparison of a confirmed study: each arm's scores, the rows of the A/B table, and the model that is handed over.

The model is chosen on the confirm split, and has a row against the linear probe on the test split.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from analysis.arms import render as arm_tables
from analysis.arms.arm_evidence import ArmEvidence
from analysis.arms.scores import compute_arm_scores
from analysis.arms.values import ArmScores
from analysis.baselines.render import build_baseline_csv
from analysis.baselines.values import LINEAR_PROBE, BaselineFindings
from analysis.comparison import tables
from analysis.comparison.arm_choice import choose_arm
from analysis.comparison.paired_difference import compare_arms
from analysis.comparison.render import build_side_csv
from analysis.comparison.rows import complete_row, compute_rows
from analysis.comparison.values import ArmChoice, ChoiceRule, ComparisonRow
from analysis.confusions.class_scores import compute_macro_f1_intervals
from analysis.formats.table_formats import to_latex, to_markdown
from analysis.statistics.arm_predictions import ArmPredictions, stack_predictions
from search_spaces.errors import UserInputError
from study.baselines.measuring import read_test_predictions
from study.confirmation.candidates import mean_confirm, outcomes_of
from study.confirmation.evidence import load_evidence, require_plan, row_rule
from study.confirmation.plan import Plan, ranking_seeds
from study.confirmation.stated_interventions import read_stated, restrict
from study.confirmation.trained_models import draw_logits
from study.open_study import OpenStudy, read_baselines, read_passport
from study.state import paths
from study.state.record_book import open_trial_files
from trainables.data.sources.labeled_files import ClassGroups, resolve_groups
from trainables.records.record import TrialRecord, best_trials
from trainables.training.evaluation import compute_mean_f1
from trainables.training.linear_probe import PROBE
from trainables.training.predictions import Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The result of the comparison stage.

    Attributes:
        plan: that the comparison follows.
        evidence: by arm, of the runs that finished, on which scores and forensics rest; no arm whose runs all diverged.
        arms: scores and costs of the arms in `evidence`.
        rows: of the A/B table; empty for a single arm.
        baselines: with what the study hands over; None in a round of interventions.
    """

    plan: Plan
    evidence: Mapping[str, ArmEvidence]
    arms: Mapping[str, ArmScores]
    rows: tuple[ComparisonRow, ...]
    baselines: BaselineFindings | None

    @property
    def all_rows(self) -> tuple[ComparisonRow, ...]:
        """The rows, and that of the winner against the probe, which has an alpha of its own."""
        row = None if self.baselines is None else self.baselines.row
        return self.rows if row is None else (*self.rows, row)


def compute_comparison(study: OpenStudy) -> Comparison:
    """Compute the arms' scores and the A/B rows, and write both tables as csv, markdown and LaTeX.

    The metrics beside macro-F1 are written as csv.

    Raises:
        UserInputError: if the study has not been confirmed.
    """
    comparison = _compute_comparison(study)
    rows, arms = comparison.all_rows, tuple(comparison.arms.values())
    texts = {
        paths.COMPARISON_CSV: tables.build_csv(rows),
        paths.ARMS_CSV: arm_tables.build_arm_csv(arms),
        paths.SIDE_METRICS_CSV: build_side_csv(comparison.rows),
        paths.COMPARISON_MARKDOWN: f"{tables.build_markdown(rows)}\n{arm_tables.build_arm_table(arms, to_markdown)}",
        paths.COMPARISON_LATEX: f"{tables.build_latex(rows)}\n{arm_tables.build_arm_table(arms, to_latex)}",
    }
    if comparison.baselines is not None:
        texts[paths.BASELINES_CSV] = build_baseline_csv(comparison.baselines)
    for name, text in texts.items():
        study.store.write_text(name, text)
    return comparison


def find_class_groups(study: OpenStudy) -> ClassGroups:
    """Return the named groups of classes: those of `[analyze]`, else those of the data set, as its source resolves them."""
    if study.spec.analyze.groups:
        return study.spec.analyze.groups
    return resolve_groups(
        study.spec.data.options.get("class_groups"), read_passport(study.store)["data"]["class_names"]
    )


def _compute_comparison(study: OpenStudy) -> Comparison:
    plan = require_plan(study)
    evidence, rule = share_features(study, load_evidence(study, plan)), row_rule(plan)
    data, minimum = read_passport(study.store)["data"], study.spec.minimum.macro_f1 if study.spec.minimum else None
    finished = {name: found.finished() for name, found in evidence.items()}
    finished = {name: found for name, found in finished.items() if found.runs}
    arms = {
        name: compute_arm_scores(
            found,
            data["class_names"],
            confidence=1 - plan.alpha,
            minimum=minimum,
            num_search_images=data["num_images"]["search"],
        )
        for name, found in finished.items()
    }
    if minimum is not None:
        arms = {name: _count_diverged(scores, evidence[name], 1 - plan.alpha, minimum) for name, scores in arms.items()}
    groups, read = find_class_groups(study), read_stated(study.store, study.spec)
    is_changed = plan.is_changed or (read is not None and read.is_changed)
    stated = None if read is None else read.stated
    judged = [(contrast, restrict(evidence, stated, contrast)) for contrast in plan.rows]
    rows = tuple(
        complete_row(row, contrast, found, rule, data["class_names"], plan_changed=is_changed, groups=groups)
        for (contrast, found), row in zip(judged, compute_rows(judged, rule), strict=True)
        if row is not None
    )
    baselines = compute_handover(study, plan, evidence)
    return Comparison(plan=plan, evidence=finished, arms=arms, rows=rows, baselines=baselines)


def _count_diverged(scores: ArmScores, evidence: ArmEvidence, confidence: float, minimum: float) -> ArmScores:
    """Return the scores; an arm with runs that diverged passes the minimum only if it passes with all runs too."""
    if not (evidence.diverged and scores.minimum_cleared):
        return scores
    all_runs = compute_macro_f1_intervals(evidence.stacked(), confidence).recipe
    return replace(scores, minimum_cleared=all_runs is not None and all_runs.low > minimum)


def choose_handed_arm(study: OpenStudy, plan: Plan) -> ArmChoice:
    """Return the arm to hand over, by predictions for the confirm and search splits over the first look's seeds.

    With folds, whose trials have seen these splits, it is over the seeds of the ranking. A run that diverged predicts at random.
    """
    seeds = ranking_seeds(study.spec) if study.spec.confirm.folds else plan.seeds[: plan.looks[0]]
    sources = {arm: study.book.get("search", trial_id) for arm, trial_id in plan.chosen.items()}
    runs = {
        arm: [run for run in outcomes_of(study.book, source) if run.config.seed in seeds and not run.config.fold]
        for arm, source in sources.items()
    }
    if len(runs) == 1:
        ((arm, own),) = runs.items()
        return ArmChoice(arm=arm, rule=ChoiceRule.ONLY, confirm_macro_f1={arm: mean_confirm(own)}, leader=arm)
    confirm, search = (_read_split(study, runs, split) for split in ("confirm", "search"))
    return choose_arm(
        confirm,
        search,
        margin=plan.margin,
        alpha=plan.alpha,
        num_candidates={arm: len(best_trials(study.book.of_stage("search"), arm)) for arm in runs},
        seconds={arm: fmean(run.device_seconds for run in own) for arm, own in runs.items()},
    )


def _read_split(study: OpenStudy, runs: Mapping[str, Sequence[TrialRecord]], split: str) -> dict[str, ArmPredictions]:
    """Return what the runs of each arm predict on a split, those that diverged at random."""
    read = {
        run.trial_id: open_trial_files(study.store, run).read_predictions(split, run.digests)
        for own in runs.values()
        for run in own
        if split in run.predictions and not run.diverged
    }
    if not read:
        raise UserInputError(f"no confirmation trial has predictions on the split {split}; `study resume` trains them")
    like = next(iter(read.values()))
    return {
        arm: stack_predictions(
            arm,
            {
                run.config.seed: read.get(run.trial_id) or replace(like, logits=draw_logits(run, *like.logits.shape))
                for run in own
            },
        )
        for arm, own in runs.items()
    }


def choose_handover(study: OpenStudy, plan: Plan, baselines: BaselineFindings) -> BaselineFindings:
    """Return the baselines with the best of the arms, and what is handed over: this arm, or the probe if it scores higher."""
    choice, probe = choose_handed_arm(study, plan), baselines.probe
    is_probe = probe is not None and probe.confirm_macro_f1 > choice.confirm_macro_f1[choice.arm]
    return replace(baselines, choice=choice, handed_over=LINEAR_PROBE if is_probe else choice.arm)


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
        found = _judge_probe(found, plan, evidence.get(found.winner), by_seed)
        found = replace(found, folds=study.spec.confirm.folds)
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


def _judge_probe(
    found: BaselineFindings, plan: Plan, evidence: ArmEvidence | None, predictions: Mapping[int, Predictions]
) -> BaselineFindings:
    """Return the findings with the probe on the test split, and with the winner's row against it where the winner has runs."""
    assert found.probe is not None
    test = fmean(compute_mean_f1(p.labels, p.predicted, p.logits.shape[1]) for p in predictions.values())
    probes = tuple(replace(p, test_macro_f1=test) if p is found.probe else p for p in found.probes)
    if evidence is None or not evidence.runs:
        return replace(found, probes=probes)
    row = compare_arms(
        evidence.stacked(),
        stack_predictions(LINEAR_PROBE, {seed: predictions[seed] for seed in evidence.seeds}),
        margin=plan.margin,
        alpha=plan.alpha,
        num_rows=1,
        cost_ratio=evidence.device_seconds / max(found.probe.seconds, 1e-3),
        look=len(plan.looks),
        num_looks=len(plan.looks),
    )
    return replace(found, probes=probes, row=row)


def _score_majority(found: BaselineFindings, study: OpenStudy, test: Predictions) -> BaselineFindings:
    """Return the findings with the majority class on the test split, whose labels the predictions of an arm have."""
    place = read_passport(study.store)["data"]["class_names"].index(found.majority.class_name)
    score = compute_mean_f1(test.labels, np.full(len(test.labels), place), test.logits.shape[1])
    return replace(found, majority=replace(found.majority, test_macro_f1=score))
