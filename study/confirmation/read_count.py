"""How often a study has read the test split: one note per read."""

from typing import Any

from study.confirmation.plan import Plan
from study.state.checksums import read_sealed_json, write_sealed_json
from study.state.paths import TEST_READS
from study.state.record_book import now_utc
from trainables.records.store import Store


def note_test_read(store: Store, plan: Plan, trial_ids: list[str]) -> None:
    """Count one read of these runs' test predictions, unless it goes on with the last one."""
    notes = _read_notes(store)
    if notes and notes[-1]["plan_created"] == plan.created and set(trial_ids) <= set(notes[-1]["runs"]):
        return
    note = {"time": now_utc(), "plan_created": plan.created, "runs": trial_ids}
    write_sealed_json(store, f"{TEST_READS}/{len(notes) + 1:04d}.json", note)


def _read_notes(store: Store) -> list[dict[str, Any]]:
    return [read_sealed_json(store, f"{TEST_READS}/{name}") for name in store.list_folder(TEST_READS)]


def count_test_reads(store: Store) -> int:
    """Return how often the study has read the test split; raise DamagedFileError naming a note that cannot be read."""
    return len(_read_notes(store))
