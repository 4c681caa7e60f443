"""`study replay`: the recorded search decided again, by a new sampler and scheduler."""

from collections.abc import Sequence

from rich.console import Console

from study.inputs.provenance import list_arithmetic_changes
from study.open_study import full_trial_seconds, load_study, read_passport
from study.scheduling.replay import Replay, replay_search
from study.scheduling.warm_start import earlier_trials
from study.state.budget_extensions import launched_spec, specs_over_time
from study.views.printing import print_line
from trainables.storage.store import Store


def replay_study(store: Store, console: Console) -> bool:
    """Replay the search from its records; return whether every decision is the same.

    A Gaussian process may suggest other values where processor or versions are not those of the launch.
    """
    result = replay_search(
        load_study(store).book.of_stage("search"),
        specs_over_time(store, launched_spec(store)),
        full_trial_seconds=full_trial_seconds(store),
        earlier=earlier_trials(store),
    )
    print_line(
        f"replayed with the same decisions, in order: {result.num_suggestions} suggestions and {result.num_reports} reports, "
        f"{result.num_stops} of them stops" + (f"; first difference: {result.difference}" if result.difference else ""),
        console,
    )
    changes = list_arithmetic_changes(read_passport(store))
    if result.num_other_values:
        print_line(_describe_other_values(result, changes), console)
    return not result.difference and bool(changes or not result.num_other_values)


def _describe_other_values(result: Replay, changes: Sequence[str]) -> str:
    where = "; ".join(changes) or (
        "but processor and versions are those of the launch: the search was resumed on another machine, or a record was changed"
    )
    return (
        f"suggestions of the Gaussian process with other values: {result.num_other_values}, each of which "
        f"the replay replaced by the recorded one; its last digits depend on the machine ({where}). "
        f"The first: {result.first_other_values}"
    )
