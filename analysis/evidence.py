"""From records and predictions to `Findings`: each piece computed where it belongs, put together here."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from analysis.classes.class_differences import compute_class_differences
from analysis.classes.class_scores import compute_class_scores, compute_macro_f1_interval
from analysis.classes.clusters import find_clusters
from analysis.classes.confusion_matrix import compute_confusion
from analysis.classes.pair_rates import compare_with_people
from analysis.findings.comparison_findings import ComparisonRow, Verdict
from analysis.findings.search_findings import SearchArm
from analysis.findings.study_findings import ArmFinding
from analysis.search.rungs import compute_saved_device_seconds, ran_every_epoch
from analysis.statistics.anytime import compute_anytime_interval
from analysis.statistics.arm_predictions import ArmAverage, ArmPredictions, Side, stack_predictions
from analysis.statistics.bootstrap import compute_crossed_bootstrap
from analysis.statistics.comparison import compare_arms, compute_verdict
from search_spaces.designs import Contrast
from trainables.models.backbones import count_forward_flops
from trainables.records.record import TrialRecord, TrialState
from trainables.training.predictions import Predictions

LOW_SHARE_FRACTION = 0.8
PAIR_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEvidence:
    """What was measured of one arm.

    Attributes:
        arm: its name.
        source: the search trial whose configuration was confirmed.
        runs: confirmation records whose test predictions are there, in the order of the plan's seeds.
        predictions: test predictions of `runs`, in the same order.
        failed_seeds: planned seeds whose run failed for good; no row can use them.
    """

    arm: str
    source: TrialRecord
    runs: Sequence[TrialRecord]
    predictions: Sequence[Predictions]
    failed_seeds: frozenset[int] = frozenset()

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of `runs`."""
        return tuple(r.config.seed for r in self.runs)

    def with_seeds(self, seeds: Collection[int]) -> "ArmEvidence":
        """Return the part with these seeds."""
        kept = [(r, p) for r, p in zip(self.runs, self.predictions, strict=True) if r.config.seed in seeds]
        return replace(self, runs=[r for r, _ in kept], predictions=[p for _, p in kept])

    @property
    def device_seconds(self) -> float:
        """Mean per run."""
        return fmean(r.device_seconds for r in self.runs)

    def stacked(self) -> ArmPredictions:
        """Return the test predictions as one (S, N) value; raise UserInputError if seeds do not share images."""
        by_seed = {r.config.seed: p for r, p in zip(self.runs, self.predictions, strict=True)}
        return stack_predictions(self.arm, by_seed)


