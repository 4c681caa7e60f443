"""`TrialSettings`: what the trials of a study share. Imports no torch, so that who only starts trials is quick."""

from dataclasses import dataclass

from search_spaces.space import Parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSettings:
    """Settings that all trials of a study share and that are not part of their configurations.

    Attributes:
        study_uri: Root of the study.
        weights: Location of the pretrained weights on every node ("none", "imagenet", a file or a folder).
        device: "auto" (CUDA if the trial holds a GPU, else CPU), "cpu" or "cuda".
        space: Searched parameters, for TensorBoard's HParams.
        profile: Whether epochs report `part_seconds`.
        checkpoint_seconds: Shortest distance between two checkpoints; 0 stores one after every epoch.
    """

    study_uri: str
    weights: str
    device: str
    space: tuple[Parameter, ...]
    profile: bool = False
    checkpoint_seconds: float = 0.0
