"""A study on disk: written new, opened to be read or to be driven, and how far its search is. Needs no Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_spaces.errors import UserInputError
from study.scheduling.budget_ledger import is_search_finished
from study.scheduling.warm_start import WarmStart, write_warm_start
from study.spec.study_spec import StudySpec
from study.state.budget_extensions import extended_spec, launched_spec
from study.state.checksums import read_sealed_json, write_sealed_json, write_sealed_toml
from study.state.lease import hold_lease
from study.state.paths import PASSPORT, SPEC, TRIAL_COSTS, TrialPaths
from study.state.record_book import RecordBook
from trainables.records.record import TrialRecord
from trainables.records.store import Store

if TYPE_CHECKING:
    from trainables.records.trial_files import TrialFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """A study on disk: its store, its spec, its records."""

    store: Store
    spec: StudySpec
    book: RecordBook

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.spec.name


def check_is_new(store: Store, name: str) -> None:
    """Raise UserInputError if a study lies there already."""
    if store.exists(SPEC):
        raise UserInputError(
            f"the study {name!r} exists at {store.root}; continue it with `study resume {store.root}`, "
            "or give another --name"
        )
    if store.list_folder():
        raise UserInputError(f"{store.root} is not empty and holds no study; give another --name or --storage")


def create_study(
    store: Store,
    spec: StudySpec,
    spec_text: str,
    passport: dict[str, Any],
    *,
    costs: dict[str, float] | None = None,
    warm_start: WarmStart | None = None,
) -> OpenStudy:
    """Write a new study: what was measured of its trials' costs, what its samplers start from, passport and spec."""
    check_is_new(store, spec.name)
    if costs is not None:
        write_sealed_json(store, TRIAL_COSTS, {"full_trial_device_seconds": costs})
    if warm_start is not None:
        write_warm_start(store, warm_start)
    write_sealed_json(store, PASSPORT, passport)
    write_sealed_toml(store, SPEC, spec_text)
    return OpenStudy(store=store, spec=spec, book=RecordBook(store))


def load_study(store: Store) -> OpenStudy:
    """Read a study; raise UserInputError naming a file that cannot be read."""
    return OpenStudy(store=store, spec=extended_spec(store, launched_spec(store)), book=RecordBook(store))


@contextmanager
def open_to_drive(store: Store) -> Iterator[OpenStudy]:
    """Read a study under its lease, so that no other driver writes it; raise UserInputError if one drives it now."""
    with hold_lease(store) as lease:
        opened = load_study(store)
        opened.book.fence(lease.check, lease.token)
        yield opened


def read_passport(store: Store) -> dict[str, Any]:
    """Return the study's passport; raise DamagedFileError if it cannot be read."""
    return read_sealed_json(store, PASSPORT)


def full_trial_seconds(store: Store) -> dict[str, float] | None:
    """Return the device-seconds that a full trial of each arm was measured to need; None where it was not measured."""
    if not store.exists(TRIAL_COSTS):
        return None
    measured: dict[str, float] = read_sealed_json(store, TRIAL_COSTS)["full_trial_device_seconds"]
    return measured


def has_finished_search(study: OpenStudy) -> bool:
    """Whether every trial of the search has ended and its budget is used up."""
    measured = full_trial_seconds(study.store) if study.spec.search.device_seconds is not None else None
    return is_search_finished(study.book.of_stage("search"), study.spec, measured)


def require_finished_search(study: OpenStudy) -> None:
    """Raise UserInputError if trials of the search are still to be run."""
    if not has_finished_search(study):
        num_finished = sum(r.state.is_finished for r in study.book.of_stage("search"))
        planned = "" if study.spec.num_trials is None else f" of {study.spec.num_trials}"
        raise UserInputError(
            f"the search has finished {num_finished}{planned} trials and is not at its end; "
            f"run `study resume {study.store.root}` first"
        )


def trial_files(study: OpenStudy, record: TrialRecord) -> "TrialFiles":
    """Return the files of one trial."""
    # Imported here, because it needs torch.
    from trainables.records.trial_files import TrialFiles

    folder = TrialPaths(stage=record.stage, trial_id=record.trial_id).folder
    return TrialFiles(study.store.child(folder))
