"""The variances and costs that a forecast rests on: stated, assumed, or measured.

They are measured in a study that was compared, or by a few seeds on the confirm split: of a pilot, trained in this process, or of
a study's ranking.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import fmean

from rich.console import Console

from analysis.comparison.paired_difference import compute_difference
from analysis.comparison.power import VarianceComponents
from analysis.comparison.rows import compute_rows
from analysis.comparison.values import ComparisonRow
from analysis.statistics.arm_predictions import ArmPredictions, Side, average_arms, stack_predictions
from analysis.statistics.crossed_interval import CrossedEstimate
from search_spaces.config import TrialConfig
from search_spaces.designs import Arm, Contrast
from search_spaces.errors import UserInputError, list_some
from study.confirmation.candidates import runs_of
from study.confirmation.evidence import load_evidence, require_plan, row_rule
from study.inputs.preparation import Prepared
from study.open_study import OpenStudy, load_study
from study.spec.sections import PlanSpec
from study.spec.study_spec import StudySpec
from study.state.paths import open_study
from study.state.record_book import open_trial_files
from trainables.devices import choose_device
from trainables.processes import prepare_to_train, share_threads
from trainables.records.record import TrialRecord, TrialState
from trainables.seeds import derive_seed
from trainables.training.predictions import Predictions
from trainables.training.trial_cost import make_run

# The confidence has no influence on the variances.
CONFIDENCE = 0.95
CONFIRM = "confirm"

MEASURES = "`study plan --pilot 3` measures them"

# Root mean squares of the components of eight studies with pretrained weights, and those of the demo; see docs/verdicts.md.
ASSUMED_PRETRAINED = PlanSpec(
    seed_sd_pp=1.1,
    image_sd_pp=38.0,
    seed_image_sd_pp=29.0,
    source=f"assumed from eight studies with pretrained weights, not measured here ({MEASURES})",
)
ASSUMED_UNTRAINED = PlanSpec(
    seed_sd_pp=4.4,
    image_sd_pp=16.0,
    seed_image_sd_pp=36.0,
    source=f"assumed from a study of the preset demo, without pretrained weights, not measured here ({MEASURES})",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a forecast rests on.

    Attributes:
        components: variances of the difference.
        source: where they come from, as a phrase.
        costs: device-seconds of a full trial by arm; None where they were not measured.
    """

    components: VarianceComponents
    source: str
    costs: Mapping[str, float] | None = None


def find_basis(spec: StudySpec, storage: str | None) -> Basis:
    """Return the variances of a study that has trained nothing, see `study.views.planning.describe_launch`.

    Where they are assumed although `search.warm_start` names a study, the reason is part of their source.

    What is assumed is the root mean square of each component over the studies in docs/verdicts.md, "Before a study". A row on S
    seeds and N test images then has the variance seeds / S + images / N + seeds_x_images / (S N).
    """
    if spec.plan is not None:
        return basis_of_section(spec.plan)
    assumed = basis_of_section(ASSUMED_UNTRAINED if spec.model.weights == "none" else ASSUMED_PRETRAINED)
    if spec.search.warm_start is None:
        return assumed
    try:
        return find_compared_basis(spec, spec.search.warm_start, storage)
    except UserInputError as error:
        return replace(assumed, source=f"{assumed.source}; search.warm_start gives none: {error}")


def basis_of_section(plan: PlanSpec) -> Basis:
    """Return what a [plan] section states."""
    seeds, images, both = ((sd / 100) ** 2 for sd in (plan.seed_sd_pp, plan.image_sd_pp, plan.seed_image_sd_pp))
    components = VarianceComponents(seeds=seeds, images=images, seeds_x_images=both, num_measured_seeds=plan.num_seeds)
    return Basis(components=components, source=plan.source)


