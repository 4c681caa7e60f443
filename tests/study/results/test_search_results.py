"""Optuna's plots of a search: of the right trials, and only where there is data."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import plotly.graph_objects as go
import pytest

from analysis.report.study_findings import Findings
from study.open_study import OpenStudy
from study.results import search_results as optuna_plots
from study.results.optuna_export import build_optuna_study, build_search_studies, compute_importances
from study.results.report import write_report
from study.results.search_results import SearchView, _quiet, view_search
from study.results.stored_findings import load_findings
from study.spec.sections import AnalyzeSpec
from study.state import paths
from study.state.paths import ReportFormat
from tests.built_values import BASE
from tests.study.searched import ARMS, STATES, analyze_here, confirm, simulate
from trainables.data.images import ImageSet
from trainables.records.record import TrialState, best_trials

OPTUNA = int(optuna.__version__.split(".")[0])


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return simulate(tmp_path_factory.mktemp("searched"))


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importances of few trials, which say little, are drawn here: the searches are small."""
    monkeypatch.setattr(optuna_plots, "MIN_IMPORTANCE_TRIALS", 2)


def drawn(view: SearchView, key: str) -> go.Figure:
    with _quiet():
        return next(plot for plot in view.plots if plot.key == key).draw()


def importances_of(found: SearchView | Findings, arm: str) -> dict[str, float]:
    return {i.parameter: i.importance for i in found.importances if i.arm == arm}


def test_every_arm_and_the_search_have_their_plots(searched: OpenStudy) -> None:
    keys = [plot.key for plot in view_search(searched).plots]
    assert sorted(keys) == sorted(
        [f"{kind}_{arm}" for arm in ARMS for kind in ("parallel", "slice", "importance")]
        + ["search_edf", "search_timeline"]
    )


