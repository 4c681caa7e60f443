"""The proposal of `study init`: arms, image size, budget and seeds of a first study that ends within a stated time.

The budget of a trial is a number of steps. Where the time is short, the study gives up further steps, trials and seeds, then
image size, then ResNet50, and last a part of the images.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.formats.numbers import format_seconds
from search_spaces.errors import count_noun
from study.inputs.fitted_defaults import WEIGHTING, choose_batch_size, list_weightings
from study.inputs.preparation import DEFAULT_TEST_FRACTION
from study.views.first_spec.machine import Machine, estimate_probe_cost
from study.views.first_spec.survey import Survey
from trainables.training.trial_cost import TrialCost

# Squares of at most this side are used as they are; larger images are photographs, of which training takes random crops.
MAX_SMALL_SIDE = 64
GPU_SIZES, CPU_SIZES = (224, 160, 128), (96, 64)
GPU_BATCH_SIZE, CPU_BATCH_SIZE, SMALL_SET_BATCH_SIZE = 128, 32, 16
# Below so many training images, a CPU takes small batches, and a part of the images saves no time.
SMALL_SET = 1000
SEARCH_FRACTION = 0.15
# The confirm split, which chooses the model to hand over, is larger where that makes it detect a difference of four margins with
# a chance of `WORTH_FOLDS`.
CONFIRM_FRACTIONS, CHOICE_MARGINS = (0.15, 0.2, 0.25), 4
# With folds: the share of the images that are tested, of those of search and of confirm, and the seeds to have.
FOLDED_TEST_FRACTION, FOLDED_SELECTION_FRACTION = 0.5, 0.1
NUM_FOLDS, FOLDED_SEEDS = 2, (7, 5)
# Steps of the optimizer that a full trial has at least, unless they are more than `MAX_EPOCHS`.
MIN_STEPS = 300
MIN_EPOCHS, MAX_EPOCHS = 3, 60
# The rest of the stated time is for starting Ray, decoding, audits and the report.
OVERHEAD_SECONDS, TRIALS_SHARE, MIN_SECONDS = 110.0, 0.75, 30.0
# ASHA stops half of an arm's trials after the first, at a quarter of their epochs: up to 3/8 of their time, of which a study of
# few trials can count on less.
SHARE_SAVED_BY_STOPPING = 1 / 4
# Trials per arm for which ResNet50 is worth keeping, and larger images.
MIN_TRIALS_OF_RESNET50, MIN_TRIALS_OF_LARGER = 6, 6
MIN_TRIALS_OF_PROBE = 4
# Chance to decide twice the margin from which one test split is good enough.
WORTH_FOLDS = 0.5
# A part of the images has at least so many per class on average, and so many of the rarest class, which four splits share.
MIN_IMAGES_PER_CLASS, MIN_IMAGES_OF_RAREST = 20, 8
# What is compared, and the arms, by A/B factor; the control comes first.
COMPARED = {
    "backbone": "ResNet18 against ResNet50",
    "tuning": "all layers of ResNet18 against its classification layer alone, on cached features",
    WEIGHTING: "equal class weights against inverse frequency, with ResNet18",
}
ARMS = {"backbone": ("resnet18", "resnet50"), "tuning": ("full", "probe"), WEIGHTING: ("none", "inverse_frequency")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a study trains.

    Attributes:
        steps_ratio: steps of a full trial / `MIN_STEPS`.
        trials_per_arm: search trials of an arm, if both arms cost the same.
        top_k: candidates of an arm that are ranked on new seeds.
        looks: numbers of paired seeds.
        folds: into which each seed divides the test images; 0 for one test split.
    """

    steps_ratio: int
    trials_per_arm: int
    top_k: int
    looks: tuple[int, ...]
    folds: int = 0


