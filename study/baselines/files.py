"""baselines.json: the baselines of a study, as it measured them before its search. Needs no torch."""

import dataclasses
import json

from pydantic import TypeAdapter

from analysis.baselines.values import BaselineFindings
from search_spaces.config import TrialConfig
from study.open_study import OpenStudy
from study.state import paths
from study.state.sealed_files import read_sealed_json
from trainables.damaged_files import decoding


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredBaselines:
    """The content of baselines.json, which never changes.

    Attributes:
        findings: without what the comparison adds.
        config: of the probe's backbone and preprocessing; None without a probe.
        digests: SHA-256 of the probe's weights, by their path.
    """

    findings: BaselineFindings
    config: TrialConfig | None = None
    digests: dict[str, str] = dataclasses.field(default_factory=dict)


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
