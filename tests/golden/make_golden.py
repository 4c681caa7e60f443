"""Write the golden study, small and finished, and the forms of all files: ``python -m tests.golden.make_golden``.

The study is small and stays so: weights, checkpoints, TensorBoard events and pages are removed, figures are shrunk. The forms are
the JSON schemas of what the files hold, without titles and descriptions.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import TypeAdapter

from analysis.interventions.values import StatedInterventions
from analysis.report.study_findings import Findings
from search_spaces.format import FORMAT
from study.confirmation.plan import Plan
from study.spec.study_spec import StudySpec
from study.state.lease import LeaseFile
from study.state.paths import STAGE_FOLDERS, TrialPaths
from trainables.records.record import TrialRecord
from trainables.records.trial_files import CHECKPOINTS, RESULTS, WEIGHTS

FOLDER = Path(__file__).parent
FINISHED = FOLDER / "finished"
FORMS = FOLDER / "forms.json"
REMOVED = ("*.safetensors", "events.out.tfevents.*", "report.html", "search.html", "explore.html", "lease/*")
FIGURE_SIDE = 160
MODELS = (StudySpec, TrialRecord, Plan, StatedInterventions, Findings, LeaseFile)
# What a schema says beyond the form.
WORDS = {"title", "description", "default", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern"}


def describe_forms() -> dict[str, Any]:
    """Return the forms of a study's files: their schemas, and where a trial's files lie."""
    paths = TrialPaths(stage="search", trial_id="ID")
    places = {
        "stages": STAGE_FOLDERS,
        "record": [paths.record, paths.record_copy],
        "files": [CHECKPOINTS, RESULTS, WEIGHTS],
    }
    schemas = {model.__name__: strip_words(TypeAdapter(model).json_schema()) for model in MODELS}
    return {"format": FORMAT, "places": places, "schemas": schemas}


def strip_words(schema: Any) -> Any:
    """Return a schema, or several, without `WORDS`; the order in which fields are required says nothing of the form."""
    if isinstance(schema, list):
        return [strip_words(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    # Below "properties" and "$defs" the keys are names of fields and types.
    return {
        key: {name: strip_words(entry) for name, entry in value.items()}
        if key in {"properties", "$defs"}
        else sorted(value)
        if key == "required"
        else strip_words(value)
        for key, value in schema.items()
        if key not in WORDS
    }


def shrink(folder: Path) -> None:
    """Remove what is large from a study, and shrink its figures."""
    for pattern in REMOVED:
        for path in folder.rglob(pattern):
            path.unlink()
    for path in folder.glob("findings/figures/*.png"):
        with Image.open(path) as image:
            image.thumbnail((FIGURE_SIDE, FIGURE_SIDE))
            image.convert("P", colors=32).save(path, optimize=True)


def main() -> None:
    """Run the study and replace what is stored."""
    with tempfile.TemporaryDirectory() as storage:
        command = [sys.executable, "-m", "study.cli", "run", str(FOLDER / "spec.toml"), "--local", "--storage", storage]
        subprocess.run(command, check=True)
        made = Path(storage, "finished")
        shrink(made)
        shutil.rmtree(FINISHED, ignore_errors=True)
        shutil.copytree(made, FINISHED)
    FORMS.write_text(json.dumps(describe_forms(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
