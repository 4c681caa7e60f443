"""The state of a study as text and as JSON, computed from its records."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from analysis.baselines.values import describe_baselines
from analysis.formats.text_sections import InspectionSection, SectionTable, make_section
from analysis.search.values import EpochProfile, compute_epoch_profiles
from search_spaces.errors import UserInputError
from study.confirmation.plan import count_test_reads
from study.open_study import OpenStudy, has_finished_search, load_study, read_baselines, read_passport
from study.state.lease import read_holder
from study.state.paths import REPORT_HTML, SPEC, Stage
from study.views.live_view import compute_progress, describe_progress, has_finished_confirmation, tabulate_progress
from study.views.printing import build_table, print_line, print_lines, print_section
from trainables.records.record import TrialState
from trainables.storage.store import StorageError, Store


def status_json(study: OpenStudy) -> dict[str, Any]:
    """Return the study's state as a JSON object."""
    holder = read_holder(study.store)
    return {
        "name": study.name,
        "root": study.store.root,
        "state": study_state(study),
        "driver": holder.model_dump(include={"host", "pid", "since", "renewed"}) if holder is not None else None,
        "baselines": None if (stored := read_baselines(study)) is None else dataclasses.asdict(stored.findings),
        "search": dataclasses.asdict(compute_progress(study, "search")),
        "confirmation": dataclasses.asdict(compute_progress(study, "confirmation")),
        "test_reads": count_test_reads(study.store),
        "recovered": list(study.book.recovered),
        "failed": [
            {"stage": r.stage, "trial_id": r.trial_id, "reason": r.reason}
            for r in study.book
            if r.state is TrialState.FAILED
        ],
        "notes": [{"stage": r.stage, "trial_id": r.trial_id, "note": note} for r in study.book for note in r.notes],
        "retries": sum(r.attempts - 1 for r in study.book),
        "cluster": read_passport(study.store)["cluster"],
    }


def study_state(study: OpenStudy) -> str:
    """Return "searching", "searched", "confirming", "confirmed" or "reported".

    A reported study whose search was extended is "searching" again until the added trials have ended.
    """
    if not has_finished_search(study):
        return "searching"
    if study.store.exists(REPORT_HTML):
        return "reported"
    if has_finished_confirmation(study):
        return "confirmed"
    if study.book.of_stage("confirmation"):
        return "confirming"
    return "searched"


def print_status(study: OpenStudy, console: Console) -> None:
    """Print the study's state, the progress of its stages, and notes, failures and retries of its trials."""
    print_line(f"{study.name} at {study.store.root}: {study_state(study)}", console)
    if (holder := read_holder(study.store)) is not None:
        print_line(f"driven by {holder.describe()}", console)
    stored = read_baselines(study)
    print_lines(() if stored is None else describe_baselines(stored.findings), console)
    stages: tuple[Stage, ...] = ("search", "confirmation")
    for stage in stages:
        if study.book.of_stage(stage):
            print_stage(study, stage, console)
    print_lines(list_events(study), console)


def list_events(study: OpenStudy) -> list[str]:
    """Return a line for each record that was recovered, and for each note, failure and retry of a trial."""
    lines = list(study.book.recovered)
    for record in study.book:
        trial = f"{record.stage}/{record.trial_id}"
        lines += [f"note: {trial}: {note}" for note in record.notes]
        if record.state is TrialState.FAILED:
            lines.append(f"failed: {trial}: {record.reason}")
        elif record.retry_causes:
            cause = record.retry_causes[-1].splitlines()[-1]
            lines.append(f"retried: {trial}, {len(record.retry_causes)} time(s); last cause: {cause}")
    return lines


def print_stage(study: OpenStudy, stage: Stage, console: Console, *, is_over: bool = False) -> None:
    """Print the progress of a stage, which may be known to be over, and the table of its arms."""
    progress = compute_progress(study, stage)
    if is_over:
        progress = dataclasses.replace(progress, num_planned=progress.num_finished, fraction_done=1.0, eta_seconds=0.0)
    console.print(describe_progress(progress), highlight=False, soft_wrap=True)
    console.print(build_table(tabulate_progress(progress)))
    profiles = compute_epoch_profiles(study.book.of_stage(stage))
    if profiles:
        print_section(describe_epochs(profiles), console)


def describe_epochs(profiles: Sequence[EpochProfile]) -> InspectionSection:
    """Return the section on the parts of an epoch, with seconds and shares by arm."""
    columns = ("part", *(f"{profile.arm}, mean of {profile.num_epochs} epochs" for profile in profiles))
    wholes = [sum(profile.seconds.values()) for profile in profiles]
    shares = {
        part: [
            f"{p.seconds[part]:.3f} s  {100 * p.seconds[part] / w:4.1f} %"
            for p, w in zip(profiles, wholes, strict=True)
        ]
        for part in profiles[0].seconds
    }
    rows = ((part, *cells) for part, cells in shares.items())
    return make_section("epochs", "Time of an epoch by part", (), columns, rows)


def find_studies(root: str) -> list[dict[str, Any]]:
    """Return name, state, number of search trials and start of every study under a storage root.

    The state of a study that cannot be read is "unreadable: ...".
    """
    store = Store(root)
    found = []
    for name in store.list_folder():
        try:
            if store.exists(f"{name}/{SPEC}"):
                found.append(_summarize(name, load_study(store.child(name))))
        except (UserInputError, StorageError) as error:
            found.append({"name": name, "state": f"unreadable: {error}", "trials": 0, "started": ""})
    return found


def _summarize(name: str, study: OpenStudy) -> dict[str, Any]:
    started = min((record.started for record in study.book), default="")
    return {"name": name, "state": study_state(study), "trials": len(study.book.of_stage("search")), "started": started}


def print_studies(studies: list[dict[str, Any]], root: str, console: Console) -> None:
    """Print the studies under `root` as a table."""
    if not studies:
        print_line(f"no studies under {root}", console)
        return
    rows = tuple(tuple(map(str, study.values())) for study in studies)
    columns = tuple(studies[0])
    console.print(build_table(SectionTable(columns=columns, rows=rows, text=tuple(range(1, len(columns) + 1)))))
