"""Settings of the augmentation with changes."""

from typing import Any

from trainables.data.augmentation.pipeline import AugmentationSettings


def change(settings: AugmentationSettings, **changes: Any) -> AugmentationSettings:
    """Return a copy with changed values, which are not checked."""
    return settings.model_copy(update=changes)
