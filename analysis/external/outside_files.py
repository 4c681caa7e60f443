"""Files of predictions that were made elsewhere: npz archives, and tables in parquet or csv."""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from analysis.statistics.metrics import FloatArray
from search_spaces.errors import UserInputError, first_line, list_some, nearest_name
from trainables.data.problems import make_printable
from trainables.data.sources.parquet import check_num_rows

# Accepted names of each column of a table or array of an npz file; the first is the one that the documentation uses.
NAMES = {
    "label": ("label", "labels", "target", "y_true"),
    "sample_id": ("sample_id", "sample_ids", "image_id"),
    "arm": ("arm", "arms", "model"),
    "seed": ("seed", "seeds"),
    "predicted": ("predicted", "predictions", "prediction", "y_pred"),
    "probabilities": ("probabilities", "probs", "proba"),
    "logits": ("logits",),
    "class_names": ("class_names", "classes"),
}
# An npz file may unpack to the larger of the two: bytes, and times its own size.
MAX_UNPACKED_BYTES, MAX_COMPRESSION = 2**28, 30
SCORES = ("probabilities", "logits")


@dataclass(slots=True, kw_only=True)
class RawPredictions:
    """One row per arm, seed and image; what the file does not have is None.

    Attributes:
        path: of the file.
        labels: (R,) numbers or names of classes.
        arms: (R,) names.
        seeds: (R,) integers.
        sample_ids: (R,) integers or texts; None numbers the images of each arm and seed from 0.
        predicted: (R,) numbers or names of classes.
        scores: (R, K) probabilities or logits.
        kind: "probabilities" or "logits".
        class_names: K names.
        unread_names: the column that seems to name the images but is not read as their ids; "" if there is none.
        problems: sentences on what is wrong with the file.
    """

    path: Path
    labels: NDArray[Any] | None = None
    arms: NDArray[Any] | None = None
    seeds: NDArray[Any] | None = None
    sample_ids: NDArray[Any] | None = None
    predicted: NDArray[Any] | None = None
    scores: FloatArray | None = None
    kind: str = "probabilities"
    class_names: tuple[str, ...] | None = None
    unread_names: str = ""
    problems: list[str] = field(default_factory=list)

    def require(self, present: Iterable[str]) -> None:
        """Note as problems that labels, or all of probabilities, logits and predicted classes, are missing.

        Args:
            present: names in the file, among which a misspelled one is looked for.
        """
        names = list(present)
        if self.labels is None:
            self.problems.append(f"there is no 'label'{nearest_name('label', names)}")
        if self.scores is None and self.predicted is None and not self.problems_of_scores:
            self.problems.append(f"there are no 'probabilities' and no 'logits'{nearest_name('probabilities', names)}")

    @property
    def problems_of_scores(self) -> list[str]:
        """The problems that name probabilities or logits."""
        return [problem for problem in self.problems if any(kind in problem for kind in SCORES)]


def find_accepted_name(key: str, present: Iterable[str]) -> str | None:
    """Return the first accepted name of `key` that is present; None if none is."""
    names = set(present)
    return next((name for name in NAMES[key] if name in names), None)


def spell_name(text: str) -> str:
    """Return a name that is printable and in Unicode's NFC, so that two spellings of one accent are one name."""
    return make_printable(unicodedata.normalize("NFC", text))


def make_texts_printable(values: NDArray[Any]) -> NDArray[Any]:
    """Return values of any shape with their texts printable, in NFC; others, such as numbers and gaps, stay as they are."""
    if values.dtype.kind not in "OU":
        return values
    texts = [spell_name(value) if isinstance(value, str) else value for value in values.ravel().tolist()]
    return np.array(texts, dtype=object).reshape(values.shape)


