"""`study plan`: what the looks of a spec can decide, before anything is launched."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from analysis.comparison import power as planning
from analysis.comparison.paired_difference import MAX_SEEDS
from analysis.comparison.power import LookForecast, PlannedTest, VarianceComponents
from analysis.formats.numbers import format_seconds
from analysis.formats.text_sections import InspectionSection, make_section
from search_spaces.errors import UserInputError, count_noun, refuse_any
from study.inputs.fitted_defaults import fit_and_prepare
from study.inputs.preparation import load_split_images
from study.spec.sections import ConfirmSpec, PlanSpec
from study.spec.study_spec import StudySpec
from study.views.forecast_basis import (
    ASSUMED_PRETRAINED,
    ASSUMED_UNTRAINED,
    Basis,
    basis_of_section,
    find_basis,
    find_compared_basis,
    run_pilot,
)
from study.views.printing import print_lines, print_section
from study.views.study_cost import describe_search_trials, describe_size
from trainables.data.splits import SPLIT_NAMES, Splits

# Numbers of seeds for which the test images that would decide are stated, beside the planned one.
USUAL_SEEDS = (5, 10, 20)
WAYS = (
    "--like STUDY, an earlier study of the same kind; --pilot 3, which trains three seeds of every arm here; or "
    "--seed-sd and --image-sd in percentage points, also as [plan] in the spec"
)

MODERATED = (
    'the forecast is of a row that stands alone: with confirm.intervals = "moderated" the rows share their variance between '
    "seeds, and their intervals are narrower, the more so the fewer the seeds"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The options of `study plan` that give variances; None where not given.

    Attributes:
        like: an earlier study.
        pilot: number of seeds to train.
        seed_sd: standard deviation between seeds, in percentage points.
        image_sd: that between images.
        seed_image_sd: that of one image from seed to seed.
    """

    like: str | None = None
    pilot: int | None = None
    seed_sd: float | None = None
    image_sd: float | None = None
    seed_image_sd: float | None = None


def print_plan(spec: StudySpec, text: str, options: PlanOptions, storage: str | None, console: Console) -> None:
    """Print the forecast of a spec, see `forecast_spec`."""
    for section in forecast_spec(spec, text, options, storage, console):
        print_section(section, console)


def forecast_spec(
    spec: StudySpec, text: str, options: PlanOptions, storage: str | None, console: Console
) -> list[InspectionSection]:
    """Return the forecast of each look with what would decide the margin, and the number of full trials of each arm.

    Args:
        spec: of the planned study.
        text: its TOML text; a pilot fits what it leaves out to the images, as a launch does.
        options: where the variances come from.
        storage: the storage root of --like; None for the default.
        console: receives the progress of a pilot.

    Raises:
        UserInputError: naming everything that is wrong with the options, or a spec that compares nothing.
    """
    _check(spec, options)
    basis = _find_basis(spec, text, options, storage, console)
    num_test_images = spec.data.num_test_images
    if num_test_images is None:
        num_test_images = len(load_split_images(spec)[1].test)
    lines: list[str] = []
    try:
        lines += [*describe_search_trials(spec, basis), describe_size(spec)]
    except UserInputError as error:  # a model that cannot be built here, such as one of code that is not trusted
        lines.append(f"full trials per arm and size on disk: not known, because {error}")
    looks = describe_looks(spec, basis, num_test_images)
    return [looks, make_section("costs", "What it costs", lines)]


def describe_launch(
    spec: StudySpec, splits: Splits, storage: str | None, costs: Mapping[str, float] | None = None
) -> str:
    """Return a sentence on what a spec can decide, from variances that are known without training; "" where nothing is compared.

    They are those of [plan], else of the study that `search.warm_start` names, if it has been compared, else assumed.

    Args:
        spec: of the study that is launched.
        splits: of its images.
        storage: the storage root of the study of `search.warm_start`; None for the default.
        costs: device-seconds of a full trial by arm, where they were measured.
    """
    if not spec.contrasts():
        return ""
    basis = find_basis(spec, storage)
    return describe_chance(spec, splits, basis if costs is None else replace(basis, costs=costs))


def find_chance(looks: Sequence[int], num_images: int, *, margin: float, is_pretrained: bool) -> float:
    """Return the chance that one row is decided if its true difference is twice the margin, by assumed variances."""
    assumed = basis_of_section(ASSUMED_PRETRAINED if is_pretrained else ASSUMED_UNTRAINED).components
    alpha = float(ConfirmSpec.model_fields["alpha"].default)
    test = PlannedTest(looks=tuple(looks), num_images=max(2, num_images), margin=margin, alpha=alpha, num_rows=1)
    return float(planning.forecast_looks(assumed, test)[-1].power[-1])


