"""How well scores of short and of truncated schedules predict those of full ones, and which configurations short ones prefer."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import bootstrap, pearsonr, rankdata

from analysis.statistics.interval import Interval
from benchmarks.pages import Table
from benchmarks.search.curve_surrogate import ArmSurrogate
from benchmarks.search.replay_curves import Curves, FloatArray, Hyperparameters, Recording, encode, place_in_space
from benchmarks.search.replay_measures import CONFIDENCE, format_interval
from trainables.seeds import numpy_generator

# The best of the full trials, as a part, and the part of the short ones in which they should be.
BEST_PART, KEPT_PART = 0.1, 1 / 3
NUM_RESAMPLES = 2000
NUM_CONFIGURATIONS, NUM_BEST = 4000, 20


def correlate(short: FloatArray, full: FloatArray) -> Interval:
    """Return Spearman's rank correlation of two (n,) arrays of scores, with its bootstrap interval at 95 %."""

    def compute(one: FloatArray, other: FloatArray, axis: int = -1) -> FloatArray:
        # Spearman's, of many resamples at once: `spearmanr` takes one at a time.
        return np.asarray(pearsonr(rankdata(one, axis=axis), rankdata(other, axis=axis), axis=axis).statistic)

    found = bootstrap(
        (short, full),
        compute,
        paired=True,
        method="percentile",
        n_resamples=NUM_RESAMPLES,
        confidence_level=CONFIDENCE,
        rng=numpy_generator(0, "rank correlation"),
    ).confidence_interval
    return Interval(estimate=float(compute(short, full)), low=float(found.low), high=float(found.high))


def count_kept(short: FloatArray, full: FloatArray) -> tuple[int, int]:
    """Return how many of the best tenth of the (n,) full scores are in the best third of the (n,) short ones, and of how many."""
    num_best, num_kept = (max(1, round(part * len(full))) for part in (BEST_PART, KEPT_PART))
    kept = set(np.argsort(-short, kind="stable")[:num_kept]) & set(np.argsort(-full, kind="stable")[:num_best])
    return len(kept), num_best


def tabulate_correlations(recording: Recording) -> Table:
    """Return how complete schedules, and full ones seen after as many epochs, rank the recorded configurations."""
    rows = []
    for name, curves in recording.arms.items():
        for epochs, complete in sorted(recording.complete.items()):
            short, full = _align(complete[name], curves)
            pairs = ((short[:, -1], full[:, -1]), (full[:, epochs - 1], full[:, -1]))
            cells = [format_interval(correlate(*pair)) for pair in pairs]
            kept = [count_kept(*pair) for pair in pairs]
            texts = [f"{number} of {total}" for number, total in kept]
            rows.append([name, str(epochs), str(len(full)), *cells, *texts])
    columns = ["", "epochs", "configurations", "complete", "truncated", "kept: complete", "kept: truncated"]
    return Table("Rank correlation with the last epoch of a full schedule", columns, rows)


def tabulate_epochs(recording: Recording) -> Table:
    """Return how the epochs of full schedules rank all recorded configurations, and the better half of them."""
    rows = []
    for name, curves in recording.arms.items():
        scores = curves.macro_f1[np.isfinite(curves.macro_f1).all(axis=1)]
        better = scores[scores[:, -1] >= np.median(scores[:, -1])]
        for epoch in range(1, scores.shape[1]):
            cells = [format_interval(correlate(part[:, epoch - 1], part[:, -1])) for part in (scores, better)]
            rows.append([name, str(epoch), *cells])
    columns = ["", "epoch", f"all {len(scores)}", "the better half"]
    return Table("Rank correlation with the last epoch, by epoch of a full schedule", columns, rows)


def tabulate_beside(recording: Recording) -> Table:
    """Return how averaged weights, and an epoch of cool-down, rank configurations, beside the scores of the same trials as is."""
    rows = []
    for num_epochs, arms in sorted(recording.beside.items()):
        for name, beside in arms.items():
            other, full = _align(beside, recording.arms[name])
            is_better = full[:, -1] >= np.median(full[:, -1])
            for epoch in range(1, num_epochs + 2):
                cells = [
                    format_interval(correlate(scores[chosen, epoch - 1], full[chosen, -1]))
                    for chosen in (slice(None), is_better)
                    for scores in (full, other)
                ]
                what = f"cool-down after {num_epochs}" if epoch > num_epochs else "averaged weights"
                rows.append([name, str(epoch), what, str(len(full)), *cells])
    columns = [
        "",
        "epochs",
        "",
        "configurations",
        "all: as is",
        "all: with it",
        "better half: as is",
        "better half: with it",
    ]
    return Table("Rank correlation with the last epoch, of averaged weights and after a cool-down", columns, rows)


def _align(short: Curves, full: Curves) -> tuple[FloatArray, FloatArray]:
    """Return the (n, e) and (n, E) scores of the configurations that have both and did not diverge."""
    place = {_identify(h): number for number, h in enumerate(full.hyperparameters)}
    both = [(i, place[_identify(h)]) for i, h in enumerate(short.hyperparameters) if _identify(h) in place]
    one, other = (
        curves.macro_f1[list(which)] for curves, which in zip((short, full), zip(*both, strict=True), strict=True)
    )
    finite = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    return one[finite], other[finite]


def _identify(hyperparameters: Hyperparameters) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(hyperparameters.items()))


def tabulate_preferences(arms: Mapping[str, ArmSurrogate]) -> Table:
    """Return what the configurations that are best under a short schedule are worth under the full one, by the surrogates."""
    rows = []
    for name, full in arms.items():
        generator = numpy_generator(0, "short schedules", name)
        points = generator.random((NUM_CONFIGURATIONS, len(full.arm.space.parameters)))
        configurations = [place_in_space(full.arm.space, point) for point in points]
        features = np.array([encode(full.arm.space, one) for one in configurations])
        scores = full.predict(features)[:, -1]
        best = np.argsort(-scores, kind="stable")[:NUM_BEST]
        for epochs, short in sorted(full.complete.items()):
            preferred = np.argsort(-short.predict(features)[:, -1], kind="stable")[:NUM_BEST]
            loss = 100 * float(scores.max() - scores[preferred].mean())
            chosen = [_describe([configurations[number] for number in which]) for which in (preferred, best)]
            rows.append(
                [name, str(epochs), f"{loss:.1f}", *(cell for pair in zip(*chosen, strict=True) for cell in pair)]
            )
    columns = ["", "epochs", "below the best pp", "max_lr", "of the full", "backbone_lr_ratio", "of the full"]
    return Table(f"The {NUM_BEST} best configurations of {NUM_CONFIGURATIONS:,} under a short schedule", columns, rows)


def _describe(configurations: Sequence[Hyperparameters]) -> list[str]:
    return [
        f"{np.median([float(one[name]) for one in configurations]):.2g}" for name in ("max_lr", "backbone_lr_ratio")
    ]
