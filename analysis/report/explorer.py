"""explore.html: the test images and trials of a study in tables that can be sorted, filtered and downloaded."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from analysis.formats.numbers import format_count
from analysis.report.galleries import COLUMNS, SHEET_SIZE, ThumbnailSheets
from analysis.report.rendering import embed_picture, render
from trainables.records.record import TrialRecord

# Smaller thumbnails are shown at twice their size.
SMALL_SIDE = 40
# Values of a hyperparameter that an axis of texts shows.
MAX_TEXTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorerInput:
    """What the page shows.

    Attributes:
        study: its name.
        class_names: K names.
        images: a table per arm, of `tabulate_images`, without runs that diverged; all have the same test images.
        models: a table per model of the arms, of `tabulate_models`, with a row for each row of the table of its arm.
        records: of the search.
        thumbnails: of the test images.
        panels: PNG of the heat maps by sample id.
        files: of the test images, by sample id; empty where images were not files.
    """

    study: str
    class_names: Sequence[str]
    images: Sequence[pd.DataFrame]
    models: Sequence[pd.DataFrame]
    records: Sequence[TrialRecord]
    thumbnails: ThumbnailSheets
    panels: Mapping[int, bytes]
    files: Mapping[int, str] = field(default_factory=dict)


def build_explorer(shown: ExplorerInput, plotly_js: str) -> str:
    """Return explore.html: a single file with its scripts, which needs no network.

    Args:
        shown: what the page shows.
        plotly_js: the source of plotly.js.
    """
    bundle, thumbnails = files("itables") / "html", shown.thumbnails
    zoom = 2 if max(thumbnails.width, thumbnails.height) < SMALL_SIDE else 1
    data = {"images": _arrange_images(shown), "trials": _arrange_trials(shown.records), "study": shown.study}
    return render(
        "explore.html.j2",
        study=shown.study,
        note=_describe_images(shown),
        sheets=[embed_picture(sheet) for sheet in thumbnails.sheets],
        tile={"width": zoom * thumbnails.width, "height": zoom * thumbnails.height, "columns": COLUMNS},
        # JSON that may stand inside of a script element.
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        plotly_js=plotly_js,
        datatables_js=(bundle / "dt_bundle.js").read_text(),
        datatables_css=(bundle / "dt_bundle.css").read_text(),
    )


def _describe_images(shown: ExplorerInput) -> str:
    number, of = len(shown.thumbnails.sample_ids), shown.thumbnails.num_test_images
    if number == of:
        return f"All {format_count(of)} images of the test split."
    return (
        f"{format_count(number)} of {format_count(of)} images of the test split: those in the report's galleries, and others "
        "drawn at random. `study.load(...).images()` has all."
    )


def _arrange_images(shown: ExplorerInput) -> dict[str, Any]:
    """Return the columns of the table of images, and the prediction of each model."""
    ids = shown.images[0]["sample_id"].to_numpy() if shown.images else np.zeros(0, dtype=np.int64)
    has_place = np.isin(ids, shown.thumbnails.sample_ids)
    number_of = {name: number for number, name in enumerate(shown.class_names)}
    shown_ids = ids[has_place]
    num_seeds = Counter(table.at[0, "arm"] for table in shown.models)

    def list_columns(table: pd.DataFrame, digits: int, *names: str) -> dict[str, list[Any]]:
        kept = table[has_place]
        numbers = {name: kept[name].round(digits).tolist() for name in names}
        return {"predicted": [number_of[name] for name in kept["predicted"]], **numbers}

    return {
        "ids": shown_ids.tolist(),
        "files": [shown.files[sample_id] for sample_id in shown_ids.tolist()] if shown.files else [],
        "places": np.searchsorted(shown.thumbnails.sample_ids, shown_ids).tolist(),
        "sheet_size": SHEET_SIZE,
        "columns": COLUMNS,
        "classes": list(shown.class_names),
        "labels": [number_of[name] for table in shown.images[:1] for name in table["label"][has_place]],
        "arms": [
            {
                "name": (arm := table.at[0, "arm"]),
                "num_seeds": num_seeds[arm],
                **list_columns(table, 4, "correct", "agreement", "confidence", "loss"),
            }
            for table in shown.images
        ],
        "models": [
            {
                "arm": table.at[0, "arm"],
                "seed": int(table["seed"].iloc[0]),
                **list_columns(table, 3, "confidence", "of_label"),
            }
            for table in shown.models
        ],
        "panels": {str(sample_id): embed_picture(png) for sample_id, png in shown.panels.items()},
    }


def _arrange_trials(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """Return the table of the search trials, their learning curves, and the axes of the parallel coordinates."""
    names = sorted({name for record in records for name in record.config.hyperparameters})
    rows = [
        [
            record.trial_id,
            record.config.arm,
            record.state.value,
            len(record.epochs),
            _finite(record.last_macro_f1),
            round(record.device_seconds, 1),
            *(record.config.hyperparameters.get(name) for name in names),
        ]
        for record in records
    ]
    curves = [[[e.epoch for e in r.epochs], [_finite(e.macro_f1) for e in r.epochs]] for r in records]
    head = ["trial", "arm", "state", "epochs", "macro-F1", "device-seconds", *names]
    axes = [_arrange_axis(name, [row[place] for row in rows]) for place, name in enumerate(head)]
    kept = [axis for axis, name in zip(axes, head, strict=True) if axis and name not in ("trial", "device-seconds")]
    return {"head": head, "rows": rows, "curves": curves, "axes": kept}


def _arrange_axis(name: str, values: Sequence[object]) -> dict[str, Any] | None:
    """Return an axis of numbers or of few texts, which a trial may lack; None where there is nothing to tell apart."""
    given = [value for value in values if value is not None]
    if len(set(map(str, given))) < 2:
        return None
    numbers = [value for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(given):
        is_log = min(numbers) > 0 and max(numbers) / min(numbers) >= 20
        return {"label": name, "values": list(values), "is_log": is_log, "texts": []}
    texts = sorted(set(map(str, given)))
    if len(texts) > MAX_TEXTS:
        return None
    places = [None if value is None else texts.index(str(value)) for value in values]
    return {"label": name, "values": places, "is_log": False, "texts": texts}


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 5)
