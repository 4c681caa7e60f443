"""The findings of an analyzed study, read from its files; nothing that computes them is imported, so that reading is quick."""

import json
from collections.abc import Mapping

from pydantic import TypeAdapter

from analysis.interventions.values import InterventionFindings
from analysis.report.study_findings import Findings
from search_spaces.errors import UserInputError
from search_spaces.format import check_format
from study.open_study import OpenStudy, list_rounds, load_study
from study.state import paths
from study.state.sealed_files import read_sealed_json
from trainables.damaged_files import decoding


def load_findings(study: OpenStudy) -> Findings:
    """Return the findings of an analyzed study.

    Raises:
        UserInputError: if the study has not been analyzed; the message names the step that is to be done first.
        DamagedFileError: if the file cannot be read.
    """
    if not study.store.exists(paths.FINDINGS):
        from study.confirmation.evidence import is_confirmed, require_plan

        require_plan(study)
        step = "analyze" if is_confirmed(study) else "compare"
        raise UserInputError(f"there are no findings yet; run `study {step} {study.store.argument}` first")
    where = study.store.locate(paths.FINDINGS)
    with decoding(where):
        data = read_sealed_json(study.store, paths.FINDINGS)
        check_format(data.get("format"), where)
        return TypeAdapter(Findings).validate_json(json.dumps(data))


def load_rounds(study: OpenStudy) -> Mapping[str, InterventionFindings]:
    """Return what the finished rounds of a study did, by their names; nothing for a study that is a round itself."""
    if study.spec.intervene is not None:
        return {}
    rounds = [load_study(store) for store in list_rounds(study) if store.exists(paths.FINDINGS)]
    found = {one.spec.name: load_findings(one).interventions for one in rounds}
    return {name: done for name, done in found.items() if done is not None}
