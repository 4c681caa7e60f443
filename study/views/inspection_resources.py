"""Weights, devices and time of a spec, and what its looks can decide."""

from collections.abc import Mapping

from analysis.report.inspection.sections import InspectionSection, SectionTable
from analysis.report.number_formats import format_count, format_seconds
from search_spaces.errors import UserInputError
from study.cluster.connection import check_cluster, connect_cluster, count_devices
from study.cluster.device_time import measure_full_trials
from study.inputs.preparation import Prepared
from study.spec.sections import PlanSpec
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from study.views import planning
from study.views.remaining_time import plan_confirmation_trials

# Variances for a spec without [plan]; those of the preset cifar10-cpu.
ASSUMED = PlanSpec(
    seed_sd_pp=0.6,
    image_sd_pp=30.0,
    seed_image_sd_pp=25.0,
    source="assumed, not measured (`study plan --pilot 3` measures them)",
)


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
        basis = planning.basis_of_section(spec.plan or ASSUMED)
        sections.append(planning.describe_looks(spec, basis, len(prepared.splits.test)))
    return tuple(sections), tuple(problems)


def describe_study_time(spec: StudySpec, seconds: Mapping[str, float], num_devices: float) -> tuple[str, SectionTable]:
    """Return a sentence on the study's time, and a table of its trials and device-seconds by arm.

    Args:
        spec: of the study.
        seconds: device-seconds of a full trial by arm.
        num_devices: that trials hold at once.
    """
    searched = planning.count_search_trials(spec, seconds)
    confirmed = plan_confirmation_trials(spec, MemoryBook())
    total = sum((searched[arm] + confirmed[arm]) * seconds[arm] for arm in seconds)
    rows = tuple((arm, format_seconds(seconds[arm]), f"{searched[arm]:.1f}", str(confirmed[arm])) for arm in seconds)
    devices = f"{num_devices:g} {'device' if num_devices == 1 else 'devices'}"
    num_searched, num_confirmed = format_count(round(sum(searched.values()))), sum(confirmed.values())
    line = (
        f"the study takes at most about {total / 3600:.2g} device-hours, {format_seconds(total / num_devices)} on {devices}: "
        f"{num_searched} full trials of the search and {num_confirmed} of the confirmation"
    )
    columns = ("arm", "device time of a full trial", "full trials, search", "trials, confirmation")
    return line, SectionTable(columns=columns, rows=rows)
