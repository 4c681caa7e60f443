"""`study inspect`: checks of data, weights and resources, before a study is launched."""

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from analysis.heat_maps.cam_network import prepare_inputs
from search_spaces.config import TrialConfig, Value
from study.cluster.connection import check_cluster, connect_cluster
from study.cluster.device_time import measure_full_trials
from study.inputs.preparation import Prepared, check_groups
from study.spec.study_spec import StudySpec
from trainables.data.augmentation import AugmentationSettings, augment_batch
from trainables.data.image_audit import AuditReport, AuditStage, audit_batch, audit_image_set
from trainables.seeds import torch_generator

NUM_AUDITED_IMAGES = 64


def print_inspection(spec: StudySpec, prepared: Prepared, address: str | None, console: Console) -> None:
    """Print the audit of shapes and values, class balance, duplicates and leaks, and the capacity of the cluster."""
    check_groups(spec, prepared.image_set)
    report = audit_image_set(prepared.image_set, prepared.splits)
    console.print(build_stage_table([*report.stages, *audit_tensors(spec, prepared)]))
    console.print(build_balance_table(report, prepared))
    console.print(
        f"{report.num_duplicates} exact duplicates; {report.num_leaks} images of the training split are also in another split"
    )
    console.print(
        f"weights: {prepared.fixed['weights']}; arms: {', '.join(a.name for a in spec.arms())}", soft_wrap=True
    )
    with connect_cluster(address) as cluster:
        most = check_cluster(spec, cluster)
        console.print(f"{cluster.describe()}; up to {most} trials run at once")
        if spec.search.device_seconds is not None:
            for arm, seconds in measure_full_trials(spec, prepared).items():
                console.print(f"a full trial of {arm} needs about {seconds:.0f} device-seconds")


def audit_tensors(spec: StudySpec, prepared: Prepared) -> list[AuditStage]:
    """Return the audit of the model's inputs in evaluation and training, and of the soft targets."""
    indices = prepared.splits.train[:NUM_AUDITED_IMAGES]
    images = np.array(prepared.image_set.images[indices])
    labels = torch.from_numpy(np.array(prepared.image_set.labels[indices]))
    interpolation = str(dict(spec.search_space().fixed).get("interpolation", "bicubic"))
    values: dict[str, Value] = {"interpolation": interpolation, "cutmix_probability": 0.5}
    config = TrialConfig(arm="audit", seed=spec.seed, hyperparameters=values, fixed=prepared.fixed)
    trained, targets = augment_batch(
        torch.from_numpy(images),
        labels,
        generator=torch_generator(spec.seed, "audit"),
        settings=AugmentationSettings.from_config(config),
        num_classes=prepared.image_set.num_classes,
    )
    return [
        audit_batch("evaluation input", prepare_inputs(images, config), "NCHW", -4.0, 4.0),
        audit_batch("training input", trained, "NCHW", -4.0, 4.0),
        audit_batch("soft targets", targets, "NK", 0.0, 1.0),
    ]


def build_stage_table(stages: list[AuditStage]) -> Table:
    """Return a table with shape, dtype, range, layout and problem of every stage."""
    columns = ("stage", "shape", "dtype", "min", "max", "layout", "problem")
    table = Table(
        *columns, title="dimensional audit", box=None, pad_edge=False, header_style="bold", title_justify="left"
    )
    for stage in stages:
        shape, limits = "x".join(map(str, stage.shape)), (f"{stage.minimum:g}", f"{stage.maximum:g}")
        table.add_row(stage.name, shape, stage.dtype, *limits, stage.layout, stage.problem or "none")
    return table


def build_balance_table(report: AuditReport, prepared: Prepared) -> Table:
    """Return the table of the number of images by class and split."""
    table = Table(title="images per class", box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("class")
    for split in report.class_counts:
        table.add_column(split, justify="right")
    for index, name in enumerate(prepared.image_set.class_names):
        table.add_row(name, *(str(counts[index]) for counts in report.class_counts.values()))
    return table
