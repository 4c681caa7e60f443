"""Predictions of models that were trained elsewhere, read from files and checked: one message lists everything that is wrong."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.external.outside_files import (
    RawPredictions,
    make_texts_printable,
    read_array_file,
    read_table_file,
    spell_name,
)
from analysis.statistics.metrics import FloatArray, IntArray
from search_spaces.errors import UserInputError, list_some, nearest_name
from trainables.data.problems import group_look_alikes
from trainables.training.predictions import Predictions

SUM_TOLERANCE = 1e-3
# Sums of half-precision probabilities are less exact.
HALF_SUM_TOLERANCE = 1e-2
# Values of a table of rows by classes that predicted classes alone are spread over, and of one of classes by classes.
MAX_CELLS = 2**29
EXAMPLE = """Example of a file:
  probabilities = torch.cat([model(images).softmax(1).cpu() for images, _ in loader]).numpy()
  np.savez("predictions.npz", labels=labels, probabilities=probabilities)"""

ByArm = dict[str, dict[int, Predictions]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsidePredictions:
    """Predictions of models that were trained elsewhere, all on the same images.

    Attributes:
        arms: by arm, in the order in which they first appear, and by seed.
        class_names: K names; None where the files have none.
        image_names: of the images by sample id; None where the files have numbers.
        has_scores: whether there are probabilities or logits; else the logits only mark the predicted class.
    """

    arms: ByArm
    class_names: tuple[str, ...] | None
    image_names: tuple[str, ...] | None
    has_scores: bool

    @property
    def first(self) -> Predictions:
        """Predictions of one arm and seed."""
        return next(iter(next(iter(self.arms.values())).values()))

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """Names of the classes without images."""
        sizes = np.bincount(self.first.labels, minlength=self.first.logits.shape[1])
        return tuple(self.names[c] for c in np.flatnonzero(sizes == 0))

    @property
    def names(self) -> tuple[str, ...]:
        """K names; "class 0" and so on where the files have none."""
        return self.class_names or tuple(f"class {i}" for i in range(self.first.logits.shape[1]))


def read_predictions_files(
    paths: Sequence[Path], class_names: Sequence[str] | None = None, sides: Sequence[tuple[str, str | None]] = ()
) -> OutsidePredictions:
    """Return the predictions of all files together.

    A file is an npz archive, or a table in parquet or csv (`analysis.external.outside_files`). It has labels, which are numbers
    or names of classes, and probabilities, logits or predicted classes. The name of the arm, the seed and the ids of the images
    may be left out: the arm is then named like the file, the seed is 0, and the images are numbered from 0.

    Args:
        paths: of the files, at least one.
        class_names: K names, instead of those in the files.
        sides: for each file the name that its arm gets, and which of its arms that is; None for the only one. Without them, all
            arms keep their names.

    Raises:
        UserInputError: listing everything that is wrong with the files: files that cannot be read, missing or misspelled names,
            values that are not finite, no probabilities or out of range, class names that do not fit, and arms and seeds with
            different images.
    """
    raws = [_read_file(path) for path in paths]
    for raw, (side, chosen) in zip(raws, sides, strict=False):
        _take_arm(raw, side, chosen)
    problems = [_in_file(raw, problem, raws) for raw in raws for problem in raw.problems]
    texts = any(raw.sample_ids is not None and raw.sample_ids.dtype.kind not in "iu" for raw in raws)
    numbers: dict[str, int] = {}
    in_files = list(dict.fromkeys(raw.class_names for raw in raws if raw.class_names))
    if len(in_files) > 1:
        named = list_some(f"({list_some(names)})" for names in in_files)
        problems.append(f"the files need the same classes in the same order, but have {named}")
    names = tuple(map(spell_name, class_names)) if class_names else in_files[0] if in_files else _infer_names(raws)
    _name_classes(raws, names)
    sizes = {raw.scores.shape[-1] for raw in raws if raw.scores is not None}
    problems += _check_names(names, sizes)
    if not (class_names or in_files):
        problems += _check_spelling(names or ())
    arms: ByArm = {}
    for raw in raws:
        if raw.problems:
            continue
        found: list[str] = []
        for arm, seed, part in _to_arms(raw, names, numbers if texts else None, found):
            by_seed = arms.setdefault(arm, {})
            if seed in by_seed:
                found.append(
                    f"arm {arm!r} has seed {seed} twice; an arm without a name is named after its file: give the files different "
                    "names, or an arm and a seed of their own"
                )
            by_seed[seed] = part
        problems += [_in_file(raw, problem, raws) for problem in found]
    if not problems:
        problems = _check_naming(raws, sum(map(len, arms.values())))
    if not problems:
        problems = _describe_differences(arms, tuple(numbers))
    if problems:
        where = f" of {paths[0]}" if len(paths) == 1 else ""
        listed = list_some((f"- {problem}" for problem in problems), separator="\n")
        message = f"the predictions{where} cannot be used:\n{listed}\nCorrect this, then repeat. {EXAMPLE}"
        raise UserInputError(message)
    return OutsidePredictions(
        arms=arms,
        class_names=names,
        image_names=tuple(numbers) if texts else None,
        has_scores=all(raw.scores is not None for raw in raws),
    )


def _read_file(path: Path) -> RawPredictions:
    try:
        if not path.is_file():
            raise UserInputError(f"there is no file {path}")
        return read_array_file(path) if path.suffix.lower() == ".npz" else read_table_file(path)
    except UserInputError as error:
        return RawPredictions(path=path, problems=[str(error)])


def _take_arm(raw: RawPredictions, side: str, chosen: str | None) -> None:
    """Keep the rows of an arm, and give it another name; a missing arm, or several without a choice, are a problem."""
    if raw.problems or raw.labels is None:
        return
    arms = np.full(len(raw.labels), raw.path.stem) if raw.arms is None else make_texts_printable(raw.arms.astype(str))
    names = list(dict.fromkeys(arms.tolist()))
    if chosen is None and len(names) > 1:
        raw.problems.append(f"it has the arms {list_some(names)}; name one, such as {raw.path}:{names[0]}")
    elif chosen is not None and chosen not in names:
        raw.problems.append(f"it has no arm {chosen!r}{nearest_name(chosen, names)}")
    keep = arms == (chosen or names[0])
    for name in ("labels", "seeds", "sample_ids", "predicted", "scores"):
        values = getattr(raw, name)
        setattr(raw, name, None if values is None else values[keep])
    raw.arms = np.full(int(keep.sum()), side)


def _in_file(raw: RawPredictions, problem: str, raws: Sequence[RawPredictions]) -> str:
    return problem if len(raws) == 1 or str(raw.path) in problem else f"{raw.path.name}: {problem}"


def _infer_names(raws: Sequence[RawPredictions]) -> tuple[str, ...] | None:
    """Return the names of classes, in alphabetical order, if the files without problems have texts and no scores."""
    columns = [column for raw in raws if not raw.problems for column in (raw.labels, raw.predicted)]
    if any(raw.scores is not None for raw in raws) or not columns or not all(map(_is_text, columns)):
        return None
    return tuple(sorted({str(name) for column in columns if column is not None for name in column}))


def _name_classes(raws: Sequence[RawPredictions], names: tuple[str, ...] | None) -> None:
    """Put the names of classes in place of truth values, or of numbers that are names, in the content of the files.

    Numbers are names if those of all files are, and some are too large for places.
    """
    sound = [raw for raw in raws if not raw.problems and (raw.class_names or names)]
    numbers = [
        (value, raw.class_names or names or ())
        for raw in sound
        for column in (raw.labels, raw.predicted)
        if column is not None and column.dtype.kind in "iu"
        for value in np.unique(column).tolist()
    ]
    are_names = all(str(value) in known for value, known in numbers) and any(v >= len(k) for v, k in numbers)

    def name_all(values: NDArray[Any] | None, known: Sequence[str]) -> NDArray[Any] | None:
        if values is None or values.dtype.kind not in ("biu" if are_names else "b"):
            return values
        spelled = {name.lower() if values.dtype.kind == "b" else name: name for name in known}
        found = [str(value).lower() for value in values.ravel().tolist()]
        return np.array([spelled[text] for text in found], dtype=object) if set(found) <= set(spelled) else values

    for raw in sound:
        known = raw.class_names or names or ()
        raw.labels, raw.predicted = name_all(raw.labels, known), name_all(raw.predicted, known)


def _check_naming(raws: Sequence[RawPredictions], num_models: int) -> list[str]:
    """Return what is wrong if several models have images, of which some are named and others are not."""
    if num_models < 2:
        return []
    problems = [
        _in_file(
            raw,
            f"the column {raw.unread_names!r} seems to name the images, but is not read; call it sample_id, or leave it out",
            raws,
        )
        for raw in raws
        if raw.unread_names
    ]
    without = [raw.path.name for raw in raws if raw.sample_ids is None]
    if without and any(raw.sample_ids is not None and raw.sample_ids.dtype.kind not in "iu" for raw in raws):
        problems.append(
            f"the images of some files have names, but those of {list_some(without)} have none; give all of them sample_id"
        )
    return problems


def _is_text(values: NDArray[Any] | None) -> bool:
    return values is not None and values.dtype.kind in "OU" and all(isinstance(value, str) for value in values.tolist())


def _to_arms(
    raw: RawPredictions, names: tuple[str, ...] | None, numbers: dict[str, int] | None, problems: list[str]
) -> list[tuple[str, int, Predictions]]:
    """Return (arm, seed, predictions) of one file; what is wrong is appended to `problems`."""
    assert raw.labels is not None
    names = raw.class_names or names
    labels = _to_classes("labels", raw.labels, names, problems)
    predicted = None if raw.predicted is None else _to_classes("predicted classes", raw.predicted, names, problems)
    seeds = np.zeros(len(raw.labels), dtype=np.int64) if raw.seeds is None else _to_whole("seeds", raw.seeds, problems)
    arms = np.full(len(raw.labels), raw.path.stem) if raw.arms is None else raw.arms.astype(str)
    arms = make_texts_printable(arms)
    if problems or labels is None or seeds is None:
        return []
    logits = _to_logits(raw, labels, predicted, names, problems)
    if logits is None:
        return []
    found = []
    for arm in dict.fromkeys(arms.tolist()):
        for seed in np.unique(seeds[arms == arm]).tolist():
            rows = np.flatnonzero((arms == arm) & (seeds == seed))
            where = f"arm {arm!r}, seed {seed}: "
            ids = np.arange(len(rows)) if raw.sample_ids is None else _to_ids(raw.sample_ids[rows], numbers, problems)
            if ids is None:
                return []
            if len(np.unique(ids)) < len(ids):
                several = " Give each arm and seed its own name." if raw.arms is None or raw.seeds is None else ""
                problems.append(f"{where}{len(ids) - len(np.unique(ids))} sample ids occur more than once.{several}")
                continue
            part = Predictions(sample_ids=ids, labels=labels[rows], logits=logits[rows], split="test")
            found.append((arm, seed, part))
    return [] if problems else found


def _to_classes(what: str, values: NDArray[Any], names: tuple[str, ...] | None, problems: list[str]) -> IntArray | None:
    """Return numbers of classes from numbers or names."""
    if not _is_text(values):
        return _to_whole(what, values, problems)
    if names is None:
        problems.append(
            f"{what} are names such as {str(values[0])!r}, but the order of the classes is unknown; give it with --class-names, "
            "as class_names in an npz file, or in the names of the columns (p_cat, p_dog)"
        )
        return None
    index = {name: i for i, name in enumerate(names)}
    unknown = sorted({str(value) for value in values} - set(index))
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        near = nearest_name(unknown[0], names)
        problems.append(f"{what} have names that are not among the classes: {unknown[0]!r}{more}{near}")
        return None
    return np.array([index[str(value)] for value in values], dtype=np.int64)


def _to_whole(what: str, values: NDArray[Any], problems: list[str]) -> IntArray | None:
    try:
        numbers = values.astype(np.float64)
        whole = bool(np.isfinite(numbers).all() and (numbers == np.round(numbers)).all())
    except (TypeError, ValueError):
        whole = False
    if not whole:
        problems.append(f"{what} must be whole numbers, but are {values.dtype} such as {values[:3].tolist()}")
        return None
    return numbers.astype(np.int64) if values.dtype.kind == "O" else values.astype(np.int64)


def _to_ids(ids: NDArray[Any], numbers: dict[str, int] | None, problems: list[str]) -> IntArray | None:
    if numbers is None:
        return ids.astype(np.int64)
    if not all(isinstance(value, str | int) for value in ids.tolist()):
        problems.append(f"sample ids must be whole numbers or texts, but are {ids.dtype} such as {ids[:3].tolist()}")
        return None
    return np.array([numbers.setdefault(str(value), len(numbers)) for value in ids.tolist()], dtype=np.int64)


def _to_logits(
    raw: RawPredictions,
    labels: IntArray,
    predicted: IntArray | None,
    names: tuple[str, ...] | None,
    problems: list[str],
) -> NDArray[np.float32] | None:
    """Return (R, K) logits: those of the file, logarithms of its probabilities, or 1 for the predicted class and 0 for others."""
    scores, tolerance = raw.scores, SUM_TOLERANCE
    if scores is None:
        assert predicted is not None
        most = max(int(labels.max()), int(predicted.max())) + 1
        num_classes = most if names is None else max(len(names), 2)
        _check_range("labels", labels, num_classes, problems)
        _check_range("predicted classes", predicted, num_classes, problems)
        if num_classes * max(num_classes, len(labels)) > MAX_CELLS:
            problems.append(
                f"classes reach {num_classes - 1:,}, too many for {len(labels):,} rows; number them from 0 on without gaps"
            )
        return None if problems else np.equal.outer(predicted, np.arange(num_classes)).astype(np.float32)
    if np.array_equal(scores, scores.astype(np.float16), equal_nan=True):
        tolerance = HALF_SUM_TOLERANCE
    num_classes = scores.shape[1]
    _check_range("labels", labels, num_classes, problems)
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        problems.append(f"{raw.kind} must be finite, but {len(bad)} rows have NaN or inf, the first is row {bad[0]}")
    elif raw.kind == "probabilities":
        _check_probabilities(scores, tolerance, problems)
    if predicted is not None and not problems:
        differ = int((scores.argmax(axis=1) != predicted).sum())
        if differ:
            problems.append(
                f"the predicted classes differ from the class of the highest of the {raw.kind} in {differ} of {len(predicted)} "
                "rows; leave one of them out"
            )
    if not problems and ((scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1).all():
        reason = "in each row several classes share the highest"
        problems.append(f"{raw.kind} must name a class, but {reason}; check the export")
    if problems:
        return None
    if raw.kind == "probabilities":
        scores = np.log(np.maximum(scores, np.finfo(np.float32).tiny))
    return scores.astype(np.float32)


def _check_range(what: str, values: IntArray, num_classes: int, problems: list[str]) -> None:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= num_classes:
        from_one = low == 1 and high == num_classes
        advice = "; subtract 1 if they count from 1" if from_one else ""
        problems.append(f"{what} must lie in [0, {num_classes}), but reach from {low} to {high}{advice}")


def _check_probabilities(scores: FloatArray, tolerance: float, problems: list[str]) -> None:
    sums = scores.sum(axis=1)
    bad = np.flatnonzero((np.abs(sums - 1) > tolerance) | (scores < 0).any(axis=1))
    if len(bad):
        problems.append(
            f"probabilities must lie in [0, 1] and sum to one, but those of {len(bad)} rows do not; row {bad[0]} sums to "
            f"{sums[bad[0]]:.4f}. Scores that are not normalized are `logits`"
        )


def _describe_differences(arms: Mapping[str, Mapping[int, Predictions]], image_names: Sequence[str]) -> list[str]:
    """Return how the images of each arm and seed differ from those of the first; they have names, or are numbered."""
    every = [(f"arm {arm!r}, seed {seed}", found) for arm, by_seed in arms.items() for seed, found in by_seed.items()]
    first_name, first = every[0]
    label_of = dict(zip(first.sample_ids.tolist(), first.labels.tolist(), strict=True))
    problems, named = [], ", by the same names" if image_names else ""
    for name, other in every[1:]:
        differences = []
        if other.logits.shape[1] != first.logits.shape[1]:
            differences.append(f"{other.logits.shape[1]} classes instead of {first.logits.shape[1]}")
        own = dict(zip(other.sample_ids.tolist(), other.labels.tolist(), strict=True))
        missing, added = sorted(set(label_of) - set(own)), sorted(set(own) - set(label_of))
        relabeled = [i for i in own if i in label_of and own[i] != label_of[i]]
        for images, what in ((missing, "missing"), (added, "added"), (relabeled, "with another label")):
            if images:
                first_image = image_names[images[0]] if image_names else f"sample {images[0]}"
                differences.append(f"{len(images)} images {what} (the first: {first_image})")
        if differences:
            listed = ", ".join(differences)
            problems.append(f"{name} differs from {first_name}: {listed}; all need the same images{named}")
    return problems


def _check_spelling(names: Sequence[str]) -> list[str]:
    """Return what is doubtful about names of classes that were inferred from the labels."""
    alike = [f"({list_some(map(repr, found))})" for found in group_look_alikes(names) if len(found) > 1]
    if not alike:
        return []
    return [
        f"some labels differ only in case or in blanks around them: {list_some(alike)}; spell each class in one way, or give all "
        "names with --class-names if they are different classes"
    ]


def _check_names(names: Sequence[str] | None, sizes: Set[int]) -> list[str]:
    """Return what is wrong with the names of the classes, given the numbers of classes that the files have scores of."""
    if names is None:
        return []
    problems = [
        f"{size} classes need as many names, but got {len(names)}: {list_some(names)}"
        for size in sorted(sizes)
        if size != len(names)
    ]
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        problems.append(f"the classes need different names, but these repeat: {list_some(repeated)}")
    return problems
