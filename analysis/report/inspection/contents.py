"""All sections of an inspection."""

from analysis.findings.image_findings import Inspection
from analysis.report.inspection import data, probes
from analysis.report.inspection.sections import InspectionSection


def describe_inspection(found: Inspection, *, most: int, num_named: int) -> tuple[InspectionSection, ...]:
    """Return the sections on images, in the order in which they are shown.

    Args:
        found: everything that is known.
        most: rows of a list that may be long.
        num_named: pairs of classes that each side of the ladder names; with 1, only the pair that loses most.
    """
    return (
        data.describe_stages(found),
        data.describe_balance(found, most),
        data.describe_duplicates(found, most),
        data.describe_oddities(found),
        probes.describe_label_issues(found, most),
        probes.describe_gap(found, most),
        probes.describe_ladder(found, num_named),
        probes.describe_interpolation(found),
        data.describe_colors(found, most),
    )
