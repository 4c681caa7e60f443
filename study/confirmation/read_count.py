"""The count of test reads: one file for each time that a study reads its test split."""

from typing import Any

from study.confirmation.plan import Plan
from study.state.checksums import read_sealed_json, write_sealed_json
from study.state.paths import TEST_READS
from study.state.record_book import now_utc
from trainables.storage.store import Store


def note_test_read(store: Store, plan: Plan, trial_ids: list[str]) -> None:
    """Count one read of the test split, unless it continues the last one.

    Args:
        store: the study's root.
        plan: the plan that is followed.
        trial_ids: the confirmation trials that are about to predict the test split.
    """
    notes = _read_notes(store)
    if notes and notes[-1]["plan_created"] == plan.created and set(trial_ids) <= set(notes[-1]["runs"]):
        return
    note = {"time": now_utc(), "plan_created": plan.created, "runs": trial_ids}
    write_sealed_json(store, f"{TEST_READS}/{len(notes) + 1:04d}.json", note)


def _read_notes(store: Store) -> list[dict[str, Any]]:
    return [read_sealed_json(store, f"{TEST_READS}/{name}") for name in store.list_folder(TEST_READS)]


def count_test_reads(store: Store) -> int:
    """Return how often the study has read the test split; raise DamagedFileError naming a file that cannot be read."""
    return len(_read_notes(store))
