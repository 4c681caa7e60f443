"""What `study inspect` says beside the images: the stages from files to logits; weights, devices and time."""

from dataclasses import replace

import numpy as np
import torch

from analysis.formats.text_sections import InspectionSection, SectionTable
from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from study.cluster.connection import check_cluster, connect_cluster, count_devices
from study.inputs.preparation import Prepared
from study.spec.study_spec import StudySpec
from study.views.forecast_basis import find_basis
from study.views.planning import describe_looks
from study.views.study_cost import describe_study_time, measure_full_trials
from trainables.data.augmentation.pipeline import augment_batch
from trainables.data.image_audit import AuditStage, audit_batch
from trainables.data.images import ImageOrigin
from trainables.models.backbones import build_model, place_model, prepare_inputs, read_augmentation
from trainables.models.heads import find_head
from trainables.seeds import torch_generator
from trainables.training.evaluation import autocast

NUM_AUDITED_IMAGES = 64
# Images that pass through every backbone.
NUM_FORWARDED_IMAGES = 8
CUTMIX_PROBABILITY = 0.5
DEFAULT_BACKBONE = "resnet18"
# Features and logits beyond it are a sign of weights that do not fit the images.
LARGEST_OUTPUT = 1e4


def inspection_config(spec: StudySpec, prepared: Prepared) -> TrialConfig:
    """Return a configuration of the first arm with a backbone; a searched CutMix applies to half of the images.

    Where a custom training loop trains every arm, the backbone is `DEFAULT_BACKBONE`.
    """
    with_backbone = [arm for arm in spec.arms() if arm.space.values_of("backbone")]
    arm = (with_backbone or spec.arms())[0]
    fixed = dict(arm.space.fixed)
    values: dict[str, Value] = {
        "backbone": (*arm.space.values_of("backbone"), DEFAULT_BACKBONE)[0],
        "interpolation": str(fixed.get("interpolation", "bicubic")),
        "cutmix_probability": fixed.get("cutmix_probability", CUTMIX_PROBABILITY),
        **spec.middle_settings(arm),
    }
    return TrialConfig(arm="inspection", seed=spec.seed, hyperparameters=values, fixed=prepared.fixed)


def audit_stages(spec: StudySpec, prepared: Prepared, *, has_models: bool) -> list[AuditStage]:
    """Return the audit of the files, of the model's inputs in evaluation and training, of soft targets, features and logits.

    Args:
        spec: of the study.
        prepared: its data.
        has_models: whether the model of every arm can be built; otherwise there are no features and logits.
    """
    origin = prepared.image_set.origin
    files = [] if origin is None else [_audit_files(origin)]
    outputs = _audit_outputs(spec, prepared) if has_models else []
    return [*files, *audit_tensors(spec, prepared), *outputs]


def audit_tensors(spec: StudySpec, prepared: Prepared) -> list[AuditStage]:
    """Return the audit of the model's inputs in evaluation and training, and of the soft targets."""
    indices = prepared.splits.train[:NUM_AUDITED_IMAGES]
    images = torch.from_numpy(np.array(prepared.image_set.images[indices]))
    labels = torch.from_numpy(np.array(prepared.image_set.labels[indices]))
    config = inspection_config(spec, prepared)
    trained, targets = augment_batch(
        images,
        labels,
        generator=torch_generator(spec.seed, "audit"),
        settings=read_augmentation(config),
        num_classes=prepared.image_set.num_classes,
    )
    return [
        audit_batch("evaluation input", prepare_inputs(images, config), "NCHW", -4.0, 4.0),
        audit_batch("training input", trained, "NCHW", -4.0, 4.0),
        audit_batch("soft targets", targets, "NK", 0.0, 1.0),
    ]


def _audit_files(origin: ImageOrigin) -> AuditStage:
    sizes = origin.sizes
    low, high = (float(sizes.min()), float(sizes.max())) if len(sizes) else (float("nan"), float("nan"))
    kinds = next(iter(origin.kinds)) if len(origin.kinds) == 1 else f"{len(origin.kinds)} kinds"
    problem = f"{len(origin.skipped)} files are not used" if origin.skipped else None
    return AuditStage("files (sides in px)", (len(origin.names),), kinds, low, high, "N", problem)


def _audit_outputs(spec: StudySpec, prepared: Prepared) -> list[AuditStage]:
    """Return the audit of features and logits of each backbone; the logits are those of the new head that a trial starts with."""
    config = inspection_config(spec, prepared)
    images = np.array(prepared.image_set.images[prepared.splits.train[:NUM_FORWARDED_IMAGES]])
    inputs = prepare_inputs(torch.from_numpy(images), config)
    device = torch.device("cpu")
    stages = []
    for backbone in spec.setting_values("backbone"):
        chosen = replace(config, hyperparameters={**config.hyperparameters, "backbone": backbone})
        model = build_model(chosen, prepared.image_set.num_classes, weights=prepared.weights)
        place_model(model, chosen, device).eval()
        kept: list[torch.Tensor] = []
        find_head(model)[1].register_forward_pre_hook(lambda _, given, kept=kept: kept.append(given[0]))
        with torch.inference_mode(), autocast(chosen, device):
            logits = model(inputs)
        random = ", random weights" if prepared.weights == "none" else ""
        stages.append(audit_batch(f"{backbone} features{random}", kept[0], "ND", -LARGEST_OUTPUT, LARGEST_OUTPUT))
        stages.append(audit_batch(f"{backbone} logits", logits, "NK", -LARGEST_OUTPUT, LARGEST_OUTPUT))
    return stages


def inspect_resources(
    spec: StudySpec, prepared: Prepared, address: str | None, *, is_measured: bool
) -> tuple[tuple[InspectionSection, ...], tuple[str, ...]]:
    """Return the sections on resources and on the looks, and what keeps the study from being launched.

    Args:
        spec: of the study.
        prepared: its data.
        address: of a running Ray cluster; None for this machine.
        is_measured: whether the seconds of a trial are measured; not with --quick, or if a model cannot be built.
    """
    lines = [f"weights: {prepared.fixed['weights']}; arms: {', '.join(arm.name for arm in spec.arms())}"]
    problems: list[str] = []
    tables: tuple[SectionTable, ...] = ()
    try:
        with connect_cluster(address) as cluster:
            lines.append(cluster.describe())
            most = check_cluster(spec, cluster)
            lines.append(f"up to {most} trials run at once")
            if not is_measured:
                lines.append("seconds per trial: not measured")
            else:
                seconds = measure_full_trials(spec, prepared, cluster)
                line, table = describe_study_time(spec, seconds, count_devices(spec, cluster, most))
                lines.append(line)
                tables = (table,)
    except UserInputError as error:
        message = str(error)
        problems.append(message)
        lines.append(f"seconds per trial are not known: {message}")
    resources = InspectionSection(
        anchor="resources",
        title="Weights, devices and time",
        lines=tuple(lines),
        tables=tables,
        note="Measured on three batches of each arm, for trials that run every epoch; pruned trials take less.",
    )
    sections = [resources]
    if spec.contrasts():
        sections.append(describe_looks(spec, find_basis(spec, None), len(prepared.splits.test)))
    return tuple(sections), tuple(problems)
