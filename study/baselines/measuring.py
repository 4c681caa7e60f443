"""The baselines of a study: the majority class and the linear probes of its backbones, measured before anything is trained.

They are kept below baselines/: baselines.json, the probe as a network, and its predictions on the test split.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import nn

from analysis.baselines.values import LINEAR_PROBE, MAJORITY, Baseline, BaselineFindings
from search_spaces.config import TrialConfig, list_folds
from search_spaces.settings import BUILT_IN_LOOP
from study.cluster.connection import LOCAL, THIS_PROCESS, connect_cluster, make_workers
from study.cluster.tasks import Workers, find_device, make_task
from study.confirmation.plan import Plan, note_test_read
from study.confirmation.trained_models import TEST, make_test_predictions
from study.inputs.preparation import Prepared
from study.open_study import OpenStudy, StoredBaselines, read_baselines
from study.spec.study_spec import StudySpec, list_backbone_configs
from study.state import paths
from study.state.sealed_files import read_sealed_json, write_sealed_json
from trainables.data.splits import SPLIT_NAMES
from trainables.models.backbones import build_model, count_forward_flops, place_model
from trainables.models.heads import find_head, fold_state
from trainables.processes import prepare_to_train
from trainables.records.trial_files import TrialFiles
from trainables.storage.store import Store
from trainables.training import linear_probe
from trainables.training.evaluation import compute_logits, compute_mean_f1
from trainables.training.frozen_features import borrow_backbone
from trainables.training.predictions import Predictions, pool_predictions
from trainables.training.trial_data import TrialData, place_images

# Floating-point operations that the features of a split may cost on a CPU: about half a minute of one core for ResNets.
CPU_FLOPS = 3e12
MIN_IMAGES = 500
# The files of the probe are those of a trial's first attempt.
ATTEMPT = 1
BATCH_SIZE = 128


class FittedProbe(NamedTuple):
    """A probe of one backbone: its scores, the configuration that computes its features, and its head."""

    baseline: Baseline
    config: TrialConfig
    head: linear_probe.LinearProbe


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
    most = linear_probe.MAX_IMAGES
    if device.type == "cpu":
        most = int(np.clip(cpu_flops / count_forward_flops(config, num_classes), MIN_IMAGES, linear_probe.MAX_IMAGES))
    with borrow_backbone(model, config, device) as backbone:
        head = linear_probe.measure_probe(backbone, data, images, most)
        confirm = linear_probe.draw_sample(data.splits.confirm, data.labels, most)
        logits = head.compute_logits(backbone.compute_part(images, confirm, linear_probe.identify_images(data)))
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


def write_baselines(
    study: OpenStudy, findings: BaselineFindings, chosen: FittedProbe | None, prepared: Prepared
) -> None:
    """Write the baselines of a study; the probe is a network whose head has the standardization of its features folded in.

    Args:
        study: opened to be driven.
        findings: scores of its baselines.
        chosen: its probe.
        prepared: its data.
    """
    stored = StoredBaselines(findings=findings)
    if chosen is not None:
        model = build_model(chosen.config, len(prepared.data.class_names), weights=prepared.weights)
        digests = _files(study.store).write_weights(_build_state(model, chosen.head), ATTEMPT)
        stored = dataclasses.replace(stored, config=chosen.config, digests=digests)
    content = TypeAdapter(StoredBaselines).dump_python(stored, mode="json")
    write_sealed_json(study.store, paths.BASELINES, content)


def _build_state(model: nn.Module, probe: linear_probe.LinearProbe) -> dict[str, torch.Tensor]:
    """Return the state of a model of the probe's backbone whose head becomes the probe."""
    head = find_head(model)[1]
    head.standardize(torch.tensor(probe.mean), torch.tensor(probe.scale))
    linear_probe.set_head(head, probe)
    return {name: value.contiguous() for name, value in fold_state(model.state_dict()).items()}


def read_probe_weights(study: OpenStudy, stored: StoredBaselines) -> tuple[bytes, bool]:
    """Return the content of the safetensors file of the probe to use, and whether it was fitted on all images.

    With folds it was, once the test split is read. Raises DamagedFileError if the file is not the one that was stored.
    """
    on_test = study.store.exists(paths.BASELINES_ON_TEST)
    whole = read_sealed_json(study.store, paths.BASELINES_ON_TEST)["whole"] if on_test else {}
    return _files(study.store).read_weights(whole or stored.digests), bool(whole)


