"""What a study of interventions recommends: a spec of the best configuration against the control, and its weights."""

import shutil

import tomli_w

from analysis.interventions.values import InterventionFindings
from study.open_study import OpenStudy
from study.spec.reading import validate_spec
from study.state.paths import RECOMMENDED, RECOMMENDED_MODEL
from study.views.export import export_weights
from trainables.seeds import derive_seed

LEAVE_OUT = "leave_out"
SAME_SPLITS = """\
# leave_out names training images by their places in the splits of this seed. It is therefore that of the study which chose the
# configuration, and so are the test images: the comparison is of new training runs, not of new images.
"""


def write_recommendation(study: OpenStudy, found: InterventionFindings) -> tuple[str, ...]:
    """Write the spec and, beside a local study, the weights of the recommended arm; return their places.

    The spec compares the recommended configuration with the control anew, under the parent's rule and with another seed, unless
    training images are left out, which are those of the seed. Nothing is written if nothing helped.

    Args:
        study: of the interventions, opened to be driven.
        found: its findings.
    """
    if not found.recommended:
        return ()
    study.store.write_text(RECOMMENDED, make_recommended_spec(study, found))
    places = [study.store.locate(RECOMMENDED)]
    if study.store.is_local:
        folder = study.store.local_path / RECOMMENDED_MODEL
        shutil.rmtree(folder, ignore_errors=True)
        export_weights(study, found.recommended, folder)
        places.append(str(folder))
    return tuple(places)


def make_recommended_spec(study: OpenStudy, found: InterventionFindings) -> str:
    """Return the TOML text of a spec that `study run` takes: the control and the recommended configuration."""
    assert study.spec.intervene is not None
    data = study.spec.model_dump(exclude_none=True)
    configurations = data["configurations"]
    del data["intervene"]
    data["name"] = f"{study.name[:50]}-recommended"
    data["configurations"] = {name: configurations[name] for name in (found.control, found.recommended)}
    for kind in ("cpu", "gpu"):
        if isinstance(value := data["resources"][kind], dict):
            data["resources"][kind] = {name: value[name] for name in data["configurations"]}
    named = {values["backbone"] for values in data["configurations"].values()}
    arguments = data["model"]["arguments"]
    data["model"]["arguments"] = {n: v for n, v in arguments.items() if not isinstance(v, dict) or n in named}
    left_out = any(values.get(LEAVE_OUT) for values in (data["train"], *data["configurations"].values()))
    if left_out:
        data["confirm"]["seed_name"] = study.name
    else:
        # Other seeds and, where they are drawn, other test images than those that chose the configuration.
        data["seed"] = derive_seed(study.spec.seed, "recommended", study.spec.intervene.round) % 2**31
    data["confirm"] |= {"alpha": study.spec.intervene.alpha, "intervals": "planned"}
    del data["analyze"]["num_audit_images"], data["analyze"]["num_panels"]
    validate_spec(data, where=data["name"])
    return (SAME_SPLITS if left_out else "") + tomli_w.dumps(data)
