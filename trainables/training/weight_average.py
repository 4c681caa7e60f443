"""The exponential moving average of a model's weights."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

# As in timm's ModelEmaV3 with its decay warm-up.
WARMUP_POWER = 2 / 3


def compute_decay(num_averaged: int, max_decay: float) -> float:
    """Return the decay of the update that follows `num_averaged` updates: 1 - (1 + n)^(-2/3), at most `max_decay`.

    Without this warm-up, the untrained head would keep a share of decay^n in the average, which is 37 % after 1000 steps with
    a decay of 0.999; a fine-tuning trial often has no more.
    """
    return min(max_decay, 1.0 - float((1.0 + num_averaged) ** -WARMUP_POWER))


class WeightAverage:
    """The average of a model's weights and of its floating-point buffers, such as the statistics of BatchNorm.

    After each step, average = d * average + (1 - d) * weights, with d of `compute_decay`: torch's `AveragedModel` with
    `use_buffers`, since statistics of the latest weights do not fit averaged weights. Source: Polyak and Juditsky 1992; decay
    warm-up as in timm's `ModelEmaV3`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start with a copy of `model`; `decay` is the final decay, in (0, 1)."""
        self._decay = decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True)

    @property
    def model(self) -> nn.Module:
        """The model with the averaged weights, on the device of the trained one."""
        module = self._averaged.module
        assert isinstance(module, nn.Module)
        return module

    def update(self, model: nn.Module) -> None:
        """Include the model's weights after a step; the first update copies them."""
        self._averaged.update_parameters(model)

    def restore(self, state: Mapping[str, Tensor], num_averaged: int) -> None:
        """Take over a state dict of `model` and the number of updates that it resulted from."""
        self.model.load_state_dict(dict(state))
        self._averaged.n_averaged.fill_(num_averaged)

    def _average(
        self,
        averaged: tuple[Tensor, ...] | list[Tensor],
        current: tuple[Tensor, ...] | list[Tensor],
        num_averaged: Tensor | int,
    ) -> None:
        # The count on the CPU, since reading `num_averaged` would wait for the device.
        decay = compute_decay(int(self._averaged.n_averaged), self._decay)
        get_ema_multi_avg_fn(decay)(averaged, current, num_averaged)  # type: ignore[no-untyped-call]
