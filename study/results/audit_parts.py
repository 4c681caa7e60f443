"""The outcomes of the steps of an analysis, stored as they come, so that one that was interrupted goes on where it was."""

import json
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from analysis.causes.values import RootCause
from analysis.heat_maps.values import CamAdmission
from analysis.shortcuts.values import SwapAudits
from study.state.paths import AUDIT_PARTS
from study.state.sealed_files import read_sealed_json, write_sealed_json
from trainables.damaged_files import DamagedFileError
from trainables.storage.store import Store


class StepKind(StrEnum):
    """A step of the audit of an arm."""

    CAUSES = "causes"
    SWAPS = "swaps"
    CAMS = "cams"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPart:
    """The outcome of one step; what another step gives is left out.

    Attributes:
        causes: of the confused pairs.
        audits: of all models of the arm.
        exported: the same of the exported model alone.
        admission: of the heat maps; None where they are too small.
        problem: why the step could not be made; "" if it was.
    """

    causes: tuple[RootCause, ...] = ()
    audits: SwapAudits | None = None
    exported: SwapAudits | None = None
    admission: CamAdmission | None = None
    problem: str = ""


class AuditParts:
    """The stored outcomes of one study."""

    def __init__(self, store: Store, basis: str = "") -> None:
        """Read and write those of an analysis of `basis`, a digest of all that it depends on; others are ignored."""
        self._store, self._basis = store, basis

    def read(self, arm: str, kind: StepKind) -> AuditPart | None:
        """Return a stored outcome; None if there is none of the same basis, or it cannot be read."""
        name = _name(arm, kind)
        if not self._store.exists(name):
            return None
        try:
            stored = read_sealed_json(self._store, name)
            is_current = stored["basis"] == self._basis
            return _ADAPTER.validate_json(json.dumps(stored["outcome"])) if is_current else None
        except (DamagedFileError, ValidationError):
            return None

    def write(self, arm: str, kind: StepKind, part: AuditPart) -> None:
        """Store an outcome."""
        outcome = _ADAPTER.dump_python(part, mode="json")
        write_sealed_json(self._store, _name(arm, kind), {"basis": self._basis, "outcome": outcome})

    def delete(self) -> None:
        """Delete all of them: the findings hold what they say."""
        for name in self._store.list_folder(AUDIT_PARTS):
            self._store.delete(f"{AUDIT_PARTS}/{name}")


_ADAPTER = TypeAdapter(AuditPart)


def _name(arm: str, kind: StepKind) -> str:
    return f"{AUDIT_PARTS}/{quote(arm, safe='')}_{kind.value}.json"
