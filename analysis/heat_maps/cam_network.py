"""A network whose heat maps are computed, with the precision, memory layout and kernels of its trial."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from analysis.audits.ring_swaps import Images
from analysis.statistics.metrics import FloatArray
from search_spaces.config import TrialConfig
from trainables.models.inputs import prepare_inputs
from trainables.training.evaluation import autocast, deterministic_kernels

# Images per forward pass.
BATCH_SIZE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CamNetwork:
    """A network and the configuration of its trial.

    Attributes:
        model: placed as in training (`trainables.models.backbones.place_model`).
        config: gives image size, interpolation, memory layout and precision, as for
            `trainables.training.evaluation.compute_logits`.
    """

    model: nn.Module
    config: TrialConfig

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.model.parameters()).device

    def prepare(self, images: Images) -> torch.Tensor:
        """Return (n, 3, S, S) float32 inputs on the CPU for (n, H, W, 3) images."""
        return prepare_inputs(torch.from_numpy(np.array(images)), self.config)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Set evaluation mode, precision and kernels; restore every module's mode, and each parameter's gradient and flag.

        Gradients are neither switched on nor off.
        """
        modes = [(module, module.training) for module in self.model.modules()]
        parameters = [(p, p.requires_grad, p.grad) for p in self.model.parameters()]
        try:
            self.model.eval()
            with deterministic_kernels(self.config, self.device), autocast(self.config, self.device):
                yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter, requires_grad, gradient in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient

    def compute_logits(self, inputs: torch.Tensor) -> FloatArray:
        """Return (N, K) float64 logits of (N, 3, S, S) inputs."""
        with self.evaluating(), torch.no_grad():
            batches = [self.model(batch.to(self.device)).float().cpu() for batch in torch.split(inputs, BATCH_SIZE)]
        return np.asarray(torch.cat(batches).double().numpy())
