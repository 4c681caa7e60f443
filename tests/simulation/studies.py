"""The studies of the simulation: a search with its confirmation, with folds or without, or a round of interventions."""

import random
from functools import cache
from typing import Any

from analysis.interventions.values import Prediction, StatedIntervention, StatedInterventions, Target, TargetKind
from study.confirmation.stated_interventions import digest_stated
from study.inputs.preparation import Prepared, assemble, load_split_images
from study.spec.reading import validate_spec
from study.spec.study_spec import StudySpec
from tests.built_values import BASE

# Seeds of which one searches with a Gaussian process, whose suggestions take a hundred times as long.
GAUSSIAN_EVERY = 50


def draw_study(seed: int, rng: random.Random) -> tuple[StudySpec, StatedInterventions | None]:
    """Return the spec of a seed's study, and what it states if it is a round of interventions."""
    looks = rng.choice([[2], [2, 3]])
    confirm: dict[str, Any] = {"looks": looks, "folds": rng.choice([0, 0, 2]), "top_k": 1}
    # A trial that does not report for two minutes is stopped.
    resources = {"checkpoint_seconds": rng.choice([0, 0, 10]), "timeout_seconds": 120.0, "max_failed_fraction": 1.0}
    data: dict[str, Any] = {
        "name": "simulated",
        "seed": seed,
        "data": {"source": "planted", "num_images": 160, "test_fraction": 0.3},
        "model": {"weights": "none"},
        "train": {"image_size": 16},
        "analyze": {"num_panels": 0, "num_audit_images": 0},
        "confirm": confirm,
        "resources": resources,
    }
    if rng.random() < 0.25:
        return _make_round(data, rng)
    confirm["top_k"] = rng.choice([1, 2])
    samplers = ["tpe_multivariate"] * 5 + ["tpe_univariate", "random"]
    data["search"] = {
        "num_trials": rng.randint(6, 11),
        "max_epochs": rng.randint(2, 4),
        "sampler": "gp" if seed % GAUSSIAN_EVERY == 0 else rng.choice(samplers),
        "pruning": "asha" if rng.random() < 0.6 else "none",
        "asha": {"first_rung": rng.choice([0.25, 0.5])},
        "keep_weights": rng.choice([2, "all"]),
    }
    return validate_spec(data, where="simulation"), None


def _make_round(data: dict[str, Any], rng: random.Random) -> tuple[StudySpec, StatedInterventions]:
    names = ["weighted_loss", "cutmix"][: rng.randint(1, 2)]
    found = StatedInterventions(
        created="2026-12-01T00:00:00+00:00",
        parent="parent",
        round=1,
        source_arm="all",
        source_trial_id="00000",
        half_seed=1,
        num_choosing=24,
        num_judging=24,
        interventions=tuple(_state(name) for name in names),
        earlier_test_reads=1,
    )
    changes = {
        "weighted_loss": {"class_weighting": "inverse_frequency", "class_weight_strength": 0.5},
        "cutmix": {"cutmix_probability": 0.5},
    }
    data["search"] = {"max_epochs": rng.randint(2, 4)}
    data["configurations"] = {"control": BASE, **{name: BASE | changes[name] for name in names}}
    data["confirm"] |= {"alpha": 0.0125}
    data["intervene"] = {"parent": "parent", "round": 1, "alpha": 0.05, "stated": digest_stated(found)}
    return validate_spec(data, where="simulation"), found


def _state(name: str) -> StatedIntervention:
    classes = tuple(_load()[0].class_names[:2])
    return StatedIntervention(
        arm=name,
        title=name,
        symptom="confused",
        diagnosis="",
        verdict="MATERIAL",
        changes={},
        target=Target(kind=TargetKind.CELLS, classes=classes[:1], cells=((classes[0], classes[1]),)),
        spares="",
        prediction=Prediction(effect=None, basis=""),
        refuted_by="",
        is_seen=False,
        num_target_images=5,
    )


@cache
def _load() -> Any:
    spec = {
        "name": "images",
        "data": {"source": "planted", "num_images": 160, "test_fraction": 0.3},
        "model": {"weights": "none"},
        "train": {"image_size": 16},
    }
    return load_split_images(validate_spec(spec, where="simulation"))


def prepare_study(spec: StudySpec) -> Prepared:
    """Return the data of a study; the images are those of every seed."""
    image_set, splits = _load()
    return assemble(spec, image_set, splits, "none")
