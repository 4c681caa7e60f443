"""A study on disk: created, opened to be read or to be driven, what it measured before its search, and how far that is.

Needs neither Ray nor torch.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from analysis.baselines.values import BaselineFindings
from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, list_some
from study.scheduling.budget import is_search_finished
from study.scheduling.warm_start import WarmStart, write_warm_start
from study.spec.reading import LONGEST_NAME, dump_spec
from study.spec.study_spec import StudySpec
from study.state import paths
from study.state.budget_extensions import extended_spec, launched_spec
from study.state.lease import Lease, hold_lease
from study.state.record_book import RecordBook
from study.state.sealed_files import FencedStore, read_only, read_sealed_json, write_sealed_json, write_sealed_toml
from trainables.damaged_files import decoding
from trainables.storage.store import Store, join_uri, split_uri


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """A study on disk.

    Attributes:
        store: its files. Opened to be driven, they are written under the study's lease; opened to be read, not at all.
        spec: its spec, with the budget of the last extension.
        book: its records.
    """

    store: FencedStore
    spec: StudySpec
    book: RecordBook

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.spec.name


def check_is_new(store: Store, name: str) -> None:
    """Raise UserInputError if the folder holds a study, or anything but a lease."""
    if store.exists(paths.SPEC):
        raise UserInputError(
            f"the study {name!r} exists at {store.root}; continue it with `study resume {store.argument}`, "
            "or give another --name"
        )
    if set(store.list_folder()) - paths.BEFORE_SPEC:
        raise UserInputError(f"{store.root} is not empty and holds no study; give another --name or --storage")
    rounds = paths.find_rounds(*split_uri(store.root))
    if rounds:
        raise UserInputError(
            f"{list_some(round_.root for round_ in rounds)}: rounds of interventions of an earlier study {name!r}, which would "
            "count as those of the new one; remove them, or give another --name"
        )


@contextmanager
def create_to_drive(
    store: Store,
    spec: StudySpec,
    passport: dict[str, Any],
    *,
    costs: dict[str, float] | None = None,
    warm_start: WarmStart | None = None,
    interventions: dict[str, Any] | None = None,
) -> Iterator[OpenStudy]:
    """Create a study and hold its lease, as `open_to_drive` does.

    Args:
        store: the root of the new study.
        spec: its spec, which is written with all values.
        passport: its passport.
        costs: device-seconds of a full trial per arm, if they were measured.
        warm_start: finished trials of another study, from which the samplers start.
        interventions: content of interventions.json, in a study of interventions.

    Raises:
        UserInputError: if the folder holds a study already, or another process creates one there at the same time.
    """
    with hold_lease(store) as lease:
        check_is_new(store, spec.name)
        fenced = FencedStore(store.root, lease.writing)
        if costs is not None:
            write_sealed_json(fenced, paths.TRIAL_COSTS, {"full_trial_device_seconds": costs})
        if warm_start is not None:
            write_warm_start(fenced, warm_start)
        if interventions is not None:
            write_sealed_json(fenced, paths.INTERVENTIONS, interventions)
        write_sealed_json(fenced, paths.PASSPORT, passport)
        write_sealed_toml(fenced, paths.SPEC, dump_spec(spec))
        yield _open_held(store, lease)


@contextmanager
def open_to_drive(store: Store) -> Iterator[OpenStudy]:
    """Open a study and hold its lease, so that no other driver can write it.

    Raises UserInputError if another driver holds the lease, or naming a file that cannot be read.
    """
    with hold_lease(store) as lease:
        yield _open_held(store, lease)


def load_study(store: Store) -> OpenStudy:
    """Open a study to read it; raise UserInputError naming a file that cannot be read."""
    return _open(read_only(store))


def _open(store: FencedStore) -> OpenStudy:
    return OpenStudy(store=store, spec=extended_spec(store, launched_spec(store)), book=RecordBook(store))


def _open_held(store: Store, lease: Lease) -> OpenStudy:
    opened = _open(FencedStore(store.root, lease.writing))
    opened.book.sign_with(lease.token)
    return opened


def read_passport(store: Store) -> dict[str, Any]:
    """Return the study's passport; raise DamagedFileError if it cannot be read."""
    return read_sealed_json(store, paths.PASSPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBaselines:
    """The content of baselines.json, which never changes.

    Attributes:
        findings: without what the comparison adds.
        config: of the probe's backbone and preprocessing; None without a probe.
        digests: SHA-256 of the probe's weights, by their path.
    """

    findings: BaselineFindings
    config: TrialConfig | None = None
    digests: dict[str, str] = field(default_factory=dict)


def read_baselines(study: OpenStudy) -> StoredBaselines | None:
    """Return the baselines of a study; None before they were measured.

    Raises:
        DamagedFileError: If the file cannot be read.
    """
    if not study.store.exists(paths.BASELINES):
        return None
    content = read_sealed_json(study.store, paths.BASELINES)
    with decoding(study.store.locate(paths.BASELINES)):
        return TypeAdapter(StoredBaselines).validate_json(json.dumps(content))


def full_trial_seconds(store: Store) -> dict[str, float] | None:
    """Return the measured device-seconds of a full trial by arm; None if they were not measured."""
    if not store.exists(paths.TRIAL_COSTS):
        return None
    return dict(read_sealed_json(store, paths.TRIAL_COSTS)["full_trial_device_seconds"])


def has_finished_search(study: OpenStudy) -> bool:
    """Whether every trial of the search has ended and its budget is used up."""
    measured = full_trial_seconds(study.store) if study.spec.search.device_seconds is not None else None
    return is_search_finished(study.book.of_stage("search"), study.spec, measured)


def require_finished_search(study: OpenStudy) -> None:
    """Raise UserInputError if the search has not finished."""
    if not has_finished_search(study):
        num_finished = sum(r.state.is_finished for r in study.book.of_stage("search"))
        num_planned = study.spec.num_trials
        planned = "" if num_planned is None else f" of {num_planned}"
        raise UserInputError(
            f"the search has finished {num_finished}{planned} trials and has not ended; "
            f"run `study resume {study.store.argument}` first"
        )


def list_rounds(study: OpenStudy) -> tuple[Store, ...]:
    """Return the rounds of a study, or of the study that a round belongs to, by number; those that were launched."""
    return paths.find_rounds(*_find_place(study))


def find_parent(study: OpenStudy) -> Store | None:
    """Return the analyzed study beside a round that asked for it; None if there is none."""
    parent = Store(join_uri(*_find_place(study)))
    return parent if parent.exists(paths.FINDINGS) else None


def next_round(study: OpenStudy) -> tuple[int, Store]:
    """Return the number and the store of the next round.

    Raises:
        UserInputError: if the name of the study leaves no room for that of the round.
    """
    beside, stem = _find_place(study)
    numbers = [load_study(store).spec.intervene for store in list_rounds(study)]
    number = 1 + max((section.round for section in numbers if section is not None), default=0)
    name = f"{stem}-intervene-{number}"
    if len(name) > LONGEST_NAME:
        raise UserInputError(
            f"the round would be named {name!r}, which is longer than {LONGEST_NAME} characters; launch the study under a "
            "shorter --name"
        )
    return number, Store(join_uri(beside, name))


def _find_place(study: OpenStudy) -> tuple[str, str]:
    """Return the folder of the study and its name; those of its parent's for a round."""
    beside, folder = split_uri(study.store.root)
    return beside, folder if study.spec.intervene is None else re.sub(r"-intervene-\d+$", "", folder)
