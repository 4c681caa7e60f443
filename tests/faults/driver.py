"""The command line `study`, with the judge's trainable in the place of the product's: ``python -m tests.faults.driver``."""

from typing import Any

from ray import tune

from study import cli
from study.cluster import ray_workers
from tests.faults.judge import JudgedTrainable
from trainables.trial_settings import TrialSettings


def _make_judged(shared: Any, settings: TrialSettings) -> Any:
    return tune.with_parameters(JudgedTrainable, data=shared, settings=settings)


if __name__ == "__main__":
    ray_workers.make_trainable = _make_judged  # type: ignore[attr-defined]
    cli.main()
