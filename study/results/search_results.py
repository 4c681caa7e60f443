"""What the search of a study gave: its arms, rungs, tuning curves, and Optuna's own plots of it."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
import plotly.offline
from optuna import visualization
from optuna.importance import PedAnovaImportanceEvaluator

from analysis.report.pages import build_search_page
from analysis.search import search_findings
from analysis.search.render import describe_search_plot
from analysis.search.values import ParameterImportance, RungFinding, RungScores, SearchArm, TuningCurve
from search_spaces.errors import count_noun
from study.open_study import OpenStudy
from study.results.optuna_export import build_optuna_study, compute_importances, negated_value
from study.scheduling.search_director import compute_rungs
from study.spec.starts import list_starts
from study.spec.study_spec import StudySpec

SEARCH_PAGE = "search.html"
SCORE = "macro-F1"
TIMELINE = "search_timeline"

# Optuna's plots of parameters compare trials: with one complete trial there is nothing to compare.
MIN_COMPLETE_TRIALS = 2
# Complete trials below which the importances of hyperparameters say nothing.
MIN_IMPORTANCE_TRIALS = 10


@dataclass(frozen=True, slots=True)
class SearchPlot:
    """One of Optuna's plots.

    Attributes:
        key: its name, also that of its element in the page.
        title: of the plot.
        draw: returns the plot, a figure of plotly.
    """

    key: str
    title: str
    draw: Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchView:
    """Optuna's plots, importances and notes of a search.

    Attributes:
        plots: those for which the search has enough trials.
        importances: of the hyperparameters, arm by arm; an arm with too few complete trials is absent.
        notes: sentences about missing plots and inexact values.
    """

    plots: tuple[SearchPlot, ...]
    importances: tuple[ParameterImportance, ...]
    notes: tuple[str, ...]

    def build_page(self, study_name: str) -> str:
        """Return the interactive page with every plot; it contains plotly's script."""
        sections = [
            {"title": plot.title, "caption": describe_search_plot(plot.key), "html": _draw_html(plot)}
            for plot in self.plots
        ]
        return build_search_page(study_name, sections, self.notes, plotly.offline.get_plotlyjs())


def view_search(study: OpenStudy) -> SearchView:
    """Return Optuna's view of a study's search, arm by arm and as a whole."""
    records, arms = study.book.of_stage("search"), study.spec.arms()
    own_records = {arm: [r for r in records if r.config.arm == arm.name] for arm in arms}
    built = {arm: build_optuna_study(own, arm.space, study_name=arm.name) for arm, own in own_records.items()}
    whole = build_optuna_study(records, study.spec.search_space(), study_name=study.name)
    notes: list[str] = []
    plots: list[SearchPlot] = []
    importances: list[ParameterImportance] = []
    comparable: list[optuna.Study] = []
    for arm, own in built.items():
        num_complete = len(own.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))
        if num_complete < MIN_COMPLETE_TRIALS:
            notes.append(
                f"{arm.name}: parallel coordinates and slices need {MIN_COMPLETE_TRIALS} complete trials and importances "
                f"{MIN_IMPORTANCE_TRIALS}, but it has {num_complete}."
            )
        else:
            plots += _plot_arm(arm.name, own)
        if MIN_COMPLETE_TRIALS <= num_complete < MIN_IMPORTANCE_TRIALS:
            missing = MIN_IMPORTANCE_TRIALS - num_complete
            notes.append(
                f"{arm.name}: the importances of the hyperparameters need {count_noun(missing, 'more complete trial')}."
            )
        elif num_complete >= MIN_IMPORTANCE_TRIALS:
            found, warned = compute_importances(own)
            notes += [f"{arm.name}: {text}" for text in warned]
            if found:
                importances += [ParameterImportance(arm=arm.name, parameter=p, importance=i) for p, i in found.items()]
                plots.append(_plot_importances(arm.name, own))
        if num_complete:
            comparable.append(own)
    plots += _plot_whole(whole, comparable, notes)
    return SearchView(plots=tuple(plots), importances=tuple(importances), notes=tuple(notes))


