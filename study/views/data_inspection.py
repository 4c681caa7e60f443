"""`study inspect`: what is known of data, weights and resources before a study is launched."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from analysis.baselines.values import describe_baselines
from analysis.formats.text_sections import InspectionSection, SectionTable, make_section
from analysis.images.appearance import draw_examples
from analysis.images.inspection import inspect_features, inspect_images
from analysis.images.values import ImageFindings, ImagePair, Inspection, NetworkFindings
from analysis.report.inspection_page import build_inspection_page, describe_inspection
from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError, attempt
from study.baselines.measuring import preview_baselines
from study.cluster.connection import LOCAL, THIS_PROCESS, check_cluster, connect_cluster, count_devices, make_workers
from study.cluster.tasks import find_device, make_task
from study.inputs import preparation
from study.inputs.fitted_defaults import FittedSpec, fit_defaults
from study.inputs.human_labels import load_human_shares
from study.inputs.preparation import Prepared, image_set_of
from study.spec.study_spec import StudySpec
from study.views.forecast_basis import find_basis
from study.views.planning import describe_looks
from study.views.printing import print_line, print_lines, print_section
from study.views.study_cost import describe_study_time, measure_full_trials
from trainables.data.augmentation.pipeline import augment_batch
from trainables.data.image_audit import AuditReport, AuditStage, audit_batch, audit_image_set
from trainables.data.images import ImageOrigin
from trainables.data.splits import Splits
from trainables.models.backbones import build_model, place_model, prepare_inputs, read_augmentation
from trainables.models.heads import find_head
from trainables.models.weights import find_weights_file
from trainables.seeds import torch_generator
from trainables.training.evaluation import autocast
from trainables.training.frozen_features import FrozenBackbone
from trainables.training.trial_data import TrialData

# Rows of a long list in the terminal.
MOST_ROWS = 10
NUM_AUDITED_IMAGES = 64
# Images that pass through every backbone.
NUM_FORWARDED_IMAGES = 8
CUTMIX_PROBABILITY = 0.5
DEFAULT_BACKBONE = "resnet18"
# Features and logits beyond it are a sign of weights that do not fit the images.
LARGEST_OUTPUT = 1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The data of a spec, with everything that is wrong with it.

    Attributes:
        prepared: the data; its weights are "none" where the spec's are missing.
        audit: of the images.
        problems: what keeps the study from being launched.
        weights_note: why there are no pretrained weights for every backbone; "" if there are.
        has_models: whether the model of every arm can be built.
        fitted: the spec, fitted to the images if it is not launched yet.
    """

    prepared: Prepared
    audit: AuditReport
    problems: tuple[str, ...]
    weights_note: str
    has_models: bool
    fitted: FittedSpec


def print_inspection(
    spec: StudySpec,
    address: str | None,
    console: Console,
    *,
    text: str | None = None,
    to: Path | None = None,
    quick: bool = False,
) -> None:
    """Print what is known of the images, the weights and the cluster; with `to`, also write it as a page.

    Args:
        spec: of the study.
        address: of a running Ray cluster; None for this machine.
        console: to print to.
        text: TOML text of a spec that is not launched yet; what it leaves out is fitted to the images, as at a launch.
        to: HTML file to write; None for none.
        quick: whether the probes on a network and the measurement of a trial's seconds are left out.

    On a running cluster, a device of a trial computes the probes; else this process does.

    Raises:
        UserInputError: if the images cannot be loaded; and, after everything has been printed, listing what keeps the study from
            being launched.
    """
    if to is not None and (to.suffix.lower() != ".html" or not to.parent.is_dir()):
        raise UserInputError(f"--to takes a file that ends in .html, in a folder that exists, but got {str(to)!r}")
    with console.status("loading images") as status:
        gathered = gather(spec, text)
        spec = gathered.fitted.spec
        found = compute_inspection(gathered, quick=quick, report=status.update, address=address)
    print_lines((f"fitted to the data: {note}" for note in gathered.fitted.notes), console)
    for section in describe_inspection(found, most=MOST_ROWS, num_named=1):
        print_section(section, console)
    is_measured = not quick and gathered.has_models
    extra = []
    if is_measured and not _find_missing_weights(spec):
        with console.status("baselines"):
            baselines = describe_baselines(preview_baselines(spec, gathered.prepared, address))
        extra.append(make_section("baselines", "What a study must beat", baselines))
        print_section(extra[0], console)
    resources, problems = inspect_resources(spec, gathered.prepared, address, is_measured=is_measured)
    for section in resources:
        print_section(section, console)
    problems = (*gathered.problems, *problems)
    if to is not None:
        write_page(to, build_inspection_page(found, (*extra, *resources), problems))
        print_line(f"written: {to}", console)
    if problems:
        raise UserInputError(f"this spec cannot be launched: {'; '.join(problems)}")


