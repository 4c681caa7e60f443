"""The names of a study's files and folders; no other file spells them out."""

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from search_spaces.errors import UserInputError, nearest_name
from trainables.records.record import RECORD, RECORD_COPY
from trainables.storage.store import StorageError, Store, join_uri

Stage = Literal["search", "confirmation", "intervention"]
STAGE_FOLDERS: dict[Stage, str] = {"search": "trials", "confirmation": "confirmation", "intervention": "interventions"}
SPEC = "spec.toml"
PASSPORT = "passport.json"
EXTENSIONS = "extensions"
WARM_START = "warm_start.json"
LEASES = "lease"
CHANGES = "changes"
TRIAL_COSTS = "trial_costs.json"
PLAN = "confirmation/plan.json"
BASELINE_FOLDER = "baselines"
BASELINES = "baselines/baselines.json"
BASELINES_ON_TEST = "baselines/test.json"
BASELINES_CSV = "findings/baselines.csv"
INTERVENTIONS = "interventions.json"
# What a launch writes before the spec: one that is killed may leave these alone.
BEFORE_SPEC = frozenset({LEASES, TRIAL_COSTS, WARM_START, INTERVENTIONS, PASSPORT})
TEST_READS = "confirmation/test_reads"
FINDINGS = "findings/findings.json"
# Outcomes of an analysis that has not ended.
AUDIT_PARTS = "findings/parts"
INTERVENTIONS_CSV = "findings/interventions.csv"
RECOMMENDED = "recommended.toml"
RECOMMENDED_MODEL = "recommended"
COMPARISON_CSV = "findings/comparison.csv"
ARMS_CSV = "findings/arms.csv"
TEST_IMAGES_CSV = "findings/test_images.csv"
SIDE_METRICS_CSV = "findings/side_metrics.csv"
COMPARISON_MARKDOWN = "findings/comparison.md"
COMPARISON_LATEX = "findings/comparison.tex"
FIGURES = "findings/figures"
THUMBNAIL_SHEETS = "findings/thumbnails"
THUMBNAILS = "findings/thumbnails/index.json"
REPORT_HTML = "report.html"
REPORT_MARKDOWN = "report.md"
EXPLORE_HTML = "explore.html"


class ReportFormat(StrEnum):
    """What a report may be written as."""

    HTML = "html"
    MARKDOWN = "md"
    EXPLORE = "explore"

    @property
    def file(self) -> str:
        """The name of the file."""
        return {"html": REPORT_HTML, "md": REPORT_MARKDOWN, "explore": EXPLORE_HTML}[self.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPaths:
    """The names of one trial's files, relative to the study's root."""

    stage: Stage
    trial_id: str

    @property
    def folder(self) -> str:
        """The trial's folder; TensorBoard events lie directly in it."""
        return f"{STAGE_FOLDERS[self.stage]}/{self.trial_id}"

    @property
    def record(self) -> str:
        """The trial's record."""
        return f"{self.folder}/{RECORD}"

    @property
    def record_copy(self) -> str:
        """The copy of the record, written right after it, from which a damaged record is recovered."""
        return f"{self.folder}/{RECORD_COPY}"


def default_storage() -> str:
    """Return the storage root: ``$STUDY_STORAGE``, or ``studies`` in the working folder."""
    return os.environ.get("STUDY_STORAGE") or "studies"


def study_uri(study: str, storage: str | None = None) -> str:
    """Return the root of a study that is given as a path, a URI, or a name under the storage root."""
    if "://" in study or "/" in study or study in {".", ".."}:
        return study.rstrip("/")
    return join_uri(storage or default_storage(), study)


def open_study(study: str, storage: str | None = None) -> Store:
    """Return the store of an existing study; raise UserInputError, with the nearest name, if there is none."""
    uri = study_uri(study, storage)
    store = Store(uri)
    if store.exists(SPEC):
        return store
    root = Store(storage or default_storage())
    names = [n for n in root.list_folder() if _has_spec(root, n)]
    near = nearest_name(Path(study).name, names) if names else "; `study launch` creates one"
    raise UserInputError(f"there is no study at {uri}{near}")


def _has_spec(root: Store, name: str) -> bool:
    """Return whether a folder holds a study; that of someone else, which cannot be read, does not."""
    try:
        return root.exists(f"{name}/{SPEC}")
    except StorageError:
        return False


def find_rounds(beside: str, study: str) -> tuple[Store, ...]:
    """Return the rounds of interventions of a study by number: the studies in its folder that are named after it.

    Args:
        beside: URI of the folder that holds the study.
        study: name of its own folder.
    """
    pattern = re.compile(re.escape(study) + r"-intervene-(\d+)")
    found = {}
    for name in Store(beside).list_folder():
        match = pattern.fullmatch(name)
        if match and (store := Store(join_uri(beside, name))).exists(SPEC):
            found[int(match[1])] = store
    return tuple(found[number] for number in sorted(found))
