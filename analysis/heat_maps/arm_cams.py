"""The heat maps of one arm's model for the images of the panels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from analysis.audits.ring_swaps import Images
from analysis.findings.heat_map_findings import ArmCam, CamView
from analysis.heat_maps.cam_network import CamNetwork
from analysis.heat_maps.grad_cam import CamSource, compute_cams, is_degenerate
from analysis.statistics.metrics import IntArray


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
        compute_cams(network, inputs, source.layer.name, classes).maps[source.method] for classes in (predicted, labels)
    )
    return tuple(
        ArmCam(
            view=CamView(
                arm=arm,
                layer=source.layer.name,
                map_size=source.layer.size,
                method=source.method.value,
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