def read_array_file(path: Path) -> RawPredictions:
    """Return the predictions of an npz file.

    Scores are (N, K), or (S, N, K) for S seeds, or (A, N, K) for A arms, or (A, S, N, K); predicted classes have the same shape
    without K. Labels and sample ids are (N,). Seeds are one number or (S,), arms one name or (A,).

    Args:
        path: of an npz file without pickled objects.

    Raises:
        UserInputError: if the file cannot be read.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array; write it with np.savez")
            assert archive.zip is not None
            unpacked = sum(member.file_size for member in archive.zip.infolist())
            if unpacked > max(MAX_UNPACKED_BYTES, MAX_COMPRESSION * path.stat().st_size):
                raise ValueError(f"it would unpack to {unpacked:,} bytes; write it with np.savez, without compression")
            arrays = {make_printable(name): _plain_array(name, archive[name]) for name in archive.files}
    except MemoryError:
        raise UserInputError(
            f"{path} is not a readable npz file: one of its arrays claims more than the memory has"
        ) from None
    except Exception as error:  # NumPy and zipfile raise almost any class here
        advice = "; save texts as a numpy array of str, not of objects" if "pickle" in str(error).lower() else ""
        raise UserInputError(f"{path} is not a readable npz file: {first_line(error)}{advice}") from None

    def values(key: str) -> NDArray[Any] | None:
        name = find_accepted_name(key, arrays)
        return None if name is None else make_texts_printable(arrays[name])

    kind = next((kind for kind in SCORES if values(kind) is not None), None)
    raw = RawPredictions(path=path, labels=values("label"), predicted=values("predicted"), kind=kind or SCORES[0])
    raw.scores = None if kind is None else values(kind)
    raw.sample_ids, names = values("sample_id"), values("class_names")
    raw.class_names = None if names is None else tuple(str(name) for name in names.ravel())
    raw.require(arrays)
    if raw.problems:
        return raw
    if raw.scores is not None and raw.scores.dtype.kind not in "fiu":
        raw.problems.append(f"{kind} must hold numbers, but are {raw.scores.dtype}")
        return raw
    shape = raw.scores.shape[:-1] if raw.scores is not None else () if raw.predicted is None else raw.predicted.shape
    seeds, arms = values("seed"), values("arm")
    if len(shape) == 2 and arms is not None and arms.shape == shape[:1] and (seeds is None or seeds.size == 1):
        shape = (shape[0], 1, shape[1])
        raw.scores = None if raw.scores is None else raw.scores[:, None]
        raw.predicted = None if raw.predicted is None else raw.predicted[:, None]
    problem = _check_shapes(raw, kind or "predicted classes", shape)
    if problem:
        raw.problems.append(problem)
        return raw
    raw.scores = None if raw.scores is None else raw.scores.reshape(-1, raw.scores.shape[-1]).astype(np.float64)
    raw.predicted = None if raw.predicted is None else raw.predicted.reshape(-1)
    raw.labels, raw.sample_ids = (
        None if given is None else np.broadcast_to(given, shape).reshape(-1) for given in (raw.labels, raw.sample_ids)
    )
    raw.seeds = _spread(raw, "seed", seeds, shape, axis=-2)
    raw.arms = _spread(raw, "arm", arms, shape, axis=-3)
    return raw


def _plain_array(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of numbers, texts or dates; bytes are read as UTF-8. Raise ValueError for complex numbers and fields."""
    if array.dtype.kind in "cV":
        what = "complex numbers" if array.dtype.kind == "c" else f"rows of several fields ({array.dtype})"
        raise ValueError(f"{make_printable(name)} has {what}; save each part as an array of its own")
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


def _check_shapes(raw: RawPredictions, kind: str, shape: tuple[int, ...]) -> str:
    """Return what is wrong with the shapes of the arrays as they stand in the file, or ""."""
    scores, predicted, labels, ids = raw.scores, raw.predicted, raw.labels, raw.sample_ids
    assert labels is not None
    if labels.ndim != 1 or not labels.size:
        return f"labels must be (N,), one per image, but are {labels.shape}"
    if not 1 <= len(shape) <= 3 or (scores is not None and scores.shape[-1] < 2):
        axes = f"{shape}" if scores is None else f"{scores.shape}"
        return f"{kind} must be (N, K), (seeds, N, K) or (arms, seeds, N, K) with K >= 2, but are {axes}"
    if shape[-1] != len(labels):
        return f"there are {len(labels)} labels, but {kind} of {shape[-1]} images"
    if predicted is not None and predicted.shape != shape:
        return f"predicted classes must be {shape} as the {kind}, but are {predicted.shape}"
    if ids is not None and ids.shape != labels.shape:
        return f"there are {len(labels)} labels, but sample_ids are {ids.shape}"
    return ""


def _spread(
    raw: RawPredictions, name: str, given: NDArray[Any] | None, shape: tuple[int, ...], axis: int
) -> NDArray[Any] | None:
    """Return a value per row from one value, one per row, or one per index along an axis of `shape`."""
    length = shape[axis] if len(shape) >= -axis else 1
    if given is None:
        if length == 1:
            return None
        raw.problems.append(f"there are scores of {length} {name}s, so the file needs '{name}s', an array of {length}")
        return None
    if given.size == 1:
        return np.full(int(np.prod(shape)), given.reshape(-1)[0])
    if given.shape == shape:
        return given.reshape(-1)
    if given.shape == (length,):
        turned = given.reshape(length, *([1] * (-axis - 1)))
        return np.broadcast_to(turned, shape).reshape(-1)
    raw.problems.append(f"'{name}s' must be one value or {length}, but are {given.shape}")
    return None


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
        if not is_csv:
            check_num_rows(path, pq.read_metadata(path))
        table = pd.read_csv(path, keep_default_na=False, na_values=[""]) if is_csv else pd.read_parquet(path)
    except Exception as error:  # pandas raises almost any class for metadata that it did not write
        kind = "csv" if path.suffix.lower() == ".csv" else "parquet"
        raise UserInputError(f"{path} is not a readable {kind} file: {first_line(error)}") from None
    table.columns = pd.Index([spell_name(str(name)) for name in table.columns])
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
    texts = [name for name in unread if all(isinstance(value, str) for value in table[name])]
    return [name for name in texts if table[name].nunique() * num_models >= len(table) > 1]


def _plain(column: "pd.Series[Any]") -> NDArray[Any]:
    """Return the values of a column; texts and categories as objects."""
    if _has_numbers(column) and not column.isna().any():
        return np.asarray(column.to_numpy())
    return make_texts_printable(np.array(column.astype(object).tolist(), dtype=object))


def _has_numbers(column: "pd.Series[Any]") -> bool:
    return bool(pd.api.types.is_numeric_dtype(column))


def _stack_lists(column: "pd.Series[Any]", kind: str, problems: list[str]) -> FloatArray | None:
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
            listed = list_some(numbers, 5)
            raw.problems.append(f"the columns of {kind} must be numbered from 0 without gaps, but have {listed}")
    else:
        ordered = list(classes)
        raw.class_names = tuple(classes.values())
    raw.scores = table[ordered].to_numpy(dtype=np.float64)