def test_importances_of_too_few_complete_trials_are_not_given(
    searched: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = Counter(r.config.arm for r in searched.book if r.state is TrialState.COMPLETE)
    assert all(complete[arm] >= 2 for arm in ARMS)
    fewest = max(complete.values()) + 1
    monkeypatch.setattr(optuna_plots, "MIN_IMPORTANCE_TRIALS", fewest)
    view = view_search(searched)
    assert view.importances == ()
    assert not any(plot.key.startswith("importance") for plot in view.plots)
    for arm in ARMS:
        missing = fewest - complete[arm]
        ending = "" if missing == 1 else "s"
        assert (
            f"{arm}: the importances of the hyperparameters need {missing} more complete trial{ending}." in view.notes
        )


def test_pruned_and_failed_trials_are_drawn_as_such(searched: OpenStudy) -> None:
    timeline = drawn(view_search(searched), "search_timeline")
    counts = {bar.name: len(bar.y) for bar in timeline.data}
    assert counts == dict(Counter(STATES[r.state] for r in searched.book.of_stage("search")))
    assert set(counts) == {"COMPLETE", "PRUNED", "FAIL"}


def test_plots_of_parameters_are_of_complete_trials(searched: OpenStudy) -> None:
    view = view_search(searched)
    for arm in ARMS:
        num_complete = sum(r.config.arm == arm and r.state is TrialState.COMPLETE for r in searched.book)
        (slices,) = {len(trace.x) for trace in drawn(view, f"slice_{arm}").data if trace.xaxis == "x"}
        assert slices == num_complete
        if OPTUNA >= 5:  # Optuna 4 leaves out trials without some parameter.
            lines = [t for t in drawn(view, f"parallel_{arm}").data if t.mode == "lines"]
            assert len(lines) == num_complete
    assert [trace.name for trace in drawn(view, "search_edf").data] == list(ARMS)


def test_importances_of_view_plot_and_database_are_equal(searched: OpenStudy) -> None:
    view, studies = view_search(searched), build_search_studies(searched)
    for arm in ARMS:
        (bars,) = drawn(view, f"importance_{arm}").data
        assert importances_of(view, arm) == compute_importances(studies[f"simulated/{arm}"])[0]
        assert importances_of(view, arm) == pytest.approx(dict(zip(bars.y, bars.x, strict=True)))


def test_the_page_has_every_plot_and_needs_no_network(searched: OpenStudy) -> None:
    view = view_search(searched)
    page = view.build_page("simulated")
    assert all(page.count(f'id="plot-{plot.key}"') == 1 for plot in view.plots)
    assert len(re.findall(r"plotly\.js v\d", page)) == 1
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert "default-src 'none'" in page


def test_a_search_with_one_full_trial_names_the_missing_plots(tmp_path: Path) -> None:
    study = simulate(tmp_path, max_events=9)
    num_complete = Counter(r.config.arm for r in study.book if r.state is TrialState.COMPLETE)
    assert sum(num_complete.values()) == 1
    view = view_search(study)
    assert [plot.key for plot in view.plots] == ["search_edf", "search_timeline"]
    assert view.importances == ()
    assert len(view.notes) == 2
    for arm, note in zip(ARMS, view.notes, strict=True):
        assert note.startswith(arm)
        assert f"but it has {num_complete[arm]}" in note


def test_a_search_without_finished_trials_has_notes_and_no_plot(tmp_path: Path) -> None:
    view = view_search(simulate(tmp_path, max_events=1))
    assert view.plots == ()
    assert len(view.notes) == 4
    assert view.notes[-1] in view.build_page("simulated")


@pytest.mark.skipif(
    int(optuna.__version__.split(".")[0]) < 5, reason="Optuna 4 has no importances of conditional parameters"
)
def test_warnings_about_importances_are_noted(searched: OpenStudy) -> None:
    """One trial with a conditional parameter and one without are enough for an estimate, but not for an accurate one."""
    complete = [r for r in searched.book if r.state is TrialState.COMPLETE]
    by_presence = {"class_weight_strength" in r.config.hyperparameters: r for r in complete}
    assert set(by_presence) == {True, False}
    importances, notes = compute_importances(
        build_optuna_study(list(by_presence.values()), searched.spec.search_space())
    )
    assert importances is not None
    assert any("class_weight_strength" in note and "may be inaccurate" in note for note in notes)


def test_findings_and_report_describe_the_search(tmp_path: Path) -> None:
    study = simulate(tmp_path)
    confirm(study, read_test=True)
    study = OpenStudy(
        store=study.store,
        spec=study.spec.model_copy(update={"analyze": AnalyzeSpec(num_panels=0, num_audit_images=0)}),
        book=study.book,
    )
    # Thumbnails alone need images.
    images, labels = np.zeros((4, 8, 8, 3), dtype=np.uint8), np.zeros(4, dtype=np.int64)
    findings = analyze_here(study, ImageSet(images=images, labels=labels, class_names=("cat", "dog"), source="none"))
    assert load_findings(study) == findings
    view = view_search(study)
    for arm in findings.search:
        assert arm.best_trial_id == best_trials(study.book.of_stage("search"), arm.arm)[0].trial_id
        assert importances_of(findings, arm.arm) == pytest.approx(importances_of(view, arm.arm))
        assert (arm.saved_fraction > 0) == (arm.num_pruned > 0)
    assert [(r.arm, r.epoch) for r in findings.rung_findings] == [(arm, epoch) for arm in ARMS for epoch in (3, 4)]
    for arm in findings.search:
        assert sum(r.num_stopped for r in findings.rung_findings if r.arm == arm.arm) == arm.num_pruned
    assert "rungs" in findings.figures
    assert study.store.read_text(findings.search_page) == view.build_page("simulated")
    html, markdown, explorer = (study.store.read_text(name) for name in write_report(study))
    assert 'href="search.html"' in html
    assert html.count("data:image/png;base64,") + html.count("data:image/svg+xml;base64,") == len(findings.figures)
    assert html.count("data:image/svg+xml;base64,") == html.count('<img class="drawing"') > 0
    assert markdown.count("](findings/figures/") == len(findings.figures)
    assert 'href="explore.html"' in html
    assert "All 4 images of the test split." in explorer
    assert explorer.count("url(data:image/webp;base64,") == 1


def test_a_report_is_written_in_the_formats_that_are_asked_for(tmp_path: Path) -> None:
    study = simulate(tmp_path)
    confirm(study, read_test=True)
    spec = study.spec.model_copy(update={"analyze": AnalyzeSpec(num_panels=0, num_audit_images=0)})
    study = OpenStudy(store=study.store, spec=spec, book=study.book)
    images, labels = np.zeros((4, 8, 8, 3), dtype=np.uint8), np.zeros(4, dtype=np.int64)
    analyze_here(study, ImageSet(images=images, labels=labels, class_names=("cat", "dog"), source="none"))
    assert write_report(study, formats=[ReportFormat.HTML]) == (paths.REPORT_HTML,)
    assert not study.store.exists(paths.REPORT_MARKDOWN)
    assert not study.store.exists(paths.EXPLORE_HTML)
    assert paths.EXPLORE_HTML not in study.store.read_text(paths.REPORT_HTML)
    assert write_report(study, formats=list(ReportFormat)[::-1]) == tuple(kind.file for kind in ReportFormat)
    assert study.store.exists(paths.EXPLORE_HTML)


@pytest.mark.parametrize("num_free", [1, 2])
def test_a_space_of_one_or_two_hyperparameters_can_be_drawn(tmp_path: Path, num_free: int) -> None:
    free = {"backbone", *(("max_lr",) if num_free == 1 else ("max_lr", "backbone_lr_ratio"))}
    fixed = {name: value for name, value in BASE.items() if name not in free}
    view = view_search(simulate(tmp_path, num_trials=8, fixed=fixed))
    assert {len(importances_of(view, arm)) for arm in {i.arm for i in view.importances}} == {num_free}
    assert view.build_page("simulated")
