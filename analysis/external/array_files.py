"""Predictions in npz files: arrays of labels and of probabilities or logits."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.external.raw_predictions import SCORES, RawPredictions, find_accepted_name
from search_spaces.errors import UserInputError


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
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array; write it with np.savez")
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        advice = "; save texts as a numpy array of str, not of objects" if "pickle" in str(error).lower() else ""
        raise UserInputError(f"{path} is not a readable npz file: {str(error).splitlines()[0]}{advice}") from None
    raw = RawPredictions(path=path)

    def values(key: str) -> NDArray[Any] | None:
        name = find_accepted_name(key, arrays)
        return None if name is None else arrays[name]

    kind = next((kind for kind in SCORES if values(kind) is not None), None)
    scores, predicted, labels = None if kind is None else values(kind), values("predicted"), values("label")
    raw.labels = labels
    raw.predicted = predicted
    raw.scores = scores
    raw.require(arrays)
    names = values("class_names")
    raw.class_names = None if names is None else tuple(str(name) for name in names.ravel())
    if raw.problems or labels is None:
        return raw
    if scores is not None and scores.dtype.kind not in "fiu":
        raw.problems.append(f"{kind} must hold numbers, but are {scores.dtype}")
        return raw
    shape = scores.shape[:-1] if scores is not None else () if predicted is None else predicted.shape
    seeds, arms = values("seed"), values("arm")
    if len(shape) == 2 and arms is not None and arms.shape == shape[:1] and (seeds is None or seeds.size == 1):
        shape = (shape[0], 1, shape[1])
        scores = None if scores is None else scores[:, None]
        predicted = None if predicted is None else predicted[:, None]
    problem = _check_shapes(kind, scores, predicted, labels, values("sample_id"), shape)
    if problem:
        raw.problems.append(problem)
        return raw
    raw.kind = kind or raw.kind
    raw.scores = None if scores is None else scores.reshape(-1, scores.shape[-1]).astype(np.float64)
    raw.predicted = None if predicted is None else predicted.reshape(-1)
    raw.labels = np.broadcast_to(labels, shape).reshape(-1)
    ids = values("sample_id")
    raw.sample_ids = None if ids is None else np.broadcast_to(ids, shape).reshape(-1)
    raw.seeds = _spread(raw, "seed", seeds, shape, axis=-2)
    raw.arms = _spread(raw, "arm", arms, shape, axis=-3)
    return raw


def _check_shapes(
    kind: str | None,
    scores: NDArray[Any] | None,
    predicted: NDArray[Any] | None,
    labels: NDArray[Any],
    ids: NDArray[Any] | None,
    shape: tuple[int, ...],
) -> str:
    """Return what is wrong with the shapes, or ""."""
    if labels.ndim != 1 or not labels.size:
        return f"labels must be (N,), one per image, but are {labels.shape}"
    if not 1 <= len(shape) <= 3 or (scores is not None and scores.shape[-1] < 2):
        axes = f"{shape}" if scores is None else f"{scores.shape}"
        return f"{kind or 'predicted classes'} must be (N, K), (seeds, N, K) or (arms, seeds, N, K) with K >= 2, but are {axes}"
    if shape[-1] != len(labels):
        return f"there are {len(labels)} labels, but {kind or 'predicted classes'} of {shape[-1]} images"
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
