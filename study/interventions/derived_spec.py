"""The study of a round of interventions, the winner and changes of it as given configurations; and the one that it recommends."""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tomli_w

from analysis.interventions.registry import CONTROL
from analysis.interventions.values import InterventionFindings, StatedInterventions
from analysis.statistics.moderated_variances import MIN_ROWS
from search_spaces.config import Value
from search_spaces.designs import make_factorial_runs
from search_spaces.errors import UserInputError
from search_spaces.settings import EpochSettings
from study.confirmation.stated_interventions import digest_stated
from study.inputs.preparation import Prepared, assemble, check_models
from study.interventions.diagnosing import Choosing
from study.interventions.stating import ProposedIntervention, Round
from study.open_study import OpenStudy, list_rounds, load_study
from study.spec.reading import validate_spec
from study.spec.spaces import widen_space
from study.spec.study_spec import StudySpec
from study.state.paths import RECOMMENDED, RECOMMENDED_MODEL
from study.views.export import export_weights
from trainables.seeds import derive_seed

# Keys of [search] that a study of given configurations has: the others apply to a search.
WITHOUT_SEARCH = ("space", *EpochSettings.model_fields)
GROUP_SETTINGS = ("weighted_group", "hard_group")
LEAVE_OUT = "leave_out"
SAME_SPLITS = """\
# leave_out names training images by their places in the splits of this seed. It is therefore that of the study which chose the
# configuration, and so are the test images: the comparison is of new training runs, not of new images.
"""


def find_share(parent: OpenStudy, names: Collection[str]) -> float:
    """Return the share of a round's alpha that its interventions have: those of all rounds so far, each tried or not, share it.

    A later round tries what an earlier one liked best, on the same images. With the whole alpha for the few that it tries, wrong
    verdicts would be up to twice as many as the round allows.

    Args:
        parent: the study that asks for the round.
        names: of the interventions of this round.
    """
    tried = {*names}
    for store in list_rounds(parent):
        spec = load_study(store).spec
        if spec.intervene is not None:
            tried.update(spec.intervene.factors or [arm.name for arm in spec.arms()][1:])
    return len(names) / len(tried)


def derive_spec(planned: Round, stated: StatedInterventions, name: str) -> StudySpec:
    """Return the spec of the study that tries the interventions.

    The control is the winner's configuration. Half of the round's alpha belongs to the rows of macro-F1 and half to the targets;
    `find_share` says what a later round has of it.

    Args:
        planned: the round.
        stated: what its interventions state.
        name: of the new study.

    Raises:
        UserInputError: if the changes of an intervention do not fit the study.
    """
    changes = {found.arm: found.changes for found in stated.interventions}
    data = _derive(planned, changes, name, digest_stated(stated))
    data["confirm"]["alpha"] *= find_share(planned.parent, changes)
    return validate_spec(data, where=name)


def keep_fitting(
    planned: Round, proposals: Sequence[ProposedIntervention], prepared: Prepared
) -> tuple[tuple[ProposedIntervention, ...], dict[str, str]]:
    """Return the proposals that fit the study, each alone beside the control, and for the others, by name, why they do not.

    Args:
        planned: the round.
        proposals: the interventions.
        prepared: the parent's data.
    """
    fitting, misfits, name = [], {}, planned.parent.name
    for proposal in proposals:
        changes = {proposal.intervention.name: dict(proposal.changes)}
        try:
            spec = validate_spec(_derive(replace(planned, is_factorial=False), changes, name, ""), where=name)
            check_models(spec, assemble(spec, prepared.image_set, prepared.splits, prepared.weights))
            fitting.append(proposal)
        except UserInputError as error:
            misfits[proposal.intervention.name] = " ".join(str(error).split())
    return tuple(fitting), misfits


def _derive(planned: Round, changes: Mapping[str, dict[str, Value]], name: str, digest: str) -> dict[str, Any]:
    """Return the tables of the spec, with the digest of what is stated."""
    parent, choosing = planned.parent, planned.choosing
    data = parent.spec.model_dump(exclude_none=True)
    # The error rate of all rounds together, of which each takes half of what the rounds before it left.
    alpha = parent.spec.confirm.alpha if parent.spec.intervene is None else parent.spec.intervene.alpha
    data["name"] = name
    for key in ("design", "minimum", "plan"):
        data.pop(key, None)
    data["search"] = {key: value for key, value in data["search"].items() if key in WITHOUT_SEARCH}
    winner = dict(choosing.source.config.hyperparameters)
    one_at_a_time: dict[str, Sequence[str]] = {CONTROL: (), **{arm: (arm,) for arm in changes}}
    runs = make_factorial_runs(list(changes)) if planned.is_factorial else one_at_a_time
    data["configurations"] = {run: change_configuration(winner, *(changes[n] for n in runs[run])) for run in runs}
    if isinstance(space := data["search"].get("space"), dict):
        data["search"]["space"] = widen_space(space, list(data["configurations"].values()))
    used = [
        configuration.get(setting) for configuration in data["configurations"].values() for setting in GROUP_SETTINGS
    ]
    used += [data["train"].get(setting) for setting in GROUP_SETTINGS]
    groups = {name: list(classes) for name, classes in parent.spec.analyze.groups.items() if name in used}
    if choosing.diagnosis.confused:
        groups[choosing.diagnosis.group] = list(choosing.diagnosis.confused)
    data["analyze"] |= {"num_panels": 0, "num_audit_images": 0, "groups": groups}
    intervals = "planned" if planned.is_factorial or len(changes) < MIN_ROWS else "moderated"
    data["confirm"] |= {
        "top_k": 1,
        "looks": list(planned.looks),
        "intervals": intervals,
        "alpha": alpha / 2**planned.number / 2,
    }
    data["resources"] |= {kind: _devices(parent, choosing, data["configurations"], kind) for kind in ("cpu", "gpu")}
    data["model"]["arguments"] = _keep_arguments(data["model"]["arguments"], data["configurations"])
    data["intervene"] = {"parent": parent.store.root, "round": planned.number, "stated": digest, "alpha": alpha}
    if planned.is_factorial:
        data["intervene"]["factors"] = list(changes)
    return data


def change_configuration(configuration: dict[str, Value], *changes: dict[str, Value]) -> dict[str, Value]:
    """Return a configuration with changes; without the strength of class weights where there are none."""
    changed = {**configuration}
    for change in changes:
        changed |= change
    if changed.get("class_weighting") == "none":
        changed.pop("class_weight_strength", None)
    return changed


def _devices(parent: OpenStudy, choosing: Choosing, configurations: dict[str, Any], kind: str) -> Any:
    """Return the devices of a trial: the parent's number, or by arm that of the parent's arm with the same backbone."""
    value = getattr(parent.spec.resources, kind)
    if not isinstance(value, dict):
        return value
    own, own_backbone = choosing.source.config.arm, choosing.source.config["backbone"]
    by_backbone = {str(arm.space.values_of("backbone")): value[arm.name] for arm in reversed(parent.spec.arms())}
    return {
        name: value[own]
        if configuration["backbone"] == own_backbone
        else by_backbone.get(str((configuration["backbone"],)), max(value.values()))
        for name, configuration in configurations.items()
    }


def _keep_arguments(arguments: dict[str, Any], configurations: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of models without the tables of backbones that no configuration has."""
    named = {configuration["backbone"] for configuration in configurations.values()}
    return {name: value for name, value in arguments.items() if not isinstance(value, dict) or name in named}


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
    data["model"]["arguments"] = _keep_arguments(data["model"]["arguments"], data["configurations"])
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