def find_unread_probe(study: OpenStudy) -> StoredBaselines | None:
    """Return the baselines if the study has a probe that has not predicted the test split; else None."""
    stored = read_baselines(study)
    is_left = stored is not None and stored.config is not None and not study.store.exists(paths.BASELINES_ON_TEST)
    return stored if is_left else None


def predict_test(study: OpenStudy, plan: Plan, workers: Workers) -> None:
    """Predict the test split with the study's probe, in the first read of it; nothing without one, or if that was done."""
    stored = find_unread_probe(study)
    if stored is None or stored.config is None:
        return
    note_test_read(study.store, plan, [LINEAR_PROBE])
    probe, folds, files = stored.findings.probe, study.spec.confirm.folds, _files(study.store)
    assert probe is not None
    task = make_task(study.spec, stored.config.arm, study.store.address, stored, probe, plan.seeds, folds)
    ((found, whole),) = workers.run_tasks(_predict_folds if folds else _predict, [task])
    content: dict[str, Any] = {"whole": {}}
    content["digests"] = [files.write_predictions(one, attempt) for attempt, one in enumerate(found, start=ATTEMPT)]
    if whole is not None:
        model = files.load_weights(build_model(stored.config, len(whole.bias), weights="none"), stored.digests)
        content["whole"] = files.write_weights(_build_state(model, whole), ATTEMPT + 1)
    write_sealed_json(study.store, paths.BASELINES_ON_TEST, content)


def read_test_predictions(study: OpenStudy) -> tuple[Predictions, ...]:
    """Return the predictions of the study's probe on the test split; with folds, for each of the plan's seeds; or none."""
    if not study.store.exists(paths.BASELINES_ON_TEST):
        return ()
    stored: list[dict[str, Any]] = read_sealed_json(study.store, paths.BASELINES_ON_TEST)["digests"]
    return tuple(_files(study.store).read_predictions(TEST, digests) for digests in stored)


def _load(root: str, stored: StoredBaselines, num_classes: int) -> tuple[TrialConfig, nn.Module]:
    """Return the probe's configuration, and its network on the device of the task."""
    assert stored.config is not None
    model = build_model(stored.config, num_classes, weights="none")
    model = _files(Store(root)).load_weights(model, stored.digests)
    return stored.config, place_model(model, stored.config, find_device())


def _predict(root: str, stored: StoredBaselines, *_: object, data: TrialData) -> tuple[list[Predictions], None]:
    device = find_device()
    config, model = _load(root, stored, len(data.class_names))
    logits = compute_logits(model, place_images(data.images, device), data.splits.test, config, device, BATCH_SIZE)
    return [make_test_predictions(logits, data)], None


def _predict_folds(
    root: str, stored: StoredBaselines, probe: Baseline, seeds: Sequence[int], folds: int, *, data: TrialData
) -> tuple[list[Predictions], linear_probe.LinearProbe]:
    """Return predictions for each seed: of each fold, by a probe fitted on the images that a trial of that fold trains on.

    The second value is a probe that is fitted on all images: the one to use, as the model that is trained on all of them.
    Strength and class weights are those of the study's probe, which no test image chose.
    """
    device, num_classes, strength = find_device(), len(data.class_names), probe.strength
    assert strength is not None
    is_balanced = probe.class_weights != "none"
    config, model = _load(root, stored, num_classes)
    used = np.sort(np.concatenate([getattr(data.splits, name) for name in SPLIT_NAMES]))
    with borrow_backbone(model, config, device) as backbone:
        features = backbone.compute_part(place_images(data.images, device), used, linear_probe.identify_images(data))
    found = []
    for seed in seeds:
        parts = []
        for fold in list_folds(folds):
            own = data.of_trial(config.with_seed(seed).with_fold(fold))
            train, test = (features[np.searchsorted(used, part)] for part in (own.splits.train, own.splits.test))
            fitted = linear_probe.Sample(train, data.labels[own.splits.train])
            head = linear_probe.fit_again(fitted, num_classes, strength, is_balanced=is_balanced)
            parts.append(make_test_predictions(head.compute_logits(test), own))
        found.append(pool_predictions(parts))
    whole = linear_probe.Sample(features, data.labels[used])
    return found, linear_probe.fit_again(whole, num_classes, strength, is_balanced=is_balanced)


def _files(store: Store) -> TrialFiles:
    return TrialFiles(store.child(paths.BASELINE_FOLDER))