def describe_chance(spec: StudySpec, splits: Splits, basis: Basis) -> str:
    """Return the chance that a row is decided if its true difference is twice the margin; under one half, a warning.

    The warning says which seeds or test images would raise it to one half, with the device time or the trials of each. Rows whose
    intervals are "moderated" have at least this chance, as they share their variance between seeds.
    """
    test = plan_test(spec, len(splits.test))
    last = planning.forecast_looks(basis.components, test)[-1]
    least = "at least " if spec.confirm.intervals == "moderated" else ""
    text = (
        f"{last.num_seeds} seeds and {test.num_images:,} test images decide a difference of {200 * test.margin:.2f} pp, twice "
        f"the margin, with a chance of {least}{100 * last.power[-1]:.0f} %; variances: {basis.source}"
    )
    if last.meets(planning.DECIDES_TWICE_BY_HALF):
        return text
    return f"warning: {text}. {_describe_what_raises(spec, splits, basis, test)}"


def _describe_what_raises(spec: StudySpec, splits: Splits, basis: Basis, test: PlannedTest) -> str:
    """Return a sentence with the seeds, the test images or, where neither is enough, both that give a chance of one half."""
    planned, num_images = test.looks[-1], test.num_images
    seeds = planning.find_needed_seeds(basis.components, test, planning.DECIDES_TWICE_BY_HALF)
    found = [] if seeds is None else [(seeds, num_images)]
    for number in (planned, *(more for more in USUAL_SEEDS if more > planned)):
        if number == planned or not found:
            single = replace(test, looks=(number,))
            images = planning.find_needed_images(basis.components, single, planning.DECIDES_TWICE_BY_HALF)
            found += [(number, _round_up(images))] if images is not None and images > num_images else []
    ways = [
        f"{number} seeds in one look with {images:,} test images ({_describe_cost(spec, splits, basis.costs, number, images)})"
        for number, images in found
    ]
    if not ways:
        return f"Neither {MAX_SEEDS} seeds nor {planning.MAX_IMAGES:,} test images would raise it to one half"
    return f"A chance of one half takes {', or '.join(ways)}"


def _describe_cost(
    spec: StudySpec, splits: Splits, costs: Mapping[str, float] | None, num_seeds: int, num_images: int
) -> str:
    """Return what more seeds and test images cost, beyond what is planned: device time where that of a full trial is known.

    A step of training counts as three forward passes, so that a full trial of E epochs has E (3 N_train + N_search) of them. With
    folds, a seed is as many trials, each of which trains on all images but its fold.
    """
    arms, folds = spec.arms(), max(1, spec.confirm.folds)
    more_seeds, more_images = max(num_seeds - spec.confirm.num_seeds, 0), max(num_images - len(splits.test), 0)
    trials = f"{more_seeds * folds * len(arms)} more trials" if more_seeds else "no more trials"
    if costs is None or set(costs) != {arm.name for arm in arms}:
        return trials
    per_pass, per_seed = 3 * len(splits.train) + len(splits.search), 1.0
    if folds > 1:
        num_trained = sum(len(getattr(splits, name)) for name in SPLIT_NAMES) - len(splits.test) / folds
        per_seed = folds * (3 * num_trained + len(splits.search)) / per_pass
    shares = [more_seeds * per_seed + num_seeds * more_images / (spec.max_epochs(arm) * per_pass) for arm in arms]
    seconds = sum(share * costs[arm.name] for share, arm in zip(shares, arms, strict=True))
    return f"{trials}, about {format_seconds(seconds)} of device time"


def plan_test(spec: StudySpec, num_images: int) -> PlannedTest:
    """Return the rule of the spec's comparison on so many test images."""
    confirm = spec.confirm
    return PlannedTest(
        looks=tuple(confirm.looks),
        num_images=num_images,
        margin=confirm.margin,
        alpha=confirm.alpha,
        num_rows=len(spec.contrasts()),
        is_anytime=confirm.intervals == "anytime",
    )


def describe_looks(spec: StudySpec, basis: Basis, num_test_images: int) -> InspectionSection:
    """Return the section on what the looks of a spec can decide, and what would decide its margin."""
    test = plan_test(spec, num_test_images)
    forecasts = planning.forecast_looks(basis.components, test)
    lines = [
        f"{spec.name}: {count_noun(test.num_rows, 'row')}, looks at {', '.join(map(str, test.looks))} seeds, "
        f"margin {100 * test.margin:.2f} pp, {test.num_images:,} test images",
        f"variances: {basis.source}: {describe_components(basis.components)}",
        *([MODERATED] if spec.confirm.intervals == "moderated" else []),
        *_describe_margin(basis.components, test, forecasts),
    ]
    differences = [f"{100 * m * test.margin:.2f}" for m in planning.MULTIPLES]
    columns = ("seeds", "half-width (pp)", "80 % range", *(f"decided at {d} pp" for d in differences))
    cells = (
        (
            str(found.num_seeds),
            f"{100 * found.half_width:.2f}",
            f"{100 * found.low:.2f} to {100 * found.high:.2f}",
            *(f"{100 * power:.0f} %" for power in found.power),
        )
        for found in forecasts
    )
    return make_section("looks", "What the looks can decide", lines, columns, cells)


