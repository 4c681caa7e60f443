"""How each arm did in the search: trials by state, device time, best trial."""

from collections.abc import Sequence

from analysis.findings.search_findings import SearchArm
from analysis.search.rungs import compute_saved_device_seconds
from trainables.records.ranking import best_trials, ran_every_epoch
from trainables.records.record import TrialRecord, TrialState


def compute_search_arms(records: Sequence[TrialRecord]) -> tuple[SearchArm, ...]:
    """Return each arm's trials by state, its share of the device-seconds, what stopping saved, and its best trial."""
    saved = compute_saved_device_seconds(records)
    total = sum(r.device_seconds for r in records)
    found = []
    for arm in sorted({r.config.arm for r in records}):
        own = [r for r in records if r.config.arm == arm]
        spent = sum(r.device_seconds for r in own)
        best = next(iter(best_trials(own, arm)), None)
        states = [r.state for r in own]
        found.append(
            SearchArm(
                arm=arm,
                num_trials=len(own),
                num_completed=sum(map(ran_every_epoch, own)),
                num_pruned=states.count(TrialState.PRUNED),
                num_failed=states.count(TrialState.FAILED),
                device_seconds=spent,
                share=spent / total if total else 0.0,
                best_macro_f1=best.last_macro_f1 if best else None,
                best_trial_id=best.trial_id if best else "",
                saved_device_seconds=saved[arm],
                saved_fraction=saved[arm] / (spent + saved[arm]) if spent else 0.0,
            )
        )
    return tuple(found)
