"""`ProbeRun`: the training of a head alone, on cached features of its frozen backbone."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search_spaces.errors import UserInputError
from trainables.data.image_array import ImageArray
from trainables.models.heads import find_head
from trainables.training.evaluation import deterministic_kernels
from trainables.training.frozen_features import borrow_backbone
from trainables.training.linear_probe import compute_split
from trainables.training.loop import TrainingRun
from trainables.training.placed_images import gather_images, place_images

HEAD = "head"
LOGITS_BATCH = 8192


class ProbeRun(TrainingRun):
    """A trial of `tuning = "probe"`: `TrainingRun` with features in place of images.

    Epoch e trains on view (e - 1) mod `probe_views` of the training images. The first trial on a node computes the features, and
    others with the same backbone, images and preprocessing read them.
    """

    def _find_trained(self) -> nn.Module:
        config = self.config
        if config.whole("processes") > 1:
            raise UserInputError('model.tuning = "probe" trains in one process; set train.processes to 1')
        train = self._data.splits.train
        self._rows = torch.full((len(self._data.labels),), -1)
        self._rows[torch.from_numpy(np.array(train))] = torch.arange(len(train))
        self._identity = ""
        # By split and view; of the training split, the view of the last epoch alone.
        self._features: dict[tuple[str, int], Tensor] = {}
        return nn.ModuleDict({HEAD: find_head(self.model)[1]})

    def _make_forward(self) -> Callable[[Tensor], Tensor]:
        return find_head(self.model)[1]

    def _read_batches(self, batches: Sequence[Tensor], epoch: int) -> Iterator[Tensor]:
        features = self._recall("train", (epoch - 1) % self.config.whole("probe_views"))
        for batch in batches:
            yield gather_images(features, self._rows[batch], self.device)

    def _recall(self, split: str, view: int = 0) -> Tensor:
        """Return (N, D) features of a split, on the device where they fit."""
        if (split, view) not in self._features:
            self._features = {key: kept for key, kept in self._features.items() if key[0] != split}
            with borrow_backbone(self.model, self.config, self.device, identity=self._identity) as backbone:
                self._identity = backbone.identity
                found = compute_split(backbone, self._data, self._images, split, view)
            placed = place_images(cast(ImageArray, found), self.device)
            assert isinstance(placed, Tensor)
            self._features[split, view] = placed
        return self._features[split, view]

    def _augment(self, images: Tensor, labels: Tensor, _: torch.Generator) -> tuple[Tensor, Tensor]:
        return images, nn.functional.one_hot(labels, len(self._data.class_names)).to(torch.float32)

    def _compute_logits(self, split: str) -> NDArray[np.float32]:
        averaged, features = self._steps.averaged_model, self._recall(split)
        head = find_head(self.model)[1] if averaged is None else averaged[HEAD]  # type: ignore[index]
        with torch.inference_mode(), deterministic_kernels(self.config, self.device):
            logits = [head(part.to(self.device)).cpu() for part in torch.split(features, LOGITS_BATCH)]
        return np.asarray(torch.cat(logits).numpy(), dtype=np.float32)

    def complete_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict of the whole network, with the head of a checkpoint if it is one's."""
        own = {name: value for name, value in state.items() if name.startswith(f"{HEAD}.")}
        name = find_head(self.model)[0]
        head = {f"{name}{key.removeprefix(HEAD)}": value for key, value in own.items()}
        return super().complete_state({**self.model.state_dict(), **head} if own else state)

    @property
    def evaluated_model(self) -> nn.Module:
        """The network with the head that is evaluated: the trained one, or in a copy with `ema_decay` the averaged one."""
        averaged = self._steps.averaged_model
        if averaged is None:
            return self.model
        model = copy.deepcopy(self.model)
        model.set_submodule(find_head(model)[0], averaged[HEAD])  # type: ignore[index]
        return model
