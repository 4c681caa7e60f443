"""What a round of interventions would train and cost, from the records of the parent; and what fits a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean

from analysis.comparison.paired_difference import MAX_SEEDS, POWER, compute_difference
from analysis.comparison.power import PlannedTest, VarianceComponents, forecast_noninferiority
from analysis.formats.numbers import format_seconds
from analysis.interventions.recommendation import find_lead, share_noninferior_levels
from analysis.interventions.values import StatedInterventions
from analysis.report.study_findings import Findings
from analysis.statistics.arm_predictions import ArmPredictions
from search_spaces.config import Value
from search_spaces.designs import make_factorial_runs
from search_spaces.errors import UserInputError, count_noun
from study.confirmation.evidence import load_evidence, require_plan
from study.interventions.diagnosing import complete_configuration, diagnose_from_findings
from study.interventions.stating import ProposedIntervention, Round, propose_interventions
from study.open_study import OpenStudy
from study.spec.study_spec import StudySpec
from trainables.records.record import TrialRecord

# The setting of interventions that cost less than an epoch: passes over a part of the images, and a regression.
REFIT = "head_refit"
# Of two runs after each other there are two pairs at least.
MIN_SEEDS = 3
# The confidence has no influence on the variances.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCost:
    """The cost of a round.

    Attributes:
        num_trials: of the control and all arms, to the first look.
        first_seconds: device-seconds to the first look.
        last_seconds: device-seconds if every arm needs the last look.
    """

    num_trials: int
    first_seconds: float
    last_seconds: float

    def describe(self) -> str:
        """Return the cost in words."""
        first, last = format_seconds(self.first_seconds), format_seconds(self.last_seconds)
        more = "" if last == first else f", at most {last} to the last look"
        return f"{count_noun(self.num_trials, 'trial')}, about {first} of device time{more}"


def forecast_cost(
    study: OpenStudy,
    source: TrialRecord,
    proposals: Sequence[ProposedIntervention],
    looks: Sequence[int],
    *,
    is_factorial: bool = False,
) -> RoundCost:
    """Return the cost of the control and the proposals, or of the runs of a factorial design: one trial each, and one per seed.

    The cost of an epoch is that of the winner's confirmation trials or, with another backbone, of confirmation trials that have
    it, else of search trials that have it, else of all confirmation trials.

    Args:
        study: the parent.
        source: the search trial of the winner.
        proposals: the interventions.
        looks: numbers of paired seeds, increasing.
        is_factorial: whether they are the factors of a factorial design.
    """
    changes = {proposal.intervention.name: proposal.changes for proposal in proposals}
    runs = make_factorial_runs(list(changes)).values() if is_factorial else [(), *((name,) for name in changes)]
    seconds = sum(_forecast_trial(study, source, *(changes[name] for name in run)) for run in runs)
    first, last = looks[0], looks[-1]
    return RoundCost(
        num_trials=len(runs) * (1 + first), first_seconds=(1 + first) * seconds, last_seconds=(1 + last) * seconds
    )


def forecast_arms(study: OpenStudy, source: TrialRecord, proposals: Sequence[ProposedIntervention]) -> dict[str, float]:
    """Return the device-seconds of a trial of each intervention alone, by its name; see `forecast_cost`."""
    return {found.intervention.name: _forecast_trial(study, source, found.changes) for found in proposals}


def check_round_cost(
    planned: Round, proposals: Sequence[ProposedIntervention], device_seconds: float | None
) -> RoundCost:
    """Return the cost of a round, see `forecast_cost`.

    Raises:
        UserInputError: with the interventions that fit, if the last look would cost more than a budget of `device_seconds`.
    """
    study, source, looks = planned.parent, planned.choosing.source, planned.looks
    cost = forecast_cost(study, source, proposals, looks, is_factorial=planned.is_factorial)
    if device_seconds is None or cost.last_seconds <= device_seconds:
        return cost
    fitting: list[ProposedIntervention] = []
    for proposal in proposals:
        if forecast_cost(study, source, [*fitting, proposal], looks).last_seconds <= device_seconds:
            fitting.append(proposal)
    advice = "none of them fits; give a larger budget"
    if fitting:
        names = " ".join(f"--only {proposal.intervention.name}" for proposal in fitting)
        advice = f"these would fit{' one at a time, without --design' if planned.is_factorial else ''}: {names}"
    raise UserInputError(
        f"{len(proposals)} interventions and the control need up to {cost.last_seconds:.0f} device-seconds, but --device-seconds "
        f"is {device_seconds:g}; {advice}"
    )


def describe_reach(parent: OpenStudy, spec: StudySpec, stated: StatedInterventions) -> str:
    """Return a sentence on what a round can recommend: with which chance it excludes a loss of macro-F1, and with which seeds.

    Args:
        parent: compared.
        spec: of the round.
        stated: what its interventions state.
    """
    confirm, tried, winner = spec.confirm, stated.interventions, stated.source_arm
    start = (
        "an intervention that is BETTER on its target alone is recommended if macro-F1 certainly falls by less than "
        f"{100 * confirm.margin:.2g} pp"
    )
    evidence = load_evidence(parent, require_plan(parent))[winner].finished()
    if len(evidence.seeds) < MIN_SEEDS:
        return f"{start}; the chance of that is not known, since {winner} has fewer than {MIN_SEEDS} runs"
    components = _measure_two_runs(evidence.stacked())
    levels, lead, parts = share_noninferior_levels(tried, 2 * confirm.alpha), find_lead(tried), []
    for level in sorted(set(levels.values()), reverse=True):
        test = PlannedTest(
            looks=tuple(confirm.looks),
            num_images=stated.num_judging,
            margin=confirm.margin,
            alpha=2 * level,
            num_rows=1,
            num_sharing=len(tried) if confirm.intervals == "moderated" else 1,
        )
        chance, needed = forecast_noninferiority(components, test)
        who = f" for {lead}" if lead and levels[lead] == level else " for each other one" if lead else " for each"
        enough = f"{needed} seeds" if needed else f"more than {MAX_SEEDS} seeds"
        parts.append(f"{100 * chance:.0f} %{who} ({enough} for {100 * POWER:.0f} %)")
    return (
        f"{start}: where it stays as it is, {confirm.num_seeds} seeds show that with a chance of {' and '.join(parts)}, if runs "
        f"differ as those of {winner} do; --only tries fewer, --seeds takes more"
    )


def _measure_two_runs(arm: ArmPredictions) -> VarianceComponents:
    """Return the variances of the difference of two runs of one arm, from each run and the next one."""
    pairs = len(arm.seeds) - 1
    first, second = (
        replace(arm, seeds=arm.seeds[:-1], predicted=arm.predicted[shift : shift + pairs]) for shift in (0, 1)
    )
    found = compute_difference(second, first, CONFIDENCE)
    return VarianceComponents.from_estimates(
        found.seed_variance,
        found.image_variance,
        found.seed_image_variance,
        num_seeds=pairs,
        num_images=len(arm.labels),
    )


def describe_next_round(study: OpenStudy, findings: Findings, native_size: int) -> str:
    """Return a line about what `study intervene` would try, and its cost.

    Args:
        study: analyzed.
        findings: of the study.
        native_size: side of its images in pixels.
    """
    try:
        proposals, _ = propose_interventions(diagnose_from_findings(study, findings, native_size))
    except UserInputError as error:
        return f"study intervene cannot be forecast: {error}"
    if not proposals:
        return "study intervene has nothing to try: no classes are confused, and no audit fails"
    winner = max(findings.arms, key=lambda arm: arm.test_macro_f1.estimate)
    cost = forecast_cost(study, study.book.get("search", winner.trial_id), proposals, study.spec.confirm.looks)
    names = ", ".join(proposal.intervention.name for proposal in proposals)
    return f"next: study intervene {study.store.argument} would try {names}: {cost.describe()}"


def _forecast_trial(study: OpenStudy, source: TrialRecord, *changes: Mapping[str, Value]) -> float:
    """Return the device-seconds of a trial of the winner with these changes."""
    own, config = source.config["backbone"], complete_configuration(source.config)
    for change in changes:
        config |= change
    backbone = config["backbone"]
    confirmed = study.book.of_stage("confirmation")
    candidates = [
        study.book.with_configuration_of(source, "confirmation") if backbone == own else (),
        [record for record in confirmed if record.config.get("backbone", "") == backbone],
        [record for record in study.book.of_stage("search") if record.config.get("backbone", "") == backbone],
        confirmed,
    ]
    for records in candidates:
        costs = [r.device_seconds / len(r.epochs) for r in records if r.epochs and r.device_seconds > 0]
        if costs:
            # A head alone is fitted on the network of the control with the same seed.
            num_epochs = 1 if {*chain(*changes)} == {REFIT} else config["max_epochs"]
            return fmean(costs) * float(num_epochs)
    return 0.0
