"""A driver that tries every kind of write twice, before and after a line on its standard input. `test_lease` suspends it between.

Prints a JSON object each time: the kind of write, and why it was refused, or "" if it was written.
"""

import json
import sys
from collections.abc import Callable

from study.confirmation.plan import note_test_read, read_plan, write_plan
from study.inputs.provenance import check_unchanged
from study.open_study import OpenStudy, open_to_drive, read_passport
from study.results.comparison import compute_comparison
from study.state import lease, paths
from study.state.budget_extensions import Extension, write_extension
from study.state.record_book import StudyInterrupted
from study.state.sealed_files import write_sealed_json
from trainables.storage.store import Store

LEASE_SECONDS, RENEW_SECONDS = 2.0, 0.2


def make_writes(study: OpenStudy, number: int) -> dict[str, Callable[[], object]]:
    """Return one call per kind of write; another `number` makes each write something new."""
    store, record = study.store, study.book.of_stage("confirmation")[0]
    plan, passport = read_plan(store), read_passport(store)
    assert plan is not None
    return {
        "record": lambda: study.book.save(record.updated(node=str(number))),
        "checkpoint": lambda: study.book.drop_checkpoint(record),
        "plan": lambda: write_plan(store, plan),
        "test read": lambda: note_test_read(store, plan, [str(number)]),
        "change": lambda: check_unchanged(store, passport | {"code": number}, allow_changed=True, num_trials=number),
        "extension": lambda: write_extension(store, Extension(kind="num_trials", total=100 + number), 24),
        "findings": lambda: write_sealed_json(store, paths.FINDINGS, {"number": number}),
        "comparison": lambda: compute_comparison(study),
        "heat map": lambda: store.write_bytes(f"{paths.FIGURES}/panel_01.png", bytes([number])),
        "report": lambda: store.write_text(paths.REPORT_HTML, str(number)),
    }


def try_all(study: OpenStudy, number: int) -> dict[str, str]:
    """Try every kind of write; return why each was refused, "" where it was not."""
    refusals = {}
    for kind, write in make_writes(study, number).items():
        try:
            write()
            refusals[kind] = ""
        except StudyInterrupted as refusal:
            refusals[kind] = str(refusal)
    return refusals


if __name__ == "__main__":
    lease.LEASE_SECONDS, lease.RENEW_SECONDS = LEASE_SECONDS, RENEW_SECONDS
    with open_to_drive(Store(sys.argv[1])) as driven:
        print(json.dumps(try_all(driven, 1)), flush=True)
        sys.stdin.readline()
        print(json.dumps(try_all(driven, 2)), flush=True)
