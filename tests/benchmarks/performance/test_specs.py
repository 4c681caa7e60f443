"""The specs of the benchmarks that run whole studies are valid."""

import pytest

from benchmarks.performance import command_times, decoding_ratios, forensics_workers, large_images, study_ratios
from study.spec.reading import parse_spec

SPECS = {
    "P1": study_ratios.SPEC % 100,
    "P13": decoding_ratios.SPEC.format(path="photos", folder="images"),
    "P16": forensics_workers.SPEC,
    "P18": command_times.SPEC,
    "memory": large_images.SPEC.format(path="photos", memory=1, folder="images", images="streamed"),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_spec_of_a_benchmark_is_valid(name: str) -> None:
    parse_spec(SPECS[name], name)
