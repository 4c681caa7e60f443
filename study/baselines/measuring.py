"""The majority class and the linear probes of a study's backbones, measured before anything is trained."""

import time
from typing import NamedTuple

import numpy as np

from analysis.baselines.values import LINEAR_PROBE, MAJORITY, Baseline, BaselineFindings
from search_spaces.config import TrialConfig
from search_spaces.settings import BUILT_IN_LOOP
from study.cluster.connection import LOCAL, THIS_PROCESS, connect_cluster, make_workers
from study.cluster.tasks import Workers, find_device, make_task
from study.inputs.preparation import Prepared
from study.spec.study_spec import StudySpec, list_backbone_configs
from trainables.models.backbones import build_model, count_forward_flops, place_model
from trainables.processes import prepare_to_train
from trainables.training.evaluation import compute_mean_f1
from trainables.training.frozen_features import borrow_backbone
from trainables.training.linear_probe import MAX_IMAGES, LinearProbe, draw_sample, identify_images, measure_probe
from trainables.training.placed_images import place_images
from trainables.training.trial_data import TrialData

# Floating-point operations that the features of a split may cost on a CPU: about half a minute of one core for ResNets.
CPU_FLOPS = 3e12
MIN_IMAGES = 500


class FittedProbe(NamedTuple):
    """A probe of one backbone: its scores, the configuration that computes its features, and its head."""

    baseline: Baseline
    config: TrialConfig
    head: LinearProbe


def measure_baselines(
    spec: StudySpec, prepared: Prepared, workers: Workers, cpu_flops: float = CPU_FLOPS
) -> tuple[BaselineFindings, FittedProbe | None]:
    """Return the baselines of a spec, and the study's probe; None if there is none.

    The workers compute one probe for each backbone with pretrained weights.

    Args:
        spec: its arms have the backbones.
        prepared: its data.
        workers: with the data of the study.
        cpu_flops: that the features of a split may cost on a CPU; of a larger split, a stratified sample is taken.
    """
    configs, notes = _list_probes(spec, prepared)
    tasks = [
        make_task(spec, config.arm, config, prepared.weights, int(spec.resources.of_arm("cpu", config.arm)), cpu_flops)
        for config in configs
    ]
    probes: list[FittedProbe] = list(workers.run_tasks(_measure, tasks))
    # The first of equal scores, which is that of the first arm.
    chosen = max(probes, key=lambda probe: probe.baseline.search_macro_f1, default=None)
    findings = BaselineFindings(
        majority=_measure_majority(prepared.data),
        probes=tuple(probe.baseline for probe in probes),
        chosen="" if chosen is None else chosen.baseline.backbone,
        notes=tuple(notes),
    )
    return findings, chosen


def preview_baselines(spec: StudySpec, prepared: Prepared, address: str | None) -> BaselineFindings:
    """Return the baselines of a study that is not launched yet, on a CPU for a third of the operations.

    Args:
        spec: of the study.
        prepared: its data.
        address: of a running cluster, whose devices compute; None for this process.
    """
    place = THIS_PROCESS if address in {None, LOCAL} else address
    with connect_cluster(place) as cluster:
        workers = make_workers(cluster, spec, prepared.data)
        return measure_baselines(spec, prepared, workers, CPU_FLOPS / 3)[0]


def _list_probes(spec: StudySpec, prepared: Prepared) -> tuple[list[TrialConfig], list[str]]:
    """Return a configuration for each backbone that has pretrained weights, and why others have no probe."""
    configs: dict[str, TrialConfig] = {}
    custom: list[str] = []
    for arm in spec.arms():
        if BUILT_IN_LOOP not in spec.trainables_of(arm):
            custom.append(arm.name)
            continue
        for config in list_backbone_configs(arm, arm.space.middle(), prepared.fixed):
            configs.setdefault(config.word("backbone"), config)
    notes = [f"No linear probe of {name}: a custom training loop has no backbone." for name in custom]
    if spec.model.weights == "none" and configs:
        reason = "model.weights is none, and features of an untrained network say little"
        return [], [*notes, f"No linear probe on {' and '.join(configs)}: {reason}."]
    return list(configs.values()), notes


def _measure_majority(data: TrialData) -> Baseline:
    num_classes, splits = len(data.class_names), data.splits
    most = int(np.bincount(data.labels[splits.train], minlength=num_classes).argmax())
    scores = [
        compute_mean_f1(data.labels[part], np.full(len(part), most), num_classes)
        for part in (splits.search, splits.confirm)
    ]
    return Baseline(
        name=MAJORITY,
        backbone="",
        class_name=data.class_names[most],
        search_macro_f1=scores[0],
        confirm_macro_f1=scores[1],
        num_images=len(splits.train),
        num_train=len(splits.train),
        seconds=0.0,
    )


def _measure(config: TrialConfig, weights: str, num_threads: int, cpu_flops: float, *, data: TrialData) -> FittedProbe:
    """Return the probe of a configuration's backbone, with as many threads as its trials have, which share the features."""
    prepare_to_train(max(1, num_threads))
    device, num_classes = find_device(), len(data.class_names)
    started = time.perf_counter()
    model = place_model(build_model(config, num_classes, weights=weights), config, device)
    images = place_images(data.images, device)
    most = MAX_IMAGES
    if device.type == "cpu":
        most = int(np.clip(cpu_flops / count_forward_flops(config, num_classes), MIN_IMAGES, MAX_IMAGES))
    with borrow_backbone(model, config, device) as backbone:
        head = measure_probe(backbone, data, images, most)
        confirm = draw_sample(data.splits.confirm, data.labels, most)
        logits = head.compute_logits(backbone.compute_part(images, confirm, identify_images(data)))
        predicted = np.asarray(logits.argmax(axis=1), dtype=np.int64)
    baseline = Baseline(
        name=LINEAR_PROBE,
        backbone=config.word("backbone"),
        search_macro_f1=head.macro_f1,
        confirm_macro_f1=compute_mean_f1(data.labels[confirm], predicted, num_classes),
        strength=head.strength,
        class_weights="balanced" if head.is_balanced else "none",
        num_images=head.num_images,
        num_train=len(data.splits.train),
        seconds=time.perf_counter() - started,
    )
    return FittedProbe(baseline, config, head)
