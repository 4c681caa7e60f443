"""Predictions of models that were trained elsewhere, read from one parquet file, and their comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.findings.comparison_findings import ComparisonRow
from analysis.statistics.arm_predictions import stack_predictions
from analysis.statistics.comparison import compare_arms, compute_seed_differences
from search_spaces.errors import UserInputError, nearest_name
from trainables.training.predictions import Predictions

KEYS = ("arm", "seed", "sample_id", "label")
SCORES = ("probabilities", "logits")
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleSeed:
    """The difference of two arms in macro-F1 from one seed, without an interval.

    Attributes:
        treatment: name of an arm.
        control: name of another arm.
        estimate: treatment minus control, a fraction.
    """

    treatment: str
    control: str
    estimate: float


def read_predictions_file(path: Path) -> dict[str, dict[int, Predictions]]:
    """Return the predictions of a parquet file by arm, in the order in which they first appear, and by seed.

    The file has one row per arm, seed and image, with the columns `arm` (text), `seed`, `sample_id` and `label` (integers), and
    a list of K numbers: either `probabilities` that sum to one, or `logits`.

    Args:
        path: of the file.

    Raises:
        UserInputError: naming a missing column, a value that is not finite, no probability or out of range, images that are
            not the same in all arms and seeds, or a class without images.
    """
    table = _read_table(path)
    kind = next(name for name in SCORES if name in table.columns)
    arms = {}
    for arm in dict.fromkeys(table["arm"].astype(str)):
        own = table[table["arm"].astype(str) == arm]
        by_seed = {
            int(str(seed)): _to_predictions(part, kind, f"arm {arm!r}, seed {seed}")
            for seed, part in own.groupby("seed")
        }
        stack_predictions(arm, by_seed)
        arms[arm] = by_seed
    for arm, by_seed in arms.items():
        found = next(iter(by_seed.values()))
        num_classes = found.logits.shape[1]
        absent = sorted(set(range(num_classes)) - set(found.labels.tolist()))
        if absent:
            raise UserInputError(
                f"every class needs images, but class {absent[0]} of {num_classes} has none in arm {arm!r}"
            )
    return arms


def compare_outside_arms(
    predictions: dict[str, dict[int, Predictions]], *, control: str | None, margin: float, alpha: float
) -> tuple[tuple[ComparisonRow, ...], tuple[SingleSeed, ...]]:
    """Return a row per arm against the control, or estimates without intervals where an arm has only one seed.

    Args:
        predictions: by arm and seed.
        control: name of an arm; None for the first.
        margin: equivalence margin in macro-F1, a fraction.
        alpha: family-wise error rate over the rows.

    Raises:
        UserInputError: for an unknown control, fewer than two arms, and arms that do not pair.
    """
    arms = {arm: stack_predictions(arm, by_seed) for arm, by_seed in predictions.items()}
    names = list(arms)
    if len(names) < 2:
        raise UserInputError(f"a comparison needs two arms, but the file holds {len(names)}: {', '.join(names)}")
    control = names[0] if control is None else control
    if control not in arms:
        raise UserInputError(f"the file has no arm {control!r}{nearest_name(control, names)}")
    treatments = [name for name in names if name != control]
    if any(len(arms[name].seeds) == 1 for name in (control, *treatments)):
        return (), tuple(
            SingleSeed(
                treatment=name,
                control=control,
                estimate=float(compute_seed_differences(arms[name], arms[control]).mean()),
            )
            for name in treatments
        )
    return tuple(
        compare_arms(arms[name], arms[control], margin=margin, alpha=alpha, num_rows=len(treatments), cost_ratio=None)
        for name in treatments
    ), ()


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserInputError(f"there is no file {path}") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserInputError(f"{path} is not a readable parquet file: {str(error).splitlines()[0]}") from None
    missing = [name for name in KEYS if name not in table.columns]
    if missing:
        near = nearest_name(missing[0], [str(c) for c in table.columns])
        raise UserInputError(
            f"{path} has no column {missing[0]!r}{near}; it needs {', '.join(KEYS)} and one of {', '.join(SCORES)}"
        )
    if not any(name in table.columns for name in SCORES):
        raise UserInputError(f"{path} needs a column of lists, {' or '.join(SCORES)}")
    if table.empty:
        raise UserInputError(f"{path} has no rows")
    for name in ("seed", "sample_id", "label"):
        if not pd.api.types.is_integer_dtype(table[name]):
            raise UserInputError(f"the column {name!r} of {path} must hold whole numbers, but is {table[name].dtype}")
    return table


def _to_predictions(part: pd.DataFrame, kind: str, where: str) -> Predictions:
    lengths = {len(row) for row in part[kind]}
    if len(lengths) != 1 or min(lengths) < 2:
        raise UserInputError(
            f"{where}: every image needs the same number of {kind}, at least 2, but they have {sorted(lengths)}"
        )
    scores = np.array(part[kind].tolist(), dtype=np.float64)
    ids = part["sample_id"].to_numpy(dtype=np.int64)
    _check_finite(scores, ids, kind, where)
    if kind == "probabilities":
        _check_probabilities(scores, ids, where)
        scores = np.log(np.maximum(scores, np.finfo(np.float32).tiny))
    return Predictions(
        sample_ids=ids, labels=part["label"].to_numpy(dtype=np.int64), logits=scores.astype(np.float32), split="test"
    )


def _check_finite(scores: np.ndarray, ids: np.ndarray, kind: str, where: str) -> None:
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise UserInputError(f"{where}: {kind} must be finite, but sample {ids[bad[0]]} has {scores[bad[0]].tolist()}")


def _check_probabilities(scores: np.ndarray, ids: np.ndarray, where: str) -> None:
    sums = scores.sum(axis=1)
    bad = np.flatnonzero((np.abs(sums - 1) > SUM_TOLERANCE) | (scores < 0).any(axis=1))
    if len(bad):
        raise UserInputError(
            f"{where}: probabilities must lie in [0, 1] and sum to one, but those of sample {ids[bad[0]]} sum to "
            f"{sums[bad[0]]:.4f}; give them as `logits` if they are not normalized"
        )


def describe_single_seeds(found: Sequence[SingleSeed]) -> str:
    """Return a sentence with the estimates of arms with one seed, and why there is no interval."""
    estimates = "; ".join(f"{f.treatment} vs {f.control} {100 * f.estimate:+.2f} pp" for f in found)
    return (
        f"{estimates}: estimates only, from one seed. An interval for new seeds needs at least two seeds per arm; a single "
        "seed gives no information about the variance between seeds"
    )
