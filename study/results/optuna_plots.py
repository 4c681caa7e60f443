"""Optuna's own plots of a search: static ones for the report, and interactive ones on a page that needs no network."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import optuna
import plotly.offline
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna import visualization as interactive
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.visualization import matplotlib as static

from analysis.report.figures import figure_to_png
from analysis.report.pages import PageSection, build_search_page
from analysis.report.search_figures import (
    tidy_edf,
    tidy_importance,
    tidy_parallel_coordinate,
    tidy_slice,
    tidy_timeline,
)
from analysis.report.sentences import describe_search_plot
from search_spaces.arms import Arm
from study.open_study import OpenStudy
from study.results.optuna_export import assess_importances, build_optuna_study, negated_value

SEARCH_PAGE = "search.html"
SCORE = "macro-F1"

# Optuna's plots of parameters compare trials: with one complete trial there is nothing to compare.
MIN_COMPLETE_TRIALS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlot:
    """One of Optuna's plots, static and interactive.

    Attributes:
        key: name among the report's figures.
        title: of the plot.
        draw_axes: calls Optuna's matplotlib function for the study.
        tidy: corrects Optuna's layout, which cuts off or overlaps some texts.
        draw_page: calls Optuna's plotly function for the study.
    """

    key: str
    title: str
    draw_axes: Callable[[], Any]
    tidy: Callable[[Figure, str], None]
    draw_page: Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchView:
    """Optuna's plots, importances and notes of a search.

    Attributes:
        plots: those for which the search has enough trials.
        importances: arm -> hyperparameter -> importance; an arm with too few complete trials is absent.
        notes: sentences about missing plots and inexact values.
    """

    plots: tuple[SearchPlot, ...]
    importances: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...]

    def draw_pngs(self) -> dict[str, bytes]:
        """Return every plot as a PNG by key."""
        return {plot.key: _draw_png(plot) for plot in self.plots}

    def build_page(self, study_name: str) -> str:
        """Return the interactive page with every plot; it contains plotly's script."""
        sections = [
            PageSection(
                title=plot.title,
                caption=describe_search_plot(plot.key),
                html=_draw_html(plot),
            )
            for plot in self.plots
        ]
        return build_search_page(study_name, sections, self.notes, plotly.offline.get_plotlyjs())


def view_search(study: OpenStudy) -> SearchView:
    """Return Optuna's view of a study's search, arm by arm and as a whole."""
    records, arms = study.book.of_stage("search"), study.spec.arms()
    built = {
        arm: build_optuna_study([r for r in records if r.config.arm == arm.name], arm.space, study_name=arm.name)
        for arm in arms
    }
    whole = build_optuna_study(records, study.spec.search_space(), study_name=study.name)
    notes: list[str] = []
    plots: list[SearchPlot] = []
    importances: dict[str, Mapping[str, float]] = {}
    comparable: list[optuna.Study] = []
    for arm, own in built.items():
        num_complete = _count_complete(own)
        if num_complete < MIN_COMPLETE_TRIALS:
            notes.append(
                f"{arm.name}: parallel coordinates, slices and importances need {MIN_COMPLETE_TRIALS} complete trials, but "
                f"it has {num_complete}."
            )
        else:
            plots += [_plot_parallel(arm, own), _plot_slice(arm, own)]
            found, warned = assess_importances(own)
            notes += [f"{arm.name}: {text}" for text in warned]
            if found:
                importances[arm.name] = found
                plots.append(_plot_importance(arm, own))
        if num_complete:
            comparable.append(own)
    plots += _plot_whole(whole, comparable, notes)
    return SearchView(plots=tuple(plots), importances=importances, notes=tuple(notes))


def _plot_parallel(arm: Arm, study: optuna.Study) -> SearchPlot:
    return SearchPlot(
        key=f"parallel_{arm.name}",
        title=f"{arm.name}: parallel coordinates",
        draw_axes=lambda: static.plot_parallel_coordinate(study, target_name=SCORE),
        tidy=tidy_parallel_coordinate,
        draw_page=lambda: interactive.plot_parallel_coordinate(study, target_name=SCORE),
    )


def _plot_slice(arm: Arm, study: optuna.Study) -> SearchPlot:
    return SearchPlot(
        key=f"slice_{arm.name}",
        title=f"{arm.name}: slices",
        draw_axes=lambda: static.plot_slice(study, target_name=SCORE),
        tidy=tidy_slice,
        draw_page=lambda: interactive.plot_slice(study, target_name=SCORE),
    )


def _plot_importance(arm: Arm, study: optuna.Study) -> SearchPlot:
    def draw(plot: Callable[..., Any]) -> Any:
        # The target of `compute_importances`, so that plot and table show the same numbers.
        return plot(study, evaluator=PedAnovaImportanceEvaluator(), target=negated_value, target_name=SCORE)

    return SearchPlot(
        key=f"importance_{arm.name}",
        title=f"{arm.name}: importance of the hyperparameters",
        draw_axes=lambda: draw(static.plot_param_importances),
        tidy=tidy_importance,
        draw_page=lambda: draw(interactive.plot_param_importances),
    )


def _plot_whole(whole: optuna.Study, comparable: list[optuna.Study], notes: list[str]) -> list[SearchPlot]:
    plots = []
    if comparable:
        plots.append(
            SearchPlot(
                key="search_edf",
                title="distribution of the complete trials' scores",
                draw_axes=lambda: static.plot_edf(comparable, target_name=SCORE),
                tidy=tidy_edf,
                draw_page=lambda: interactive.plot_edf(comparable, target_name=SCORE),
            )
        )
    else:
        notes.append("The distribution of scores needs a complete trial, but there is none.")
    if whole.get_trials(deepcopy=False):
        plots.append(
            SearchPlot(
                key="search_timeline",
                title="timeline of the search",
                draw_axes=lambda: static.plot_timeline(whole),
                tidy=tidy_timeline,
                draw_page=lambda: _draw_edges(interactive.plot_timeline(whole)),
            )
        )
    else:
        notes.append("The timeline needs a finished trial, but there is none.")
    return plots


def _draw_edges(timeline: Any) -> Any:
    """Give plotly's bars an edge, so that trials shorter than a second are visible."""
    for bars in timeline.data:
        bars.marker.line = {"color": bars.marker.color, "width": 1}
    return timeline


def _count_complete(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


def _draw_png(plot: SearchPlot) -> bytes:
    with _private_pyplot(), _quiet():
        plot.draw_axes()
        figure = pyplot.gcf()
        try:
            plot.tidy(figure, plot.title)
            return figure_to_png(figure, dots_per_inch=100)
        finally:
            pyplot.close(figure)


def _draw_html(plot: SearchPlot) -> str:
    with _quiet():
        figure = plot.draw_page()
    figure.update_layout(title=None, margin={"t": 30}, template="plotly_white")
    # A bar or a line may contain text from the user; plotly escapes it for its script.
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"plot-{plot.key}")
    return html


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings about Optuna's experimental functions and matplotlib's axes with a single value.

    Warnings about importances are collected in `assess_importances`.
    """
    with warnings.catch_warnings():
        for category in (optuna.exceptions.ExperimentalWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def _private_pyplot() -> Iterator[None]:
    """Let Optuna draw through pyplot without a window, and restore pyplot's settings."""
    before = matplotlib.get_backend(auto_select=False)
    pyplot.switch_backend("agg")
    try:
        with matplotlib.rc_context({"figure.constrained_layout.use": True}):
            yield
    finally:
        if before is not None:
            pyplot.switch_backend(before)