def describe_components(components: VarianceComponents) -> str:
    """Return the standard deviations in words."""
    seeds, images, both = (
        100 * math.sqrt(max(v, 0.0)) for v in (components.seeds, components.images, components.seeds_x_images)
    )
    measured = "" if components.num_measured_seeds is None else f", from {components.num_measured_seeds} seeds"
    return f"SD between seeds {seeds:.2f} pp, between images {images:.1f} pp, seed x image {both:.1f} pp{measured}"


def _describe_margin(
    components: VarianceComponents, test: PlannedTest, forecasts: Sequence[LookForecast]
) -> tuple[str, ...]:
    """Return sentences: whether the looks can decide the margin, and the seeds and test images that would."""
    last = forecasts[-1]
    if last.meets(planning.DECIDES_MARGIN):
        return (f"{last.num_seeds} seeds can decide the margin of {100 * test.margin:.2f} pp",)
    lines = [_describe_cannot(test, last)]
    seeds = planning.find_needed_seeds(components, test)
    with_images = f"with these {test.num_images:,} test images"
    lines.append(
        f"no number of seeds up to {MAX_SEEDS} would, {with_images}"
        if seeds is None
        else f"{seeds} seeds would, in one look {with_images}"
    )
    for number in (last.num_seeds, *(s for s in USUAL_SEEDS if s > last.num_seeds)):
        looks = test.looks if number == last.num_seeds else (number,)
        images = planning.find_needed_images(components, replace(test, looks=looks))
        if images is not None and images > test.num_images:
            lines.append(f"{number} seeds would with about {_round_up(images):,} test images")
    margin = planning.find_decidable_margin(components, test)
    if margin is not None:
        lines.append(f"the planned looks can decide a margin of {100 * margin:.1f} pp")
    return tuple(lines)


def _check(spec: StudySpec, options: PlanOptions) -> None:
    """Raise UserInputError with everything that is wrong with the options."""
    sds = {"--seed-sd": options.seed_sd, "--image-sd": options.image_sd, "--seed-image-sd": options.seed_image_sd}
    stated = [name for name, value in sds.items() if value is not None]
    ways = [*(["--like"] if options.like else []), *(["--pilot"] if options.pilot is not None else []), *stated[:1]]
    problems = []
    if not spec.contrasts():
        problems.append("the spec compares no arms, so there is nothing to decide")
    if len(ways) > 1:
        problems.append(f"variances come from one source, but {', '.join(ways)} were given; keep one")
    if stated and (options.seed_sd is None or options.image_sd is None):
        missing = [name for name in ("--seed-sd", "--image-sd") if sds[name] is None]
        problems.append(f"{stated[0]} needs {' and '.join(missing)} as well")
    problems += [
        f"{name} {'>' if is_positive else '>='} 0 must hold, in percentage points, but got {value:g}"
        for name, value in sds.items()
        if value is not None
        and not (math.isfinite(value) and (value > 0 if (is_positive := name == "--image-sd") else value >= 0))
    ]
    if options.pilot is not None and options.pilot < 2:
        problems.append(f"--pilot takes two or more seeds, but got {options.pilot}")
    if not ways and spec.plan is None:
        problems.append(f"a plan needs variances; give one of: {WAYS}")
    refuse_any(problems)


def _find_basis(spec: StudySpec, text: str, options: PlanOptions, storage: str | None, console: Console) -> Basis:
    if options.like is not None:
        return find_compared_basis(spec, options.like, storage)
    if options.pilot is not None:
        fitted, prepared = fit_and_prepare(spec, text, storage)
        print_lines((f"fitted to the data: {note}" for note in fitted.notes), console)
        return run_pilot(fitted.spec, prepared, options.pilot, console)
    section = spec.plan
    if options.seed_sd is not None and options.image_sd is not None:
        section = PlanSpec(
            seed_sd_pp=options.seed_sd,
            image_sd_pp=options.image_sd,
            seed_image_sd_pp=options.seed_image_sd or 0.0,
            source="stated",
        )
    assert section is not None
    return basis_of_section(section)


def _describe_cannot(test: PlannedTest, last: LookForecast) -> str:
    powers = ", ".join(f"{100 * power:.0f} %" for power in last.power)
    return (
        f"{last.num_seeds} seeds cannot decide a margin of {100 * test.margin:.2f} pp: expected half-width "
        f"{100 * last.half_width:.2f} pp; a true difference of 0, 1 or 2 margins is decided with a probability of {powers} "
        f"(80 % wanted at 0 and at the margin)"
    )


def _round_up(number: int) -> int:
    """Round up to two significant digits."""
    unit: int = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit
