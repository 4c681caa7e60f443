"""Sentences on the search."""

from collections.abc import Sequence

from analysis.findings.search_findings import RungFinding, TuningCurve, find_lead_changes
from analysis.report.number_formats import format_seconds

# Complete trials below which a rank correlation is not shown.
MIN_CORRELATED = 6
_COMPLETED_ONLY = "Pruned and failed trials have no final score and are not shown."


def describe_search(allocation: str, warm_start: str, starts: Sequence[str]) -> str:
    """Return how device time was allocated to the arms, and what the search knew before it started; see `Findings`."""
    sentence = {
        "per_arm": "Each arm had its own sampler, its own brackets and an equal target share of the device time.",
        "pooled": "One sampler searched the whole space (allocation: pooled), so no two arms were compared.",
        "given": "The configurations were given, so nothing was searched; each was trained once before its confirmation seeds.",
    }[allocation]
    sentences = [sentence]
    if warm_start:
        sentences.append(f"The samplers were initialized with the trials of {warm_start}.")
    return " ".join([*sentences, *starts])


def describe_pruning(rungs: Sequence[int]) -> str:
    """Return the epochs at which trials could be pruned, and the meaning of the time saved."""
    if not rungs:
        return "Early stopping was disabled."
    epochs = "epoch" if len(rungs) == 1 else "epochs"
    return (
        f"Trials could be pruned after {epochs} {', '.join(map(str, rungs))}. The time saved is an estimate: the device "
        "time that the pruned trials would have needed to reach the last epoch, each at its own speed."
    )


def describe_tuning(curves: Sequence[TuningCurve]) -> str:
    """Return which arm led at which device time of the search; "" if fewer than two arms have a tuning curve."""
    leaders = find_lead_changes(curves)
    if not leaders:
        return ""
    (_, first), *later = leaders
    changes = "".join(f", then {arm} from {format_seconds(seconds)} of device time" for seconds, arm in later)
    return (
        f"Best score so far at equal device time: {first}{changes or ' throughout'}. This is one search per arm; another search "
        "may order the arms differently."
    )


def format_correlation(rung: RungFinding) -> str:
    """Return a rung's rank correlation, with its interval if it has one: "0.87 [0.55, 0.97]"; a dash for None.

    A correlation of fewer than `MIN_CORRELATED` trials says nothing; how many are missing stands in its place.
    """
    missing = MIN_CORRELATED - rung.num_completed
    if missing > 0:
        return f"needs {missing} more complete trial{'' if missing == 1 else 's'}"
    if rung.rank_correlation is None:
        return "—"
    if rung.interval is None:
        return f"{rung.rank_correlation:.2f}"
    return f"{rung.rank_correlation:.2f} [{rung.interval.low:.2f}, {rung.interval.high:.2f}]"


def describe_search_plot(key: str) -> str:
    """Return the caption of one of Optuna's plots: which trials it shows, and how to read it."""
    kind = key if key.startswith("search_") else key.partition("_")[0]
    return {
        "parallel": f"One line per completed trial; darker lines have a higher macro-F1. {_COMPLETED_ONLY}",
        "slice": f"One point per completed trial; darker points are later trials. {_COMPLETED_ONLY}",
        "importance": "Importance for reaching the best 10 % of the completed trials (PED-ANOVA). The estimate is rough for "
        "fewer than about 50 completed trials.",
        "search_edf": "Fraction of the completed trials of each arm with a score at or below the value on the x axis.",
        "search_timeline": "Start and end of every trial of the search. COMPLETE: reached the last epoch; PRUNED: stopped at a "
        "rung; FAIL: diverged or crashed.",
    }[kind]


FILTERS = {
    "search": describe_search,
    "pruning": describe_pruning,
    "tuning": describe_tuning,
    "correlation": format_correlation,
}
