"""Defects put into the product on purpose; the simulation must find each of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

from study.confirmation.plan import write_plan
from study.confirmation.trained_models import read_test_split
from study.scheduling.sampler_history import SamplerHistory
from study.stages import training
from study.state import lease
from tests.simulation.world import Outcome, run_seed
from trainables.records.trial_files import TrialFiles
from trainables.storage import store as store_module
from trainables.storage.store import Store


@contextmanager
def _replace(*places: tuple[Any, str, Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, value in places:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def _remove_fence() -> AbstractContextManager[None]:
    """A driver does not look whether another one has taken the study."""
    return _replace((lease.Lease, "check", lambda _: None))


def _create_by_writing() -> AbstractContextManager[None]:
    """A token is taken by a plain write."""

    def create(store: Store, name: str, data: bytes) -> bool:
        store.write_bytes(name, data)
        return True

    return _replace((Store, "create_bytes", create))


def _remove_attempt_check() -> AbstractContextManager[None]:
    """A worker does not look whether its attempt is over."""
    return _replace((TrialFiles, "check_attempt", lambda *_: None))


def _drop_running_state() -> AbstractContextManager[None]:
    """A running trial has a state in the sampler that a resume does not rebuild."""
    start = SamplerHistory.start

    def keep(history: SamplerHistory, trial_id: str, handle: Any, *, keeps_attributes: bool) -> None:  # noqa: ARG001
        start(history, trial_id, handle, keeps_attributes=True)

    return _replace((SamplerHistory, "start", keep))


def _forget_parents() -> AbstractContextManager[None]:
    """A new folder is not flushed to disk."""

    def make(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    return _replace((store_module, "make_folder", make), (lease, "make_folder", make))


def _plan_late() -> AbstractContextManager[None]:
    """The plan is written after the test split was read."""
    write, read, late = write_plan, read_test_split, list[tuple[Any, ...]]()

    def read_first(*arguments: Any) -> None:
        read(*arguments)
        while late:
            write(*late.pop())

    return _replace(
        (training, "write_plan", lambda *plan: late.append(plan)), (training, "read_test_split", read_first)
    )


MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "fence": _remove_fence,
    "creation": _create_by_writing,
    "attempt": _remove_attempt_check,
    "running": _drop_running_state,
    "parents": _forget_parents,
    "plan": _plan_late,
}


def run_mutant(name: str, seed: int) -> Outcome:
    """Run a seed with one defect; "" for none."""
    with MUTANTS[name]() if name else nullcontext():
        return run_seed(seed)
