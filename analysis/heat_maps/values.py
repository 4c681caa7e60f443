"""Findings about heat maps: whether they are evidence, and the panels that show them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.interval import TwoIntervals


@dataclass(frozen=True, slots=True, kw_only=True)
class CamTest:
    """One of the tests that heat maps must pass before they count as evidence.

    Attributes:
        name: of the test.
        estimate: with its intervals at 95 %.
        rule: the condition, as a sentence.
        is_passed: whether it holds for these models.
        applies: False where there is nothing to test; admission then does not need it.
    """

    name: str
    estimate: TwoIntervals
    rule: str
    is_passed: bool
    applies: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CamSource:
    """Method and layer of heat maps.

    Attributes:
        layer: by the name of its module.
        map_size: (height, width) of its output in cells.
        method: "Grad-CAM", "HiResCAM" or "LayerCAM".
    """

    layer: str
    map_size: tuple[int, int]
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CamCandidate(CamSource):
    """A method and a layer that was considered for an arm's heat maps.

    Attributes:
        num_images: on which it was measured.
        road: mean ROAD score of images with their own map minus with another image's map; a difference of probabilities.
        standard_error: of `road`, over images.
        empty_share: share of empty maps.
        similarity: mean rank correlation of the maps with those of an untrained network.
    """

    num_images: int
    road: float
    standard_error: float
    empty_share: float
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CamAdmission(CamSource):
    """Whether an arm's heat maps are admitted as evidence (`analysis.heat_maps.validity_tests`).

    Attributes:
        num_images: tested.
        tests: all that apply must be passed.
        is_admitted: whether all are.
        object_focus: share of the maps' energy on the object minus that inside other images' masks; None without masks.
        method: of the maps.
        candidates: methods and layers among which the maps were chosen on other images, the chosen one first.
    """

    num_images: int
    tests: tuple[CamTest, ...]
    is_admitted: bool
    object_focus: TwoIntervals | None
    method: str
    candidates: tuple[CamCandidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CamView(CamSource):
    """One arm's part of a panel of heat maps, by one method.

    Attributes:
        arm: name.
        predicted_class: name of the class that the arm's model predicts, from its stored predictions.
        predicted_probability: of that class.
        true_probability: of the true class.
        degenerate: whether a map is empty.
        method: of the maps.
    """

    arm: str
    predicted_class: str
    predicted_probability: float
    true_probability: float
    degenerate: bool
    method: str = "Grad-CAM"


@dataclass(frozen=True, slots=True, kw_only=True)
class CamPanel:
    """An input with heat maps and overlays per arm, for the true and the predicted class.

    Attributes:
        sample_id: index of the image in the image set.
        true_class: its label's name.
        reason: why it was chosen ("both correct", "both wrong", "only resnet50 correct", "most confused", ...).
        views: Grad-CAM of each arm, in the order of the findings' arms, followed by the arm's chosen maps where they differ.
        figure: file name under findings/figures/.
    """

    sample_id: int
    true_class: str
    reason: str
    views: tuple[CamView, ...]
    figure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCam:
    """The maps of one arm's model for one image, by one method, ready to be drawn.

    Attributes:
        view: texts and numbers of the panel.
        predicted_cam: (h, w) float32 raw CAM energy for the class that the model predicts.
        true_cam: (h, w) float32 raw CAM energy for the image's own class.
    """

    view: CamView
    predicted_cam: NDArray[np.float32]
    true_cam: NDArray[np.float32]
