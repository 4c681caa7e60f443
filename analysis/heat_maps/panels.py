"""Panels of heat maps: the choice of their images, and the maps of one arm's model for them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from analysis.heat_maps.cam_layers import CamNetwork
from analysis.heat_maps.grad_cam import compute_cams, is_degenerate
from analysis.heat_maps.values import ArmCam, CamSource, CamView
from analysis.shortcuts.swaps import Images
from analysis.statistics.metrics import FloatArray, IntArray
from search_spaces.errors import UserInputError
from trainables.training.predictions import Predictions

MOST_CONFUSED = "most confused pair"


# Of one arm, (N, K): the share of its seeds that predict each class, and the mean probability of it.
_Votes = tuple[FloatArray, FloatArray]
_Ranking = tuple[str, FloatArray, FloatArray]


def choose_panel_images(
    predictions_by_arm: Mapping[str, Sequence[Predictions]], num_panels: int
) -> tuple[tuple[int, str], ...]:
    """Choose at most `num_panels` images, each with the reason for its choice.

    An arm counts as correct on an image if more than half of its seeds are, as wrong if more than half are not. The reasons
    alternate (most confused pair, both wrong, only one arm correct, both correct). Within a reason the images rank by the share
    of seeds that agree in the arm with the least agreement, then by the mean probability, then by id. With three or more
    arms, "both" becomes "all"; with one arm it is dropped.

    Args:
        predictions_by_arm: one value per seed, all on the same images.
        num_panels: at least 0.

    Returns:
        (sample_id, reason) pairs without duplicates, grouped by reason; fewer if too few images qualify.

    Raises:
        UserInputError: if there are no predictions, if they are on different images, or if num_panels < 0.
    """
    if num_panels < 0:
        raise UserInputError(f"num_panels must be 0 or more, but got {num_panels}; 0 draws none")
    ids, labels = _common_images(predictions_by_arm)
    arms = {name: _count_votes(seeds) for name, seeds in predictions_by_arm.items()}
    rankings = _rank_images(arms, labels)
    queues = [(reason, _order(agreement, confidence)) for reason, agreement, confidence in rankings]
    chosen = _take_turns(queues, num_panels)
    display = [reason for reason, _, _ in reversed(rankings)]
    chosen.sort(key=lambda pick: display.index(pick[1]))
    return tuple((int(ids[index]), reason) for index, reason in chosen)


def _common_images(predictions_by_arm: Mapping[str, Sequence[Predictions]]) -> tuple[IntArray, IntArray]:
    """Return ids (N,) and labels (N,) that all predictions share; raise UserInputError if they do not."""
    empty = [arm for arm, seeds in predictions_by_arm.items() if not seeds]
    if empty or not predictions_by_arm:
        raise UserInputError(f"panels need predictions of every arm, but {empty or 'no arm'} has some: confirm first")
    first = next(iter(predictions_by_arm.values()))[0]
    for arm, seeds in predictions_by_arm.items():
        for seed in seeds:
            same = np.array_equal(seed.sample_ids, first.sample_ids) and np.array_equal(seed.labels, first.labels)
            if not same or seed.logits.shape != first.logits.shape:
                raise UserInputError(
                    f"panels compare arms on the same images, but {arm!r} has predictions on others: "
                    "pass the same split of every arm and seed"
                )
    return first.sample_ids, first.labels


def _count_votes(seeds: Sequence[Predictions]) -> _Votes:
    probability = np.mean([s.probabilities for s in seeds], axis=0)
    return np.mean([np.eye(probability.shape[1])[s.predicted] for s in seeds], axis=0), probability


def _rank_images(arms: Mapping[str, _Votes], labels: IntArray) -> list[_Ranking]:
    """Return (reason, agreement (N,), confidence (N,)) in the order of turns; agreement <= 1/2 disqualifies."""
    both = {1: "", 2: "both "}.get(len(arms), "all ")
    rankings = [_rank_confused(arms, labels), (f"{both}wrong", *_rank_correctness(arms, labels, correct=set()))]
    if len(arms) > 1:
        rankings += [(f"only {name} correct", *_rank_correctness(arms, labels, correct={name})) for name in arms]
    rankings.append((f"{both}correct", *_rank_correctness(arms, labels, correct=set(arms))))
    return rankings


def _rank_correctness(arms: Mapping[str, _Votes], labels: IntArray, correct: set[str]) -> tuple[FloatArray, FloatArray]:
    """Return agreement and confidence, each (N,), that exactly the arms in `correct` are correct."""
    agreements, confidences = [], []
    is_label = labels[:, None] == np.arange(next(iter(arms.values()))[0].shape[1])
    for name, (predicted, probability) in arms.items():
        agreements.append(predicted[is_label] if name in correct else 1.0 - predicted[is_label])
        wrong = np.where(is_label, 0.0, probability).max(axis=1, initial=0.0)
        confidences.append(probability[is_label] if name in correct else wrong)
    return np.min(agreements, axis=0), np.min(confidences, axis=0)


def _rank_confused(arms: Mapping[str, _Votes], labels: IntArray) -> _Ranking:
    """Rank the images of the most confused pair of classes by the share of seeds that confuse them.

    The pair is the one with the most confused images, pooled over arms and seeds; ties go to the lower classes.
    """
    predicted, probability = (np.mean(both, axis=0) for both in zip(*arms.values(), strict=True))
    num_classes = predicted.shape[1]
    exchanged = np.zeros((num_classes, num_classes))
    np.add.at(exchanged, labels, predicted)
    exchanged = np.triu(exchanged + exchanged.T, k=1)
    if not exchanged.max(initial=0.0) > 0:
        nothing = np.zeros(len(labels))
        return MOST_CONFUSED, nothing, nothing
    first, second = np.unravel_index(exchanged.argmax(), exchanged.shape)
    other = np.where(labels == first, second, first)
    rows = np.arange(len(labels))
    in_pair = np.isin(labels, [first, second])
    # A single confusion qualifies here: half of the seeds is a high bar for a pair of good models.
    share = np.where(in_pair, predicted[rows, other], 0.0)
    return MOST_CONFUSED, np.where(share > 0, 0.5 + share / 2, 0.0), probability[rows, other]


def _order(agreement: FloatArray, confidence: FloatArray) -> list[int]:
    """Return the indices that qualify, best first; `lexsort` is stable and ids ascend, so ties go to the lower id."""
    order = np.lexsort((-np.round(confidence, 12), -np.round(agreement, 12)))
    return [int(index) for index in order if agreement[index] > 0.5]


def _take_turns(queues: Sequence[tuple[str, list[int]]], num_panels: int) -> list[tuple[int, str]]:
    """Take one image per reason in turn, skipping those already taken, until enough or none are left."""
    chosen: dict[int, str] = {}
    places = [iter(queue) for _, queue in queues]
    active = set(range(len(queues)))
    while active and len(chosen) < num_panels:
        for turn, (reason, _) in enumerate(queues):
            index = next((i for i in places[turn] if i not in chosen), None)
            if index is None:
                active.discard(turn)
            elif len(chosen) < num_panels:
                chosen[index] = reason
    return list(chosen.items())


def compute_arm_cams(
    network: CamNetwork,
    images: Images,
    labels: IntArray,
    logits: NDArray[np.floating],
    source: CamSource,
    *,
    arm: str,
    class_names: Sequence[str],
) -> tuple[ArmCam, ...]:
    """Return the maps for the predicted and the true class of each image, with their probabilities.

    Args:
        network: of the arm.
        images: (N, H, W, 3).
        labels: (N,) true classes, indices of `class_names`.
        logits: (N, K) stored predictions of the same network, which give class and probabilities: on another device or in
            other batches its last bits may differ.
        source: method and layer of the maps.
        arm: its name.
        class_names: K names.

    Returns:
        N values in the order of the images; `degenerate` is set if either map is.
    """
    if not len(labels):
        return ()
    probabilities = softmax(logits.astype(np.float64), axis=1)
    predicted = logits.argmax(axis=1)
    inputs = network.prepare(images)
    predicted_cams, true_cams = (
        compute_cams(network, inputs, source.layer, classes).maps[source.method] for classes in (predicted, labels)
    )
    return tuple(
        ArmCam(
            view=CamView(
                arm=arm,
                **asdict(source),
                predicted_class=class_names[int(predicted[i])],
                predicted_probability=float(probabilities[i, predicted[i]]),
                true_probability=float(probabilities[i, labels[i]]),
                degenerate=is_degenerate(predicted_cams[i]) or is_degenerate(true_cams[i]),
            ),
            predicted_cam=predicted_cams[i],
            true_cam=true_cams[i],
        )
        for i in range(len(labels))
    )
