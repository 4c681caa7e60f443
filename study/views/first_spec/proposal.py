"""The proposal of `study init`: image size, budget and seeds of a first study that ends within a stated time."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from study.inputs.fitted_defaults import choose_batch_size
from study.inputs.preparation import DEFAULT_TEST_FRACTION
from study.views.first_spec.machine import Machine
from study.views.first_spec.survey import Survey
from trainables.training.trial_cost import TrialCost

# Squares of at most this side are used as they are; larger images are photographs, of which training takes random crops.
MAX_SMALL_SIDE = 64
GPU_SIZES, CPU_SIZES = (224, 160, 128), (96, 64)
GPU_BATCH_SIZE, CPU_BATCH_SIZE = 128, 32
SEARCH_FRACTION = CONFIRM_FRACTION = 0.15
# The share of the stated time that trials may take; the rest is for starting Ray, decoding, audits and the report.
TRIALS_SHARE = 0.75
# The share of all epochs that ASHA leaves to a search: most stopped trials end at 0.3 or at 0.6 of their epochs.
EPOCHS_AFTER_STOPPING = 0.65
# A part of the images has at least so many per class on average, and so many of the rarest class, which four splits share.
MIN_IMAGES_PER_CLASS, MIN_IMAGES_OF_RAREST = 20, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a study trains.

    Attributes:
        num_trials: search trials of all arms together.
        max_epochs: epochs of a full trial.
        top_k: candidates of an arm that are ranked on new seeds.
        looks: numbers of paired seeds.
    """

    num_trials: int
    max_epochs: int
    top_k: int
    looks: tuple[int, ...]


