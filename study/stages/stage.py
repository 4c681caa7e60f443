"""A stage of a study, the session that stages work in, and the one loop that runs them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cached_property

from rich.console import Console

from search_spaces.errors import UserInputError
from study.cluster.connection import Cluster, check_cluster, connect_cluster, make_workers
from study.cluster.tasks import Workers
from study.inputs.preparation import Prepared, prepare
from study.inputs.provenance import check_unchanged
from study.open_study import OpenStudy, open_to_drive, read_passport
from study.spec.study_spec import StudySpec
from study.views.live_view import LiveView
from study.views.printing import print_lines
from trainables.storage.store import Store


class Session(ExitStack):
    """A study with its data and its cluster, which are loaded and connected when a stage first needs them.

    As a context manager, it disconnects the cluster and gives up the study's lease at the end.

    Attributes:
        console: receives the progress and the tables.
        address: of the cluster, see `connect_cluster`.
        view: the live view of the stages that train.
        study: the study, once it is open.
        prepared: its data, once they are loaded.
        missed_minimums: one message per arm that misses the minimum.
    """

    study: OpenStudy

    def __init__(self, console: Console, address: str | None = None, *, allow_changed: bool | None = None) -> None:
        """Begin a session without a study.

        Args:
            console: see the class.
            address: see the class.
            allow_changed: whether more trials of a study may run with other code or package versions than the earlier ones; None
                if no trials are to run.
        """
        super().__init__()
        self.console, self.address, self._allow_changed = console, address, allow_changed
        self.view = LiveView(console)
        self.prepared: Prepared | None = None
        self._max_concurrent: int | None = None
        self.missed_minimums: list[str] = []

    def open(self, store: Store) -> OpenStudy:
        """Open a study and hold its lease; print which records were recovered from copies."""
        self.study = self.enter_context(open_to_drive(store))
        print_lines(self.study.book.recovered, self.console)
        return self.study

    def prepare(self) -> Prepared:
        """Return the study's data, loaded the first time.

        Raises:
            UserInputError: if data or weights, or where trials are to run the code or versions, differ from those of the launch.
        """
        if self.prepared is None:
            passport, num_trials = read_passport(self.study.store), len(self.study.book.of_stage("search"))
            if self._allow_changed is not None:
                check_unchanged(self.study.store, passport, allow_changed=self._allow_changed, num_trials=num_trials)
            self.prepared = prepare(self.study.spec)
            now = {"data": self.prepared.splits.fingerprint, "weights": self.prepared.fixed["weights"]}
            then = {"data": passport["data"]["splits"], "weights": passport["weights"]}
            for kind, value in now.items():
                if value != then[kind]:
                    raise UserInputError(
                        f"the study was launched with other {kind} ({then[kind]}) than are found now ({value}); "
                        "restore them, or launch a new study"
                    )
        return self.prepared

    @cached_property
    def cluster(self) -> Cluster:
        """The connected cluster."""
        return self.enter_context(connect_cluster(self.address))

    def check_cluster(self, spec: StudySpec) -> int:
        """Return how many trials of the study's spec the cluster runs at once, which is checked the first time.

        Raises:
            UserInputError: if a trial fits on no node.
        """
        if self._max_concurrent is None:
            self._max_concurrent = check_cluster(spec, self.cluster)
        return self._max_concurrent

    @cached_property
    def workers(self) -> Workers:
        """The workers of the cluster, which hold the study's data."""
        prepared = self.prepare()
        return make_workers(self.cluster, self.study.spec, prepared.data)

    def run(self, stages: Iterable["StudyStage"]) -> list[str]:
        """Run the stages that are not done, in their order, and show each; return one message per arm that misses the minimum."""
        for stage in stages:
            if not stage.is_done(self):
                stage.run(self)
            stage.show(self)
        return self.missed_minimums


class StudyStage(ABC):
    """One stage of a study. It continues where it was stopped."""

    def is_done(self, session: Session) -> bool:  # noqa: ARG002
        """Return whether the open study has nothing left of this stage; one that never is runs each time."""
        return False

    @abstractmethod
    def run(self, session: Session) -> None:
        """Run the stage to its end; raise StudyInterrupted if it stops before."""

    def show(self, session: Session) -> None:  # noqa: B027
        """Print what the stage has done, in this session or before."""


def run_stages(
    stages: Iterable[StudyStage],
    console: Console,
    address: str | None = None,
    *,
    store: Store | None = None,
    allow_changed: bool | None = None,
) -> list[str]:
    """Run stages in a session of their own; return one message per arm that misses the minimum.

    Args:
        stages: see `Session.run`.
        console: see `Session`.
        address: see `Session`.
        store: the study, whose lease is held; None if the first stage creates or opens it.
        allow_changed: see `Session`.
    """
    with Session(console, address, allow_changed=allow_changed) as session:
        if store is not None:
            session.open(store)
        return session.run(stages)
