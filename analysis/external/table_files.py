"""Tables of predictions in parquet or csv files: wide columns, one per class, or one column of lists."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from analysis.external.raw_predictions import NAMES, SCORES, RawPredictions, find_accepted_name
from search_spaces.errors import UserInputError, list_some

# Names of columns of texts that are taken for the images' ids where there is no other one and they differ from image to image.
IMAGE_COLUMNS = ("file_name", "filename", "file", "path", "image", "image_path", "id")
PREFIXES = {"probabilities": ("p_", "prob_", "probability_"), "logits": ("logit_",)}


def read_table_file(path: Path) -> RawPredictions:
    """Return the predictions of a parquet or csv file with one row per arm, seed and image.

    The scores are a column of lists, or columns with a common prefix and the number or name of a class after it, or columns named
    like the classes; the last are probabilities.

    Args:
        path: of a file that ends in .csv, or of a parquet file.

    Raises:
        UserInputError: if the file cannot be read.
    """
    try:
        # "None" and "NA" are names of arms and classes; an empty cell is none.
        is_csv = path.suffix.lower() == ".csv"
        table = pd.read_csv(path, keep_default_na=False, na_values=[""]) if is_csv else pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException, UnicodeDecodeError) as error:
        kind = "csv" if path.suffix.lower() == ".csv" else "parquet"
        raise UserInputError(f"{path} is not a readable {kind} file: {str(error).splitlines()[0]}") from None
    table.columns = pd.Index([str(name) for name in table.columns])
    raw = RawPredictions(path=path)
    if table.empty:
        raw.problems.append("it has no rows")
        return raw
    columns = {key: find_accepted_name(key, table.columns) for key in NAMES}

    def values(key: str) -> NDArray[Any] | None:
        name = columns[key]
        return None if name is None else _plain(table[name])

    raw.labels, raw.arms, raw.seeds = values("label"), values("arm"), values("seed")
    raw.sample_ids, raw.predicted = values("sample_id"), values("predicted")
    for name in SCORES:
        if columns[name] is not None:
            raw.kind, raw.scores = name, _stack_lists(table[str(columns[name])], name, raw.problems)
            break
    else:
        _read_wide(table, raw)
    raw.require(table.columns)
    if raw.sample_ids is None and (named := _find_image_names(table, columns)):
        known = next((name for name in named if name.lower() in IMAGE_COLUMNS), None)
        if known is None:
            raw.unread_names = named[0]
        else:
            raw.sample_ids = _plain(table[known])
    return raw


def _find_image_names(table: pd.DataFrame, columns: Mapping[str, str | None]) -> list[str]:
    """Return the columns of texts that are not read and differ from image to image: without them, images are paired by place."""
    grouping = [name for key in ("arm", "seed") if (name := columns[key]) is not None]
    num_models = len(table[grouping].drop_duplicates()) if grouping else 1
    unread = [name for name in table.columns if name not in columns.values() and not _has_numbers(table[name])]
    # A column of lists cannot be counted.
    return [
        n
        for n in unread
        if all(isinstance(v, str) for v in table[n]) and table[n].nunique() * num_models >= len(table) > 1
    ]


def _plain(column: "pd.Series[Any]") -> NDArray[Any]:
    """Return the values of a column; texts and categories as objects."""
    if _has_numbers(column) and not column.isna().any():
        return np.asarray(column.to_numpy())
    return np.array(column.astype(object).tolist(), dtype=object)


def _has_numbers(column: "pd.Series[Any]") -> bool:
    return bool(pd.api.types.is_numeric_dtype(column))


def _stack_lists(column: "pd.Series[Any]", kind: str, problems: list[str]) -> NDArray[np.float64] | None:
    lengths = sorted({len(row) if isinstance(row, np.ndarray | list | tuple) else 0 for row in column})
    if len(lengths) != 1 or lengths[0] < 2:
        problems.append(f"every row needs the same number of {kind}, at least 2, but rows have {list_some(lengths, 5)}")
        return None
    return np.array(column.tolist(), dtype=np.float64)


def _read_wide(table: pd.DataFrame, raw: RawPredictions) -> None:
    """Fill in scores and class names from columns with a prefix, or from columns that are named like the classes."""
    for kind, prefixes in PREFIXES.items():
        for prefix in prefixes:
            found = [name for name in table.columns if name.startswith(prefix) and len(name) > len(prefix)]
            if len(found) >= 2:
                _take_columns(table, raw, kind, {name: name.removeprefix(prefix) for name in found})
                return
    keys = {name for names in NAMES.values() for name in names}
    bare = [name for name in table.columns if name not in keys and pd.api.types.is_numeric_dtype(table[name])]
    texts = set() if raw.labels is None or raw.labels.dtype.kind != "O" else {str(label) for label in raw.labels}
    # Without a prefix, columns are classes if the labels name them, or if nothing else could be meant.
    if len(bare) >= 2 and (not texts or texts <= set(bare)) and raw.predicted is None:
        _take_columns(table, raw, "probabilities", {name: name for name in bare})


def _take_columns(table: pd.DataFrame, raw: RawPredictions, kind: str, classes: dict[str, str]) -> None:
    texts = [name for name in classes if not pd.api.types.is_numeric_dtype(table[name])]
    if texts:
        raw.problems.append(f"the columns of {kind} must hold numbers, but {list_some(texts, 5)} do not")
        return
    raw.kind = kind
    if all(name.isdigit() for name in classes.values()):
        ordered = sorted(classes, key=lambda name: int(classes[name]))
        numbers = [int(classes[name]) for name in ordered]
        if numbers != list(range(len(numbers))):
            raw.problems.append(
                f"the columns of {kind} must be numbered from 0 without gaps, but have {list_some(numbers, 5)}"
            )
    else:
        ordered = list(classes)
        raw.class_names = tuple(classes.values())
    raw.scores = table[ordered].to_numpy(dtype=np.float64)
