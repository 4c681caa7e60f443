"""The search spaces that a spec can name."""

from collections.abc import Mapping

from search_spaces.errors import UserInputError, nearest_name
from search_spaces.space import CategoricalParameter, Condition, FloatParameter, SearchSpace

TRANSFER_LEARNING = SearchSpace(
    name="transfer_learning",
    parameters=(
        # Names of other libraries may take the place of these (`trainables.models.catalog`).
        CategoricalParameter(name="backbone", choices=("resnet18", "resnet50"), entry_points="abstudy.backbones"),
        # Learning rate of the head at the peak of OneCycle.
        FloatParameter(name="max_lr", low=1e-3, high=1.0, log=True),
        # Learning rate of the backbone / learning rate of the head.
        FloatParameter(name="backbone_lr_ratio", low=1e-3, high=1.0, log=True),
        FloatParameter(name="cutmix_probability", low=0.0, high=1.0),
        CategoricalParameter(name="class_weighting", choices=("none", "inverse_frequency", "group")),
        FloatParameter(
            name="class_weight_strength",
            low=0.0,
            high=1.0,
            condition=Condition(parent="class_weighting", values=("inverse_frequency", "group")),
        ),
        CategoricalParameter(name="interpolation", choices=("bicubic", "bilinear")),
        FloatParameter(name="weight_decay", low=1e-6, high=1e-2, log=True),
        FloatParameter(name="label_smoothing", low=0.0, high=0.2),
    ),
)

SPACES: Mapping[str, SearchSpace] = {TRANSFER_LEARNING.name: TRANSFER_LEARNING}


def load_space(name: str) -> SearchSpace:
    """Return the space called `name`; raise UserInputError with the nearest name if there is none."""
    if name not in SPACES:
        raise UserInputError(f"there is no search space {name!r}{nearest_name(name, SPACES)}")
    return SPACES[name]