def compute_arm_finding(
    evidence: ArmEvidence,
    class_names: Sequence[str],
    *,
    confidence: float,
    gate: float | None,
    num_search_images: int,
) -> ArmFinding:
    """Return what the confirmation runs say about one arm, with intervals at `confidence`.

    `num_search_images` is the size of the search split, which every epoch predicts.
    """
    stacked = evidence.stacked()
    macro_f1 = compute_macro_f1_interval(stacked, confidence).interval
    epochs = [epoch for run in evidence.runs for epoch in run.epochs]
    first = evidence.runs[0]
    return ArmFinding(
        arm=evidence.arm,
        trial_id=evidence.source.trial_id,
        confirmation_ids=tuple(r.trial_id for r in evidence.runs),
        seeds=tuple(r.config.seed for r in evidence.runs),
        hyperparameters=dict(evidence.source.config.hyperparameters),
        search_macro_f1=float(evidence.source.last_macro_f1 or 0.0),
        confirm_macro_f1=fmean(r.confirm_macro_f1 or 0.0 for r in evidence.runs),
        test_macro_f1=macro_f1,
        class_scores=compute_class_scores(stacked, class_names, confidence),
        confusion=compute_confusion(stacked, class_names, confidence),
        confused_pairs=None,
        clusters=(),
        ring_audits=(),
        pulls=(),
        root_causes=(),
        group_contrasts=(),
        colour_losses=(),
        frequency_audit=None,
        cam_admission=None,
        gate_cleared=None if gate is None else macro_f1.low > gate,
        num_parameters=first.num_parameters,
        forward_flops=count_forward_flops(evidence.source.trial_config(), len(class_names)),
        device_seconds=evidence.device_seconds,
        train_images_per_second=median(e.train_images_per_second for e in epochs),
        predict_images_per_second=median(num_search_images / e.evaluate_seconds for e in epochs),
        points_per_device_hour=100 * macro_f1.estimate / (evidence.device_seconds / 3600),
        peak_memory_bytes=max(e.peak_memory_bytes for e in epochs),
        device=first.device,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRule:
    """How rows are judged: the plan's seeds, looks, kind of intervals, margin, alpha and number of rows."""

    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    intervals: str
    margin: float
    alpha: float
    num_rows: int


def compute_row(contrast: Contrast, evidence: Mapping[str, ArmEvidence], rule: RowRule) -> ComparisonRow | None:
    """Return the row at the first look that decides it, else at the last look whose runs are all there; None before the first.

    A look that comes after the deciding one is not taken, though its runs may be there.
    """
    row = None
    for number in range(1, len(rule.looks) + 1):
        seeds = _seeds_of_look(contrast, evidence, rule, number)
        if not all(seeds <= set(evidence[arm].seeds) for arm in contrast.arms):
            break
        row = _judge(contrast, evidence, seeds, rule, number)
        if row.verdict is not Verdict.UNDECIDED:
            break
    return row


def _seeds_of_look(contrast: Contrast, evidence: Mapping[str, ArmEvidence], rule: RowRule, look: int) -> set[int]:
    failed = {seed for arm in contrast.arms for seed in evidence[arm].failed_seeds}
    return set(rule.seeds[: rule.looks[look - 1]]) - failed


def _sides(contrast: Contrast, evidence: Mapping[str, ArmEvidence], seeds: Collection[int]) -> tuple[Side, Side]:
    """Return the two sides of a contrast with these seeds: an arm, or the average of several."""
    return (
        _average(contrast.treatment, [evidence[arm].with_seeds(seeds).stacked() for arm in contrast.treatment_arms]),
        _average(contrast.control, [evidence[arm].with_seeds(seeds).stacked() for arm in contrast.control_arms]),
    )


def _average(name: str, arms: Sequence[ArmPredictions]) -> Side:
    return arms[0] if len(arms) == 1 else ArmAverage(name=name, members=tuple(arms))


def _judge(
    contrast: Contrast, evidence: Mapping[str, ArmEvidence], seeds: Collection[int], rule: RowRule, look: int
) -> ComparisonRow:
    one, other = _sides(contrast, evidence, seeds)
    seconds = [
        fmean(evidence[arm].with_seeds(seeds).device_seconds for arm in arms)
        for arms in (contrast.treatment_arms, contrast.control_arms)
    ]
    is_anytime = rule.intervals == "anytime"
    row = compare_arms(
        one,
        other,
        margin=rule.margin,
        alpha=rule.alpha,
        num_rows=rule.num_rows,
        cost_ratio=seconds[0] / seconds[1],
        look=look,
        num_looks=1 if is_anytime else len(rule.looks),
    )
    if not is_anytime:
        return row
    effect = compute_anytime_interval(one, other, row.confidence)
    verdict, materiality = compute_verdict(effect, rule.margin)
    return replace(
        row,
        effect=effect,
        verdict=verdict,
        materiality=materiality,
        settles=""
        if verdict is not Verdict.UNDECIDED
        else row.settles or "more seeds: intervals that hold at every look are wider",
        num_looks=len(rule.looks),
        intervals=rule.intervals,
    )


def complete_row(
    row: ComparisonRow,
    contrast: Contrast,
    evidence: Mapping[str, ArmEvidence],
    rule: RowRule,
    class_names: Sequence[str],
) -> ComparisonRow:
    """Return the row with its cross-check and its class-by-class differences."""
    one, other = _sides(contrast, evidence, _seeds_of_look(contrast, evidence, rule, row.look))
    return replace(
        row,
        bootstrap=compute_crossed_bootstrap(one, other, confidence=row.confidence).interval,
        class_differences=compute_class_differences(one, other, class_names),
    )


def complete_arm(
    arm: ArmFinding, evidence: ArmEvidence, class_names: Sequence[str], human_shares: NDArray[np.float64] | None
) -> ArmFinding:
    """Return the arm with its confused pairs and clusters, against people's confusions where they are known.

    `human_shares` are (N, K) by sample id.
    """
    stacked = evidence.stacked()
    pairs, clusters = find_clusters(stacked, class_names)
    human = None if human_shares is None else human_shares[stacked.sample_ids]
    pairs = compare_with_people(stacked, pairs, class_names, human, PAIR_CONFIDENCE)
    return replace(arm, confused_pairs=pairs, clusters=clusters)


def compute_search_arms(records: Sequence[TrialRecord], max_epochs: int) -> tuple[SearchArm, ...]:
    """Return each arm's trials by state, its share of the device-seconds, what stopping saved, and its best trial."""
    arms = sorted({r.config.arm for r in records})
    saved = compute_saved_device_seconds(records, max_epochs)
    total = sum(r.device_seconds for r in records)
    found = []
    for arm in arms:
        own = [r for r in records if r.config.arm == arm]
        spent = sum(r.device_seconds for r in own)
        best = _find_best(own, max_epochs)
        found.append(
            SearchArm(
                arm=arm,
                num_trials=len(own),
                num_completed=sum(r.state is TrialState.COMPLETE for r in own),
                num_pruned=sum(r.state is TrialState.PRUNED for r in own),
                num_failed=sum(r.state is TrialState.FAILED for r in own),
                device_seconds=spent,
                share=spent / total if total else 0.0,
                best_macro_f1=best.last_macro_f1 if best else None,
                best_trial_id=best.trial_id if best else "",
                saved_device_seconds=saved[arm],
                saved_fraction=saved[arm] / (spent + saved[arm]) if spent else 0.0,
            )
        )
    return tuple(found)


def _find_best(records: Sequence[TrialRecord], max_epochs: int) -> TrialRecord | None:
    """Return the trial with the highest last-epoch score among those that ran every epoch; of equals the first."""
    full = [r for r in records if ran_every_epoch(r, max_epochs)]
    return min(full, key=lambda r: (-(r.last_macro_f1 or 0.0), r.trial_id), default=None)


def compute_warnings(
    search: Sequence[SearchArm], records: Sequence[TrialRecord], extra: Sequence[str], *, shares_matter: bool
) -> tuple[str, ...]:
    """Return what a reader must know before trusting the numbers; unequal shares of device time only where they matter."""
    warnings = list(extra)
    equal = 1 / len(search) if search and shares_matter else 0.0
    warnings.extend(
        f"The arm {arm.arm} got {arm.share:.0%} of the search's device time; equal would be {equal:.0%}."
        for arm in search
        if arm.share < LOW_SHARE_FRACTION * equal
    )
    warnings.extend(
        f"Trial {r.stage}/{r.trial_id} failed: {r.reason.splitlines()[-1] if r.reason else 'no cause was noted'}"
        for r in records
        if r.state is TrialState.FAILED
    )
    warnings.extend(
        f"The configuration of {r.stage}/{r.trial_id} was changed after the study wrote it."
        for r in records
        if r.is_altered
    )
    return tuple(warnings)
