"""A sample of the simulated handovers: what is clearly better is handed over, and before and after are both counted."""

from benchmarks.validation.validate_handover import PAIRS, SIZES, simulate_study


def test_a_clearly_better_arm_is_handed_over() -> None:
    studies = [simulate_study(PAIRS[-1], SIZES[-1], number) for number in range(5)]
    assert all(study.gap > 0.05 and study.before and study.after for study in studies)
    assert simulate_study(PAIRS[-1], SIZES[-1], 0) == studies[0]
