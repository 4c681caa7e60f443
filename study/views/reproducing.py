"""`study reproduce` as the command line shows it: the run epoch by epoch, then the verdict and what differs."""

from collections.abc import Sequence

from rich.console import Console

from search_spaces.errors import UserInputError
from study.inputs.preparation import prepare
from study.open_study import OpenStudy, load_study
from study.spec.reading import with_overrides
from study.state.budget_extensions import launched_spec
from study.state.paths import SPEC
from study.views.reproduction import Outcome, Reproduction, choose_trial, reproduce
from trainables.records.store import Store

RELOCATABLE = ("data.path", "model.weights", "resources.device")


def run_reproduction(store: Store, trial: str, arm: str | None, overrides: Sequence[str], console: Console) -> bool:
    """Reproduce a trial and print the result; return whether it is MATCH or CLOSE.

    `overrides` may only say where data and weights lie on this machine and which device computes; anything else would
    make it another trial, and raises UserInputError.
    """
    for override in overrides:
        if override.partition("=")[0].strip() not in RELOCATABLE:
            raise UserInputError(f"reproduce can set only {', '.join(RELOCATABLE)}, but got {override!r}")
    opened = load_study(store)
    record = choose_trial(opened, trial, arm)
    where = f"{store.root}/{SPEC}"
    spec = with_overrides(launched_spec(store), overrides, where)
    opened = OpenStudy(store=store, spec=spec, book=opened.book)
    prepared = prepare(spec)
    console.print(
        f"reproducing {record.stage} trial {record.trial_id} of {opened.name}: {len(record.epochs)} epochs",
        highlight=False,
    )

    def show(epoch: int, recorded: float, reproduced: float) -> None:
        sign = "=" if recorded == reproduced else "!="
        console.print(f"epoch {epoch}: recorded {recorded:.6f} {sign} reproduced {reproduced:.6f}", highlight=False)

    result = reproduce(opened, record, prepared, show)
    print_reproduction(result, console)
    return result.outcome is not Outcome.DIFFERENT


def print_reproduction(result: Reproduction, console: Console) -> None:
    """Print outcome, first different epoch, logits, tolerance and the list of differences."""
    console.print(f"{result.outcome}: {describe_outcome(result)}", highlight=False, soft_wrap=True)
    if result.differences:
        console.print("what differs from the study's passport:")
        for line in result.differences:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    else:
        console.print("code, versions, platform, device, data and weights are those of the study")


def describe_outcome(result: Reproduction) -> str:
    """Return one sentence with the numbers behind the outcome."""
    last = f"macro-F1 {result.recorded[-1]:.6f} recorded, {result.reproduced[-1]:.6f} reproduced"
    if result.outcome is Outcome.MATCH:
        logits = "" if result.largest_logit_difference is None else ", and so are the stored predictions"
        return f"all {len(result.recorded)} epochs are bit-identical{logits} ({last})"
    first = result.first_different_epoch
    where = (
        "the epochs agree, but the predictions do not" if first is None else f"epoch {first} is the first that differs"
    )
    if result.is_altered:
        return f"{where}; {last}; the record was altered, so this is not the configuration whose result it holds"
    gap = abs(result.recorded[-1] - result.reproduced[-1])
    inside = "inside" if gap <= result.spread else "outside"
    return (
        f"{where}; {last}; the gap of {100 * gap:.2f} pp is {inside} the seed-to-seed spread of "
        f"{100 * result.spread:.2f} pp ({result.spread_source})"
    )