# From the most to the least that is worth proposing. The first `NUM_GOOD_BUDGETS` are worth keeping larger images for.
BUDGETS = (
    Budget(num_trials=20, max_epochs=10, top_k=2, looks=(5, 10)),
    Budget(num_trials=20, max_epochs=10, top_k=2, looks=(5,)),
    Budget(num_trials=16, max_epochs=8, top_k=2, looks=(5,)),
    Budget(num_trials=12, max_epochs=6, top_k=1, looks=(4,)),
    Budget(num_trials=10, max_epochs=5, top_k=1, looks=(3,)),
    Budget(num_trials=8, max_epochs=4, top_k=1, looks=(3,)),
    Budget(num_trials=6, max_epochs=3, top_k=1, looks=(3,)),
)
NUM_GOOD_BUDGETS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A first study.

    Attributes:
        image_size: side of the model's input in pixels.
        is_native: whether images are stored and trained on as they are.
        batch_size: images per step.
        budget: trials, epochs and seeds.
        num_images: images outside the test set to use; None for all.
        costs: measured cost of a trial by arm, of the images that are used.
        seconds: estimate of the time of all trials.
    """

    image_size: int
    is_native: bool
    batch_size: int
    budget: Budget
    num_images: int | None
    costs: Mapping[str, TrialCost]
    seconds: float


# Returns the cost of a trial by arm, given image size and batch size.
Measure = Callable[[int, int], Mapping[str, TrialCost]]


def propose(survey: Survey, machine: Machine, *, minutes: float, image_size: int | None, measure: Measure) -> Proposal:
    """Return the largest study whose trials fit into the stated time.

    Image sizes are tried from the largest; a smaller one is taken where the larger leaves too few trials or epochs. Where even
    the smallest study is too long, it uses a part of the images.

    Args:
        survey: what was found.
        machine: its devices.
        minutes: the time that the study may take.
        image_size: the image size, if it is given.
        measure: measures the cost of a trial on all images.
    """
    sizes = list_image_sizes(survey, machine) if image_size is None else (image_size,)
    batch_size = choose_batch_size(
        GPU_BATCH_SIZE if machine.num_gpus else CPU_BATCH_SIZE, count_split_images(survey)["train"]
    )
    available = 60 * minutes * TRIALS_SHARE
    for size in sizes:
        costs = measure(size, batch_size)
        is_last = size == sizes[-1]
        for budget in BUDGETS if is_last else BUDGETS[:NUM_GOOD_BUDGETS]:
            seconds = estimate_seconds(costs, budget, machine)
            if seconds <= available or (is_last and budget == BUDGETS[-1]):
                found = Proposal(
                    image_size=size,
                    is_native=survey.native_side == size,
                    batch_size=batch_size,
                    budget=budget,
                    num_images=None,
                    costs=costs,
                    seconds=seconds,
                )
                return found if seconds <= available else _use_fewer_images(found, survey, machine, available)
    raise AssertionError("the last budget of the last size is always taken")


def list_image_sizes(survey: Survey, machine: Machine) -> Sequence[int]:
    """Return the image sizes to consider, the largest first."""
    if survey.native_side is not None and survey.native_side <= MAX_SMALL_SIDE:
        return (survey.native_side,)
    if machine.num_gpus:
        return GPU_SIZES
    shortest = survey.median_short_side
    return tuple(dict.fromkeys(min(size, max(shortest, CPU_SIZES[-1])) for size in CPU_SIZES))


def count_split_images(survey: Survey) -> dict[str, int]:
    """Return the number of images of each split that the proposed fractions give, before bad files are left out."""
    counts = {split: sum(per_class) for split, per_class in survey.class_counts.items()}
    pool = counts.get("", 0) + counts.get("train", 0)
    test = counts.get("test", 0) or round(DEFAULT_TEST_FRACTION * pool)
    rest = pool if "test" in counts else pool - test
    if "validation" in counts:
        confirm = counts["validation"] // 2
        return {"train": rest, "search": counts["validation"] - confirm, "confirm": confirm, "test": test}
    search, confirm = round(SEARCH_FRACTION * pool), round(CONFIRM_FRACTION * pool)
    return {"train": rest - search - confirm, "search": search, "confirm": confirm, "test": test}


def estimate_seconds(costs: Mapping[str, TrialCost], budget: Budget, machine: Machine) -> float:
    """Return the expected time of all trials of a study.

    The search divides its device time equally among the arms, so that N trials cost N times the harmonic mean of the arms'
    costs, less what early stopping saves. The confirmation trains every arm once for each seed.
    """
    full = [cost.of_epochs(budget.max_epochs) for cost in costs.values()]
    harmonic_mean = len(full) / sum(1 / seconds for seconds in full)
    search = budget.num_trials * harmonic_mean * EPOCHS_AFTER_STOPPING
    num_ranked = budget.top_k if budget.top_k > 1 else 0
    confirmation = (num_ranked + budget.looks[-1]) * sum(full)
    return (search + confirmation) / machine.num_at_once


def _use_fewer_images(proposal: Proposal, survey: Survey, machine: Machine, available: float) -> Proposal:
    """Return the proposal with as many images as fit into the available seconds, but enough of each class."""
    per_class = [
        sum(counts) for counts in zip(*(c for s, c in survey.class_counts.items() if s != "test"), strict=True)
    ]
    used = sum(per_class)
    fewest = max(MIN_IMAGES_PER_CLASS * len(per_class), -(-MIN_IMAGES_OF_RAREST * used // max(min(per_class), 1)))

    def reduce(num_images: int) -> Proposal:
        costs = {
            arm: replace(cost, epoch_seconds=cost.epoch_seconds * num_images / used)
            for arm, cost in proposal.costs.items()
        }
        return replace(
            proposal,
            num_images=num_images,
            costs=costs,
            seconds=estimate_seconds(costs, proposal.budget, machine),
            batch_size=choose_batch_size(proposal.batch_size, num_images // 2),
        )

    choices = range(min(used, fewest), used)
    num_fitting = bisect_right(choices, available, key=lambda num_images: reduce(num_images).seconds)
    return reduce(choices[max(0, num_fitting - 1)]) if choices else proposal
