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

from analysis.report import search_figures
from analysis.report.figures import figure_to_png
from analysis.report.pages import PageSection, build_search_page
from analysis.report.sentences import describe_search_plot
from study.open_study import OpenStudy
from study.results.optuna_export import build_optuna_study, compute_importances, negated_value

SEARCH_PAGE = "search.html"
SCORE = "macro-F1"

_Studies = optuna.Study | list[optuna.Study]
_Tidy = Callable[[Figure, str], None]

# Optuna's plots of parameters compare trials: with one complete trial there is nothing to compare.
MIN_COMPLETE_TRIALS = 2
# Complete trials below which the importances of hyperparameters say nothing.
MIN_IMPORTANCE_TRIALS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlot:
    """One of Optuna's plots, static and interactive.

    Attributes:
        key: name among the report's figures.
        title: of the plot.
        function: name of Optuna's function, the same in its matplotlib and its plotly module.
        studies: its first argument, one study or several.
        tidy: corrects Optuna's layout, which cuts off or overlaps some texts.
        options: its other arguments.
    """

    key: str
    title: str
    function: str
    studies: _Studies
    tidy: _Tidy
    options: Mapping[str, Any]

    def draw_axes(self) -> None:
        """Draw the static plot on pyplot's current figure."""
        getattr(static, self.function)(self.studies, **self.options)

    def draw_page(self) -> Any:
        """Return the interactive plot."""
        return getattr(interactive, self.function)(self.studies, **self.options)


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
            PageSection(title=plot.title, caption=describe_search_plot(plot.key), html=_draw_html(plot))
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
                f"{arm.name}: parallel coordinates and slices need {MIN_COMPLETE_TRIALS} complete trials and importances "
                f"{MIN_IMPORTANCE_TRIALS}, but it has {num_complete}."
            )
        else:
            plots += _plot_arm(arm.name, own)
        if MIN_COMPLETE_TRIALS <= num_complete < MIN_IMPORTANCE_TRIALS:
            missing = MIN_IMPORTANCE_TRIALS - num_complete
            notes.append(
                f"{arm.name}: the importances of the hyperparameters need {missing} more complete trial"
                f"{'' if missing == 1 else 's'}."
            )
        elif num_complete >= MIN_IMPORTANCE_TRIALS:
            found, warned = compute_importances(own)
            notes += [f"{arm.name}: {text}" for text in warned]
            if found:
                importances[arm.name] = found
                plots.append(_plot_importances(arm.name, own))
        if num_complete:
            comparable.append(own)
    plots += _plot_whole(whole, comparable, notes)
    return SearchView(plots=tuple(plots), importances=importances, notes=tuple(notes))


def _plot(key: str, title: str, studies: _Studies, function: str, tidy: _Tidy, **options: Any) -> SearchPlot:
    return SearchPlot(key=key, title=title, studies=studies, function=function, tidy=tidy, options=options)


def _plot_arm(arm: str, study: optuna.Study) -> list[SearchPlot]:
    parallel = ("plot_parallel_coordinate", search_figures.tidy_parallel_coordinate)
    return [
        _plot(f"parallel_{arm}", f"{arm}: parallel coordinates", study, *parallel, target_name=SCORE),
        _plot(f"slice_{arm}", f"{arm}: slices", study, "plot_slice", search_figures.tidy_slice, target_name=SCORE),
    ]


def _plot_importances(arm: str, study: optuna.Study) -> SearchPlot:
    # The target of `compute_importances`, so that plot and table show the same numbers.
    with _quiet():
        options = {"evaluator": PedAnovaImportanceEvaluator(), "target": negated_value, "target_name": SCORE}
    title = f"{arm}: importance of the hyperparameters"
    return _plot(f"importance_{arm}", title, study, "plot_param_importances", search_figures.tidy_importance, **options)


def _plot_whole(whole: optuna.Study, comparable: list[optuna.Study], notes: list[str]) -> list[SearchPlot]:
    plots = []
    if comparable:
        title = "distribution of the complete trials' scores"
        plots.append(_plot("search_edf", title, comparable, "plot_edf", search_figures.tidy_edf, target_name=SCORE))
    else:
        notes.append("The distribution of scores needs a complete trial, but there is none.")
    if whole.get_trials(deepcopy=False):
        plots.append(
            _plot("search_timeline", "timeline of the search", whole, "plot_timeline", search_figures.tidy_timeline)
        )
    else:
        notes.append("The timeline needs a finished trial, but there is none.")
    return plots


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
    if plot.function == "plot_timeline":
        # An edge makes trials shorter than a second visible.
        for bars in figure.data:
            bars.marker.line = {"color": bars.marker.color, "width": 1}
    figure.update_layout(title=None, margin={"t": 30}, template="plotly_white")
    # A bar or a line may contain text from the user; plotly escapes it for its script.
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"plot-{plot.key}")
    return html


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings about Optuna's experimental functions and matplotlib's axes with a single value.

    Warnings about importances are collected in `compute_importances`.
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
