"""The comparison of a study: computed once by its analysis, and printed from there."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from analysis.evidence import comparison_rows
from analysis.statistics.bootstrap import CrossedBootstrap, compute_crossed_bootstrap
from study.commands import print_comparison
from study.open_study import OpenStudy
from study.results.findings import analyze
from study.spec.study_spec import AnalyzeSpec
from tests.study.searched import confirm, simulate
from trainables.data.images import ImageSet


def test_an_analyzed_study_prints_its_comparison_without_computing_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = simulate(tmp_path)
    confirm(study, read_test=True)
    spec = study.spec.model_copy(update={"analyze": AnalyzeSpec(num_panels=0, num_audit_images=0)})
    study = OpenStudy(store=study.store, spec=spec, book=study.book)
    calls = []

    def count(*sides: object, **options: float) -> CrossedBootstrap:
        calls.append(sides)
        return compute_crossed_bootstrap(*sides, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(comparison_rows, "compute_crossed_bootstrap", count)
    images, labels = np.zeros((0, 8, 8, 3), dtype=np.uint8), np.zeros(0, dtype=np.int64)
    findings = analyze(study, ImageSet(images=images, labels=labels, class_names=("cat", "dog"), source="none"))
    assert len(calls) == len(findings.rows) == 1
    printed = {}
    for is_analyzed in (True, False):
        output = io.StringIO()
        assert print_comparison(study, Console(file=output, width=100), Console(quiet=True), is_analyzed=is_analyzed)
        printed[is_analyzed] = output.getvalue()
        assert len(calls) == (1 if is_analyzed else 2)
    assert printed[True] == printed[False]
    assert "resnet50 vs resnet18" in printed[True]