def gather(spec: StudySpec, text: str | None = None) -> Gathered:
    """Return the data of a spec and everything that is wrong with it; raise UserInputError if images cannot be loaded.

    Args:
        spec: of the study.
        text: see `print_inspection`.
    """
    image_set, splits = preparation.load_split_images(spec)
    fitted = FittedSpec(spec=spec, notes=())
    if text is not None:
        fitted = fit_defaults(spec, text, image_set, splits)
        spec = fitted.spec
    audit = audit_image_set(image_set, splits)
    problems, model_problems, missing = [*audit.problems], list[str](), _find_missing_weights(spec)
    attempt(problems, preparation.check_class_groups, spec, image_set)
    if spec.analyze.human_counts is not None:
        attempt(problems, load_human_shares, spec.analyze.human_counts, image_set)
    weights = "none" if missing else preparation.locate_weights(spec.model.weights)
    prepared = preparation.assemble(spec, image_set, splits, weights)
    attempt(model_problems, preparation.check_models, spec, prepared)
    note = f"needs pretrained weights: {missing[0]}" if missing else ""
    if weights == "none" and not missing:
        note = 'needs pretrained weights, but model.weights is "none"; set it to "imagenet", a file or a folder'
    return Gathered(
        prepared=prepared,
        audit=audit,
        problems=(*problems, *missing, *model_problems),
        weights_note=note,
        has_models=not model_problems,
        fitted=fitted,
    )


def compute_inspection(
    gathered: Gathered, *, quick: bool, report: Callable[[str], None] = lambda _: None, address: str | None = None
) -> Inspection:
    """Return everything that is known of the images of a spec.

    Args:
        gathered: the data of the spec.
        quick: whether the probes on a network are left out.
        report: called with each step's name.
        address: see `print_inspection`.
    """
    spec, prepared = gathered.fitted.spec, gathered.prepared
    image_set, splits = prepared.image_set, prepared.splits
    config = inspection_config(spec, prepared)
    report("every stage from file to logits")
    stages = (*gathered.audit.stages, *audit_stages(spec, prepared, has_models=gathered.has_models))
    report("duplicates, odd images and colors")
    images = inspect_images(image_set, splits, image_size=config.whole("image_size"), seed=spec.seed)
    network: NetworkFindings | None = None
    note = "left out with --quick" if quick else gathered.weights_note
    if not note and not gathered.has_models:
        note = "needs a model that can be built"
    if not note:
        network, note = _inspect_network(spec, prepared, images, address, report)
    return Inspection(
        name=spec.name,
        image_set=image_set,
        splits=splits,
        stages=stages,
        audit=gathered.audit,
        examples=draw_examples(image_set, splits, read_augmentation(config), spec.seed),
        image_size=config.whole("image_size"),
        images=images,
        network=network,
        network_note=note,
    )


def write_page(path: Path, html: str) -> None:
    """Write a page aside, then put it in place; raise UserInputError if it cannot be written."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(html, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserInputError(f"{path} cannot be written ({error.strerror}); give --to another file") from None


def _inspect_network(
    spec: StudySpec, prepared: Prepared, images: ImageFindings, address: str | None, report: Callable[[str], None]
) -> tuple[NetworkFindings | None, str]:
    """Return the findings of the probes, or None and why there are none."""
    config = inspection_config(spec, prepared)
    call = (config, prepared.weights, prepared.splits, (*images.exact, *images.near), spec.seed)
    arm = spec.arms()[0].name
    if address in {None, LOCAL, THIS_PROCESS}:
        may_use_gpu = spec.resources.device != "cpu" and spec.resources.of_arm("gpu", arm) > 0
        device = torch.device("cuda" if may_use_gpu and torch.cuda.is_available() else "cpu")
        found = _probe(*call, device, report, data=prepared.data)
    else:
        report(f"probes on {config.word('backbone')}, on the cluster")
        try:
            with connect_cluster(address) as cluster:
                check_cluster(spec, cluster)
                workers = make_workers(cluster, spec, prepared.data)
                found = next(workers.run_tasks(_probe, [make_task(spec, arm, *call)]))
        except UserInputError as error:
            return None, f"the cluster did not compute it: {error}"
    return found, "" if found else "a probe needs two classes with two images each (or two groups of images)"


def _probe(
    config: TrialConfig,
    weights: str,
    splits: Splits,
    copies: tuple[ImagePair, ...],
    seed: int,
    device: torch.device | None = None,
    report: Callable[[str], None] = lambda _: None,
    *,
    data: TrialData,
) -> NetworkFindings | None:
    """Return the findings of the probes on a frozen backbone, on the given device or that of the task."""
    backbone = FrozenBackbone.build(config, weights, device or find_device())
    return inspect_features(backbone, image_set_of(data), splits, copies, seed=seed, report=report)


def _find_missing_weights(spec: StudySpec) -> list[str]:
    """Return what is wrong with the weights of every backbone of the spec."""
    problems: list[str] = []
    weights = attempt(problems, preparation.locate_weights, spec.model.weights)
    for backbone in () if weights is None else spec.setting_values("backbone"):
        attempt(problems, find_weights_file, str(backbone), weights)
    return problems


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
    table = SectionTable(columns=(), rows=())
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
    except UserInputError as error:
        message = str(error)
        problems.append(message)
        lines.append(f"seconds per trial are not known: {message}")
    note = "Measured on three batches of each arm, for trials that run every epoch; pruned trials take less."
    sections = [make_section("resources", "Weights, devices and time", lines, table.columns, table.rows, note=note)]
    if spec.contrasts():
        sections.append(describe_looks(spec, find_basis(spec, None), len(prepared.splits.test)))
    return tuple(sections), tuple(problems)