def find_compared_basis(spec: StudySpec, like: str, storage: str | None) -> Basis:
    """Return the variances and costs of a study that has been compared; raise UserInputError if it has not."""
    study = load_study(open_study(like, storage))
    plan = require_plan(study)
    evidence, rule = load_evidence(study, plan), row_rule(plan)
    rows = list(filter(None, compute_rows([(contrast, evidence) for contrast in plan.rows], rule)))
    if not rows:
        raise UserInputError(f"the study {study.name!r} compares no arms; give --like a study with an A/B table")
    costs = measure_epoch_costs({arm: found.runs for arm, found in evidence.items()})
    names = {arm.name for arm in spec.arms()}
    other = "" if set(evidence) == names else f", which compares other arms ({list_some(evidence)})"
    unknown = ", ".join(name for name in evidence if name not in costs)
    return Basis(
        components=pool_variances([(row, row.num_seeds, row.num_images) for row in rows]),
        source=f"{study.store.root}, {rows[0].num_seeds} seeds and {rows[0].num_images:,} test images{other}"
        + (f"; the cost of {unknown} is not known, since no run of it finished" if unknown else ""),
        costs={arm.name: costs[arm.name] * spec.max_epochs(arm) for arm in spec.arms()}
        if set(costs) == names
        else None,
    )


def run_pilot(spec: StudySpec, prepared: Prepared, num_seeds: int, console: Console) -> Basis:
    """Train seeds of the middle configuration of every arm, and measure on the confirm split; the test split is not read.

    Args:
        spec: of the planned study.
        prepared: its data.
        num_seeds: two or more.
        console: receives one line per trial, with its time and the time left.
    """
    seeds = tuple(derive_seed(spec.seed, "pilot", i) % 2**31 for i in range(num_seeds))
    predictions: dict[str, dict[int, Predictions]] = {arm.name: {} for arm in spec.arms()}
    seconds: dict[str, list[float]] = {arm.name: [] for arm in spec.arms()}
    total = num_seeds * len(predictions)
    for seed in seeds:
        for arm in spec.arms():
            started = time.perf_counter()
            predictions[arm.name][seed] = _train(spec, arm, seed, prepared)
            seconds[arm.name].append(time.perf_counter() - started)
            done = sum(map(len, seconds.values()))
            left = sum(fmean(s or [max(seconds[arm.name])]) * (num_seeds - len(s)) for s in seconds.values())
            console.print(
                f"pilot trial {done} of {total}: {arm.name}, {seconds[arm.name][-1]:.0f} s; about {left / 60:.1f} min left",
                highlight=False,
            )
    return Basis(
        components=measure_components(spec.contrasts(), predictions),
        source=f"a pilot of {num_seeds} seeds, on the {len(prepared.splits.confirm):,} images of the confirm split",
        costs={arm: fmean(s) * spec.resources.count_devices(arm) for arm, s in seconds.items()},
    )


def _train(spec: StudySpec, arm: Arm, seed: int, prepared: Prepared) -> Predictions:
    cpu, gpu = (spec.resources.of_arm(kind, arm.name) for kind in ("cpu", "gpu"))
    config = TrialConfig(arm=arm.name, seed=seed, hyperparameters=arm.space.middle(), fixed=prepared.fixed)
    prepare_to_train(share_threads(cpu, config.whole("processes")))
    run = make_run(config, prepared.data, device=choose_device(spec.resources.device, gpu), weights=prepared.weights)
    with closing(run):
        while not run.is_finished:
            run.run_epoch()
        return run.predict(CONFIRM)


