"""`study inspect`: what is known of data, weights and resources before a study is launched."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from analysis.baselines.values import describe_baselines
from analysis.formats.text_sections import InspectionSection
from analysis.images.appearance import draw_examples
from analysis.images.inspection import inspect_features, inspect_images
from analysis.images.values import ImageFindings, ImagePair, Inspection, NetworkFindings
from analysis.report.inspection_page import build_inspection_page, describe_inspection
from search_spaces.config import TrialConfig
from search_spaces.errors import Check, UserInputError, collect_problems
from study.baselines.measuring import preview_baselines
from study.cluster.connection import LOCAL, THIS_PROCESS, check_cluster, connect_cluster, make_workers
from study.cluster.tasks import find_device, make_task
from study.inputs import preparation
from study.inputs.fitted_defaults import FittedSpec, fit_defaults
from study.inputs.human_labels import load_human_shares
from study.inputs.preparation import Prepared, image_set_of
from study.spec.study_spec import StudySpec
from study.views.inspected_stages import audit_stages, inspect_resources, inspection_config
from study.views.printing import print_line, print_section
from trainables.data.image_audit import AuditReport, audit_image_set
from trainables.data.splits import Splits
from trainables.models.backbones import read_augmentation
from trainables.models.weights import find_weights_file
from trainables.training.frozen_features import FrozenBackbone
from trainables.training.trial_data import TrialData

# Rows of a long list in the terminal.
MOST_ROWS = 10


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
    for note in gathered.fitted.notes:
        print_line(f"fitted to the data: {note}", console)
    for section in describe_inspection(found, most=MOST_ROWS, num_named=1):
        print_section(section, console)
    is_measured = not quick and gathered.has_models
    extra = []
    if is_measured and not _find_missing_weights(spec):
        with console.status("baselines"):
            baselines = describe_baselines(preview_baselines(spec, gathered.prepared, address))
        extra.append(InspectionSection(anchor="baselines", title="What a study must beat", lines=tuple(baselines)))
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
    checks: list[Check] = [("", partial(preparation.check_class_groups, spec, image_set))]
    if spec.analyze.human_counts is not None:
        checks.append(("", partial(load_human_shares, spec.analyze.human_counts, image_set)))
    missing = _find_missing_weights(spec)
    weights = "none" if missing else preparation.locate_weights(spec.model.weights)
    prepared = preparation.assemble(spec, image_set, splits, weights)
    model_problems = collect_problems([("", partial(preparation.check_models, spec, prepared))])
    note = f"needs pretrained weights: {missing[0]}" if missing else ""
    if weights == "none" and not missing:
        note = 'needs pretrained weights, but model.weights is "none"; set it to "imagenet", a file or a folder'
    return Gathered(
        prepared=prepared,
        audit=audit,
        problems=(*audit.problems, *collect_problems(checks), *missing, *model_problems),
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
    if problems := collect_problems([("", partial(preparation.locate_weights, spec.model.weights))]):
        return problems
    weights = preparation.locate_weights(spec.model.weights)
    backbones = map(str, spec.setting_values("backbone"))
    return collect_problems(("", partial(find_weights_file, backbone, weights)) for backbone in backbones)
