"""Baselines as lines for the terminal. Imports nothing heavy, so that `study status` is quick."""

from analysis.baselines.values import LINEAR_PROBE, Baseline, BaselineFindings
from analysis.formats.numbers import format_seconds


def describe_baselines(found: BaselineFindings) -> list[str]:
    """Return a line per baseline, with what is known before any arm was trained, and the notes."""
    lines = [f"{name_baseline(found.majority)}: macro-F1 {found.majority.search_macro_f1:.2f} on the search split"]
    for probe in found.probes:
        weights = "no class weights" if probe.class_weights == "none" else f"class weights {probe.class_weights}"
        sample = "a stratified sample of " if probe.num_images < probe.num_train else ""
        lines.append(
            f"{name_baseline(probe)} (frozen features, C {probe.strength:g}, {weights}): macro-F1 {probe.search_macro_f1:.2f} on "
            f"the search split, {sample}{describe_training_images(probe)} training images, {format_seconds(probe.seconds)}"
            f"{'; chosen' if probe is found.probe and len(found.probes) > 1 else ''}"
        )
    return [*lines, *found.notes]


def name_baseline(one: Baseline) -> str:
    """Return a baseline in words."""
    return f"linear probe on {one.backbone}" if one.name == LINEAR_PROBE else f"{one.name} ({one.class_name})"


def describe_training_images(one: Baseline) -> str:
    """Return the number of training images, of how many if they are a sample."""
    return f"{one.num_images:,}{f' of {one.num_train:,}' if one.num_images < one.num_train else ''}"