def find_ranked_basis(
    study: OpenStudy, chosen: Mapping[str, Sequence[TrialRecord]], seeds: Sequence[int]
) -> Basis | None:
    """Return what the trials that ranked the candidates say; None where no two of their seeds are complete in every arm.

    The i-th candidates of the arms are compared for each i that every arm has, and the variances are averaged.

    Args:
        study: whose candidates were ranked.
        chosen: candidates by arm, the best of the search first.
        seeds: of the ranking.
    """
    pairs = (dict(zip(chosen, sources, strict=True)) for sources in zip(*chosen.values(), strict=False))
    ranked = list(filter(None, (_find_ranked(study, candidates, seeds) for candidates in pairs)))
    if not ranked or not study.spec.contrasts():
        return None
    components = [measure_components(study.spec.contrasts(), _read_confirm(study, trials)) for trials in ranked]
    freedom = sum((found.num_measured_seeds or 1) - 1 for found in components)
    costs = measure_epoch_costs({arm: [r for trials in ranked for r in trials[arm]] for arm in chosen})
    return Basis(
        components=replace(VarianceComponents.mean(components), num_measured_seeds=1 + freedom),
        source=f"the ranking, {len(ranked)} of each arm's candidates on the {components[0].num_measured_images:,} images of the "
        "confirm split",
        costs={arm.name: costs[arm.name] * study.spec.max_epochs(arm) for arm in study.spec.arms()},
    )


def _find_ranked(
    study: OpenStudy, candidates: Mapping[str, TrialRecord], seeds: Sequence[int]
) -> dict[str, list[TrialRecord]]:
    """Return the complete ranking trials of one candidate per arm, of the seeds that all of them have; none below two."""
    by_arm = {
        arm: {r.config.seed: r for r in runs_of(study.book, source) if CONFIRM in r.predictions}
        for arm, source in candidates.items()
    }
    common = [seed for seed in seeds if all(seed in runs for runs in by_arm.values())]
    return {arm: [runs[seed] for seed in common] for arm, runs in by_arm.items()} if len(common) > 1 else {}


def _read_confirm(study: OpenStudy, trials: Mapping[str, Sequence[TrialRecord]]) -> dict[str, dict[int, Predictions]]:
    return {
        arm: {r.config.seed: open_trial_files(study.store, r).read_predictions(CONFIRM, r.digests) for r in runs}
        for arm, runs in trials.items()
    }


def measure_epoch_costs(trials: Mapping[str, Sequence[TrialRecord]]) -> dict[str, float]:
    """Return the mean device-seconds of an epoch of each arm's complete trials, without the arms that have none."""
    return {
        arm: fmean(complete)
        for arm, records in trials.items()
        if (complete := [r.device_seconds / len(r.epochs) for r in records if r.state is TrialState.COMPLETE])
    }


def measure_components(
    contrasts: Sequence[Contrast], predictions: Mapping[str, Mapping[int, Predictions]]
) -> VarianceComponents:
    """Return the mean variances of the rows of trained arms.

    Args:
        contrasts: the rows.
        predictions: by arm and seed, of the same seeds and images for every arm.
    """
    arms = {name: stack_predictions(name, by_seed) for name, by_seed in predictions.items()}
    found = [
        compute_difference(_side(c.treatment_arms, arms, c.scale), _side(c.control_arms, arms, c.scale), CONFIDENCE)
        for c in contrasts
    ]
    measured = next(iter(arms.values()))
    return pool_variances([(difference, len(measured.seeds), len(measured.labels)) for difference in found])


def pool_variances(measured: Iterable[tuple[ComparisonRow | CrossedEstimate, int, int]]) -> VarianceComponents:
    """Return the mean variances of rows of one study; each row comes with its numbers of seeds and of test images."""
    return VarianceComponents.mean(
        [
            VarianceComponents.from_estimates(
                row.seed_variance, row.image_variance, row.seed_image_variance, num_seeds=seeds, num_images=images
            )
            for row, seeds, images in measured
            if row.seed_variance is not None and row.seed_image_variance is not None
        ]
    )


def _side(names: Sequence[str], arms: dict[str, ArmPredictions], scale: float) -> Side:
    members = tuple(arms[name] for name in names)
    return members[0] if len(members) == 1 and scale == 1 else average_arms(" + ".join(names), members, scale)