def _plot_arm(arm: str, study: optuna.Study) -> list[SearchPlot]:
    parallel = partial(visualization.plot_parallel_coordinate, study, target_name=SCORE)
    slices = partial(visualization.plot_slice, study, target_name=SCORE)
    return [
        SearchPlot(f"parallel_{arm}", f"{arm}: parallel coordinates", parallel),
        SearchPlot(f"slice_{arm}", f"{arm}: slices", slices),
    ]


def _plot_importances(arm: str, study: optuna.Study) -> SearchPlot:
    # The target of `compute_importances`, so that plot and table show the same numbers.
    with _quiet():
        options: dict[str, Any] = {
            "evaluator": PedAnovaImportanceEvaluator(),
            "target": negated_value,
            "target_name": SCORE,
        }
    draw = partial(visualization.plot_param_importances, study, **options)
    return SearchPlot(f"importance_{arm}", f"{arm}: importance of the hyperparameters", draw)


def _plot_whole(whole: optuna.Study, comparable: list[optuna.Study], notes: list[str]) -> list[SearchPlot]:
    plots = []
    if comparable:
        draw = partial(visualization.plot_edf, comparable, target_name=SCORE)
        plots.append(SearchPlot("search_edf", "distribution of the complete trials' scores", draw))
    else:
        notes.append("The distribution of scores needs a complete trial, but there is none.")
    if whole.get_trials(deepcopy=False):
        plots.append(SearchPlot(TIMELINE, "timeline of the search", partial(visualization.plot_timeline, whole)))
    else:
        notes.append("The timeline needs a finished trial, but there is none.")
    return plots


def _draw_html(plot: SearchPlot) -> str:
    with _quiet():
        figure = plot.draw()
    if plot.key == TIMELINE:
        # An edge makes trials shorter than a second visible.
        for bars in figure.data:
            bars.marker.line = {"color": bars.marker.color, "width": 1}
    figure.update_layout(title=None, margin={"t": 30}, template="plotly_white")
    # A bar or a line may contain text from the user; plotly escapes it for its script.
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"plot-{plot.key}")
    return html


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings about Optuna's experimental functions and about axes with a single value.

    Warnings about importances are collected in `compute_importances`.
    """
    with warnings.catch_warnings():
        for category in (optuna.exceptions.ExperimentalWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResults:
    """The search part of the findings, with the values that only its figures need.

    Attributes:
        arms: one per arm.
        rung_epochs: at which ASHA decides in some arm, in increasing order; none where it is off.
        rung_scores: scores of the trials at each rung.
        rung_findings: one per arm and rung.
        tuning_curves: of arms with enough full trials.
        view: Optuna's plots, importances and notes.
    """

    arms: tuple[SearchArm, ...]
    rung_epochs: tuple[int, ...]
    rung_scores: tuple[RungScores, ...]
    rung_findings: tuple[RungFinding, ...]
    tuning_curves: tuple[TuningCurve, ...]
    view: SearchView


def compute_search_results(study: OpenStudy) -> SearchResults:
    """Return the results of a study's search, from its records."""
    records, rungs = study.book.of_stage("search"), _find_rungs(study.spec)
    scores = search_findings.compute_rung_scores(records, rungs)
    return SearchResults(
        arms=search_findings.compute_search_arms(records),
        rung_epochs=tuple(sorted({one.epoch for one in scores})),
        rung_scores=scores,
        rung_findings=tuple(map(search_findings.compute_rung_finding, scores)),
        tuning_curves=search_findings.compute_tuning_curves(records, is_independent=has_independent_trials(study.spec)),
        view=view_search(study),
    )


def has_independent_trials(spec: StudySpec) -> bool:
    """Return whether all trials of the search are drawn alike, and none depends on the results of others."""
    search = spec.search
    is_random = search.sampler == "random" and search.pruning == "none" and not spec.has_given_arms
    return is_random and not search.prior and not any(list_starts(spec, arm) for arm in spec.arms())


def _find_rungs(spec: StudySpec) -> dict[str, tuple[float, ...]]:
    if spec.search.pruning == "none" or spec.has_given_arms:
        return {}
    return {arm.name: compute_rungs(spec.search.asha) for arm in spec.arms()}
