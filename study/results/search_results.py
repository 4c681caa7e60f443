"""What the search of a study gave: its arms, rungs, tuning curves and Optuna's view of it."""

from dataclasses import dataclass

from analysis.findings.search_findings import RungFinding, RungScores, SearchArm, TuningCurve
from analysis.search.rungs import compute_rung_finding, compute_rung_scores
from analysis.search.search_arms import compute_search_arms
from analysis.search.tuning_curves import compute_tuning_curves
from study.open_study import OpenStudy
from study.results.optuna_plots import SearchView, view_search
from study.scheduling.pruner import compute_rungs
from study.spec.starts import list_starts
from study.spec.study_spec import StudySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResults:
    """The search part of the findings, with the values that only its figures need.

    Attributes:
        arms: one per arm.
        rungs: epochs at which ASHA decides, by arm; empty where it is off.
        rung_scores: scores of the trials at each rung.
        rung_findings: one per arm and rung.
        tuning_curves: of arms with enough full trials.
        view: Optuna's plots, importances and notes.
    """

    arms: tuple[SearchArm, ...]
    rungs: dict[str, tuple[int, ...]]
    rung_scores: tuple[RungScores, ...]
    rung_findings: tuple[RungFinding, ...]
    tuning_curves: tuple[TuningCurve, ...]
    view: SearchView

    @property
    def rung_epochs(self) -> tuple[int, ...]:
        """The epochs at which ASHA decides in some arm, in increasing order."""
        return tuple(sorted({epoch for epochs in self.rungs.values() for epoch in epochs}))


def compute_search_results(study: OpenStudy) -> SearchResults:
    """Return the results of a study's search, from its records."""
    records, rungs = study.book.of_stage("search"), _find_rungs(study.spec)
    scores = compute_rung_scores(records, rungs)
    return SearchResults(
        arms=compute_search_arms(records),
        rungs=rungs,
        rung_scores=scores,
        rung_findings=tuple(map(compute_rung_finding, scores)),
        tuning_curves=compute_tuning_curves(records, is_independent=has_independent_trials(study.spec)),
        view=view_search(study),
    )


def has_independent_trials(spec: StudySpec) -> bool:
    """Return whether all trials of the search are drawn alike, and none depends on the results of others."""
    search = spec.search
    is_random = search.sampler == "random" and not search.asha.enabled and not spec.has_given_arms
    return is_random and not search.prior and not any(list_starts(spec, arm) for arm in spec.arms())


def _find_rungs(spec: StudySpec) -> dict[str, tuple[int, ...]]:
    asha = spec.search.asha
    if not asha.enabled or spec.has_given_arms:
        return {}
    return {
        arm.name: compute_rungs(
            first_rung=spec.first_rung(arm), max_epochs=spec.max_epochs(arm), reduction_factor=asha.reduction_factor
        )
        for arm in spec.arms()
    }
