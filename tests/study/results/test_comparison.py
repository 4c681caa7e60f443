"""The comparison of a study: its analysis computes it once, and the findings contain it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.arms.values import ArmScores
from analysis.comparison.other_intervals import compute_crossed_bootstrap
from analysis.statistics.interval import Interval
from study.open_study import OpenStudy
from study.results.comparison import compute_comparison, find_class_groups
from study.results.findings import load_findings
from study.spec.sections import AnalyzeSpec
from study.state import paths
from study.state.sealed_files import write_sealed_json
from tests.study.searched import analyze_here, confirm, simulate
from trainables.data.images import ImageSet
from trainables.data.sources.labeled_files import load_descriptions


def test_analysis_computes_the_comparison_once_and_the_findings_contain_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = simulate(tmp_path)
    confirm(study, read_test=True)
    spec = study.spec.model_copy(update={"analyze": AnalyzeSpec(num_panels=0, num_audit_images=0)})
    study = OpenStudy(store=study.store, spec=spec, book=study.book)
    calls = []

    def count(*sides: object, **options: float) -> Interval:
        calls.append(sides)
        return compute_crossed_bootstrap(*sides, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("analysis.comparison.other_intervals.compute_crossed_bootstrap", count)
    images, labels = np.zeros((4, 8, 8, 3), dtype=np.uint8), np.zeros(4, dtype=np.int64)
    analyze_here(study, ImageSet(images=images, labels=labels, class_names=("cat", "dog"), source="none"))
    assert len(calls) == 1
    findings, comparison = load_findings(study), compute_comparison(study)
    assert findings.rows == comparison.rows
    assert len(findings.rows) == 1
    table = pd.read_csv(tmp_path / paths.SIDE_METRICS_CSV)
    assert table["difference"].tolist() == [m.difference.estimate for m in findings.rows[0].side_metrics]
    scores = [{name: getattr(arm, name) for name in ArmScores.__dataclass_fields__} for arm in findings.arms]
    assert scores == [vars(arm) for arm in comparison.arms.values()]


def test_metrics_beside_macro_f1_are_computed_on_the_groups_of_the_analysis_or_of_the_data_set(tmp_path: Path) -> None:
    study = simulate(tmp_path)
    confirm(study, read_test=True)

    def change(class_groups: dict[str, list[str]] | None, **groups: tuple[str, ...]) -> OpenStudy:
        data = study.spec.data.model_copy(update={"options": {"class_groups": class_groups} if class_groups else {}})
        spec = study.spec.model_copy(update={"data": data, "analyze": AnalyzeSpec(groups=groups)})
        return OpenStudy(store=study.store, spec=spec, book=study.book)

    furry = {"furry": ["cat", "dog"]}
    assert find_class_groups(change(None)) == {}
    assert find_class_groups(change(furry, barks=("dog",))) == {"barks": ("dog",)}
    (row,) = compute_comparison(change(furry)).rows
    assert {m.group for m in row.side_metrics} == {"", "furry"}
    names = load_descriptions()["cifar10"].class_names
    write_sealed_json(study.store, paths.PASSPORT, {"data": {"class_names": list(names)}})
    assert set(find_class_groups(change(None))) == {"rigid", "deformable"}