# From the most to the least that is worth proposing. Further steps are for studies that give up nothing else.
BUDGETS = (
    Budget(steps_ratio=3, trials_per_arm=10, top_k=2, looks=(5, 10)),
    Budget(steps_ratio=2, trials_per_arm=10, top_k=2, looks=(5,)),
    Budget(steps_ratio=1, trials_per_arm=10, top_k=2, looks=(5,)),
    Budget(steps_ratio=1, trials_per_arm=6, top_k=1, looks=(4,)),
    Budget(steps_ratio=1, trials_per_arm=4, top_k=1, looks=(3,)),
    Budget(steps_ratio=1, trials_per_arm=3, top_k=1, looks=(3,)),
    Budget(steps_ratio=1, trials_per_arm=2, top_k=1, looks=(3,)),
    Budget(steps_ratio=1, trials_per_arm=1, top_k=1, looks=(3,)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A first study.

    Attributes:
        image_size: side of the model's input in pixels.
        batch_size: images per step.
        factor: the A/B factor, one of `ARMS`.
        budget: steps, trials and seeds.
        num_train: training images, of the search.
        num_tested: test images that are divided into folds; 0 without.
        num_pooled: all images that folds train on or test; 0 without.
        confirm_fraction: share of the images of the confirm split, where there are no folds and it is not published.
        confirm_chance: to detect there that one arm is better by `CHOICE_MARGINS` margins; None if that was not asked.
        num_images: images outside the test set to use; None for all.
        costs: measured cost of a trial by backbone, of the images that are used.
        machine: the devices.
    """

    image_size: int
    batch_size: int
    factor: str
    budget: Budget
    num_train: int
    num_images: int | None
    costs: Mapping[str, TrialCost]
    machine: Machine
    num_tested: int = 0
    num_pooled: int = 0
    confirm_fraction: float = CONFIRM_FRACTIONS[0]
    confirm_chance: float | None = None

    @property
    def num_trials(self) -> int:
        """Search trials of all arms together."""
        return self.budget.trials_per_arm + (self.trials_of_probe or self.budget.trials_per_arm)

    @property
    def trials_of_probe(self) -> int:
        """Trials of the arm of probes, which cost seconds, and the most of an arm; 0 without such an arm."""
        return max(self.budget.trials_per_arm, MIN_TRIALS_OF_PROBE) if self.factor == "tuning" else 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, which drops a last batch that is not full."""
        return max(1, self.num_train // self.batch_size)

    @property
    def max_epochs(self) -> int:
        """Epochs of a full trial."""
        return min(max(-(-self.budget.steps_ratio * MIN_STEPS // self.steps_per_epoch), MIN_EPOCHS), MAX_EPOCHS)

    @property
    def arm_costs(self) -> Mapping[str, TrialCost]:
        """Cost of a trial by arm."""
        small = self.costs["resnet18"]
        other = {"backbone": self.costs["resnet50"], "tuning": estimate_probe_cost(small), WEIGHTING: small}[
            self.factor
        ]
        return dict(zip(ARMS[self.factor], (small, other), strict=True))

    @property
    def seconds(self) -> float:
        """Expected time of all trials, if both arms have equally many.

        The search divides device time equally among the arms, so that the cheaper one has more trials, which then take less
        time together. Search, ranking and comparison each wait for their last trial (Graham 1969, Bounds on Multiprocessing
        Timing Anomalies).
        """
        budget, num_at_once = self.budget, self.machine.num_at_once
        full = [cost.of_epochs(self.max_epochs) for cost in self.arm_costs.values()]
        searched = budget.trials_per_arm - SHARE_SAVED_BY_STOPPING * (budget.trials_per_arm - 1)
        ranked, compared = budget.top_k if budget.top_k > 1 or budget.folds else 0, float(budget.looks[-1])
        if budget.folds:
            # Their trials train on more images than those of the search, and one on all.
            compared *= budget.folds * (self.num_pooled - self.num_tested / budget.folds) / self.num_train
            compared += self.num_pooled / self.num_train
        stages = (searched, ranked, compared)
        return sum(number * sum(full) + (num_at_once - 1) * max(full) for number in stages if number) / num_at_once

    def describe_trials(self) -> str:
        """Return how many search trials the arms have."""
        each = self.budget.trials_per_arm
        if self.trials_of_probe:
            return f"{each} of all layers, {self.trials_of_probe} of the classification layer alone"
        return f"{each} of each if they cost the same, because each gets equal device time"

    def describe_steps(self) -> str:
        """Return the steps and epochs of a full trial in words."""
        epochs, per_epoch = self.max_epochs, self.steps_per_epoch
        return (
            f"A full trial has {count_noun(epochs * per_epoch, 'step')}, {count_noun(epochs, 'epoch')} of {per_epoch:,}"
        )

    def describe_arms(self) -> str:
        """Return what is compared, and why ResNet50 is left out if it is."""
        time = f"about {format_seconds(self.costs['resnet50'].of_epochs(self.max_epochs))}"
        left_out = f" ResNet50 is left out: one full trial of it takes {time}." if self.factor != "backbone" else ""
        return f"{COMPARED[self.factor]}.{left_out}"

    def with_train_images(self, num_train: int) -> "Proposal":
        """Return the proposal with another number of training images, which changes the epochs and their cost."""
        share = num_train / self.num_train
        costs = {arm: replace(cost, epoch_seconds=share * cost.epoch_seconds) for arm, cost in self.costs.items()}
        return replace(self, num_train=num_train, costs=costs)

    def describe_seeds(self) -> str:
        """Return the paired seeds of the comparison, and their folds, in words."""
        seeds, folds = " and ".join(map(str, self.budget.looks)), self.budget.folds
        return f"{seeds} seeds of {folds} folds" if folds else f"{seeds} seeds"


# Returns the cost of a trial by backbone, given image size and batch size.
Measure = Callable[[int, int], Mapping[str, TrialCost]]


def propose(
    survey: Survey, machine: Machine, *, minutes: float, image_size: int | None, is_pretrained: bool, measure: Measure
) -> Proposal:
    """Return the first study, in the order of preference, whose trials fit into the stated time; else one of fewer images.

    ResNet18 against ResNet50 comes first, if ResNet50 gets a few trials. For each factor, larger images come first, if they
    leave enough trials. What gives up neither alone may have several times `MIN_STEPS`: more time never gives fewer steps.

    Args:
        survey: what was found.
        machine: its devices.
        minutes: the time that the study may take.
        image_size: the image size, if it is given.
        is_pretrained: whether training starts from pretrained weights.
        measure: measures the cost of a trial on all images, of both backbones; called repeatedly with the same arguments.
    """
    available = find_available_seconds(minutes)
    sizes = list_image_sizes(survey, machine) if image_size is None else (image_size,)
    factors = list(dict.fromkeys(("backbone", _choose_other_factor(survey, is_pretrained=is_pretrained))))
    num_train = max(count_split_images(survey)["train"], 2)
    batch_size = _choose_batch_size(machine, num_train)
    for factor, size in itertools.product(factors, sizes):
        least = MIN_TRIALS_OF_RESNET50 if factor != factors[-1] else 1
        fewest = MIN_TRIALS_OF_LARGER if size != sizes[-1] else least
        most_steps = BUDGETS[0].steps_ratio if (factor, size) == (factors[0], sizes[0]) else 1
        for budget in BUDGETS:
            found = Proposal(
                image_size=size,
                batch_size=batch_size,
                factor=factor,
                budget=budget,
                num_train=num_train,
                num_images=None,
                costs=measure(size, batch_size),
                machine=machine,
            )
            if budget.trials_per_arm >= fewest and budget.steps_ratio <= most_steps and found.seconds <= available:
                return found
    return _use_fewer_images(found, survey, available)


def find_available_seconds(minutes: float) -> float:
    """Return the part of the stated time that trials may take."""
    return max(MIN_SECONDS, (60 * minutes - OVERHEAD_SECONDS) * TRIALS_SHARE)


def consider_folds(
    proposal: Proposal, survey: Survey, minutes: float, find_chance: Callable[[Sequence[int], int], float]
) -> Proposal:
    """Return the proposal with folds, if one test split decides with a chance under one half, and folds with a better one.

    They must fit into the stated time, for which the search may give up trials, and there must be no published test set. Most
    seeds come first.

    Args:
        proposal: of one test split.
        survey: what was found.
        minutes: the time that the study may take.
        find_chance: the chance to decide by looks, numbers of seeds, and a number of test images.
    """
    chance = find_chance(proposal.budget.looks, count_split_images(survey)["test"])
    if "test" in survey.class_counts or proposal.num_images is not None or chance >= WORTH_FOLDS:
        return proposal
    counts = count_split_images(survey, has_folds=True)
    fewer = replace(
        proposal.with_train_images(counts["train"]),
        num_tested=counts["test"],
        num_pooled=counts["test"] + counts["train"] + counts["search"] + counts["confirm"],
    )
    most = proposal.budget.trials_per_arm
    budgets = [budget for budget in BUDGETS if budget.steps_ratio == 1 and budget.trials_per_arm <= most]
    for seeds, budget in itertools.product(FOLDED_SEEDS, budgets):
        found = replace(fewer, budget=replace(budget, looks=(seeds,), folds=NUM_FOLDS))
        is_better = find_chance(found.budget.looks, counts["test"]) > chance
        if is_better and found.seconds <= find_available_seconds(minutes):
            return found
    return proposal


def size_confirm_split(
    proposal: Proposal, survey: Survey, find_chance: Callable[[Sequence[int], int], float]
) -> Proposal:
    """Return the proposal with the smallest of `CONFIRM_FRACTIONS` that is large enough to choose the model to hand over.

    Where none is, the first: the images of the search then choose with those of the confirm split.

    Args:
        proposal: of the study.
        survey: what was found.
        find_chance: the chance to detect a difference of `CHOICE_MARGINS` margins, by looks and a number of images.
    """
    if proposal.budget.folds or "validation" in survey.class_counts:
        counts = count_split_images(survey, has_folds=bool(proposal.budget.folds))
        return replace(proposal, confirm_chance=find_chance(proposal.budget.looks, counts["confirm"]))
    share = 1.0 if proposal.num_images is None else proposal.num_images / sum(_count_by_class(survey))
    found: list[Proposal] = []
    for fraction in CONFIRM_FRACTIONS:
        counts = count_split_images(survey, confirm_fraction=fraction)
        chance = find_chance(proposal.budget.looks, int(share * counts["confirm"]))
        sized = proposal.with_train_images(max(2, int(share * counts["train"]))) if found else proposal
        found.append(replace(sized, confirm_fraction=fraction, confirm_chance=chance))
    return next((one for one in found if (one.confirm_chance or 0.0) >= WORTH_FOLDS), found[0])


def list_image_sizes(survey: Survey, machine: Machine) -> Sequence[int]:
    """Return the image sizes to consider, the largest first."""
    if survey.native_side is not None and survey.native_side <= MAX_SMALL_SIDE:
        return (survey.native_side,)
    if machine.num_gpus:
        return GPU_SIZES
    shortest = survey.median_short_side
    return tuple(dict.fromkeys(min(size, max(shortest, CPU_SIZES[-1])) for size in CPU_SIZES))


def list_fractions(*, has_folds: bool, confirm_fraction: float = CONFIRM_FRACTIONS[0]) -> tuple[float, float, float]:
    """Return the shares of the images for search, confirm and test, where none of these splits is published."""
    if has_folds:
        return FOLDED_SELECTION_FRACTION, FOLDED_SELECTION_FRACTION, FOLDED_TEST_FRACTION
    return SEARCH_FRACTION, confirm_fraction, DEFAULT_TEST_FRACTION


def count_split_images(
    survey: Survey, *, has_folds: bool = False, confirm_fraction: float = CONFIRM_FRACTIONS[0]
) -> dict[str, int]:
    """Return the number of images of each split that the proposed fractions give, before bad files are left out."""
    counts = {split: sum(per_class) for split, per_class in survey.class_counts.items()}
    shares = list_fractions(has_folds=has_folds, confirm_fraction=confirm_fraction)
    pool = counts.get("", 0) + counts.get("train", 0)
    test = counts.get("test", 0) or round(shares[2] * pool)
    rest = pool if "test" in counts else pool - test
    if "validation" in counts:
        confirm = counts["validation"] // 2
        return {"train": rest, "search": counts["validation"] - confirm, "confirm": confirm, "test": test}
    search, confirm = (round(share * pool) for share in shares[:2])
    return {"train": rest - search - confirm, "search": search, "confirm": confirm, "test": test}


def _choose_batch_size(machine: Machine, num_train: int) -> int:
    on_cpu = SMALL_SET_BATCH_SIZE if num_train < SMALL_SET else CPU_BATCH_SIZE
    return choose_batch_size(GPU_BATCH_SIZE if machine.num_gpus else on_cpu, num_train)


def _choose_other_factor(survey: Survey, *, is_pretrained: bool) -> str:
    """Return the factor of a study without ResNet50; "backbone" where ResNet18 has nothing else to compare.

    AdamW against SGD would be searched in one range of `max_lr`, in which one of the two has no good rates.
    """
    if is_pretrained:
        return "tuning"
    return WEIGHTING if len(list_weightings(_count_by_class(survey), has_group=False)) > 1 else "backbone"


def _count_by_class(survey: Survey) -> list[int]:
    """Return the number of images of each class outside a published test set."""
    return [sum(counts) for counts in zip(*(c for s, c in survey.class_counts.items() if s != "test"), strict=True)]


def _use_fewer_images(proposal: Proposal, survey: Survey, available: float) -> Proposal:
    """Return the proposal with as many images as fit into the available seconds, but enough of each class."""
    per_class = _count_by_class(survey)
    used = sum(per_class)
    fewest = max(
        MIN_IMAGES_PER_CLASS * len(per_class),
        -(-MIN_IMAGES_OF_RAREST * used // max(min(per_class), 1)),
        (SMALL_SET - 1) * used // proposal.num_train,
    )
    for num_images in np.geomspace(used, fewest, 500).astype(int).tolist() if fewest < used else ():
        fewer = proposal.with_train_images(proposal.num_train * num_images // used)
        found = replace(fewer, num_images=num_images, batch_size=_choose_batch_size(fewer.machine, fewer.num_train))
        if found.seconds <= available or num_images == fewest:
            return found
    return proposal
