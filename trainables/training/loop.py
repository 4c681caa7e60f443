"""`TrainingRun`: the training of one trial by the product's loop; `ProbeRun`: that of a head alone, on cached features."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Required, TypedDict, Unpack, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from trainables.data.augmentation.pipeline import augment_batch
from trainables.data.image_array import ImageArray
from trainables.models import backbones
from trainables.models.heads import find_head, fold_state
from trainables.seeds import derive_seed, torch_generator
from trainables.training.batches import (
    EpochBatches,
    compute_class_weights,
    compute_total_weight,
    compute_weighted_cross_entropy,
)
from trainables.training.checkpoint import Checkpoint, PartialEpoch
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.evaluation import autocast, check_recipe, compute_logits, deterministic_kernels, seeded_modules
from trainables.training.frozen_features import borrow_backbone
from trainables.training.head_refit import NONE, check_head, refit_head
from trainables.training.linear_probe import compute_split, prepare_head
from trainables.training.ranks import ALONE, Ranks
from trainables.training.steps import OptimizerSteps
from trainables.training.trial_data import (
    Place,
    TrialData,
    choose_training_images,
    describe_place,
    gather_images,
    place_images,
    read_batches,
)
from trainables.training.trial_run import EpochInterrupted, TrialRun


class RunOptions(TypedDict, total=False):
    """The keyword arguments of `TrainingRun`.

    Attributes:
        device: Device to compute on.
        weights: As in `trainables.models.backbones.build_model`.
        checkpoint: State to continue from.
        profile: Whether the metrics include `part_seconds`.
        place: Returns the images where they are to be while the trial trains; `place_images` by default.
        ranks: This process among those that train the trial (`trainables.training.distributed_run`); `ALONE` by default.
    """

    device: Required[torch.device]
    weights: str | None
    checkpoint: Checkpoint | None
    profile: bool
    place: Place
    ranks: Ranks


class TrainingRun(TrialRun):
    """The training of one trial.

    Equal configuration, data, kind of device and number of threads give bitwise equal results, whether or not the training
    was resumed from a checkpoint. On a GPU, libraries, driver and the memory that the trial may take must be equal too: cuDNN
    takes another algorithm where a workspace does not fit. Global random state is not changed. A step of the optimizer uses
    `accumulate` batches. The last batches of an epoch are dropped if they are not full or do not fill a step, unless the training
    split is smaller than one step. Each epoch shuffles the images again. With `ema_decay`, metrics, predictions and `state_dict`
    are those of the averaged weights.

    Of several processes, each trains a part of each batch, and torch's DistributedDataParallel averages the gradients. A step
    equals that of one process with the same batch, but for rounding, for batch normalization, whose statistics in training are
    those of a process's part, and for what augmentation draws: each process has generators of its own. Running statistics are
    those of rank 0. Equal numbers of processes give bitwise equal results, resumed or not.
    """

    def __init__(self, config: TrialConfig, data: TrialData, **options: Unpack[RunOptions]) -> None:
        """Build model, optimizer and schedule, or restore them from a checkpoint.

        Args:
            config: Configuration of the trial.
            data: Images and splits.
            options: See `RunOptions`.

        Raises:
            UserInputError: For settings, weights or a checkpoint that cannot be used, or fewer than two training images.
        """
        device, checkpoint, ranks = options["device"], options.get("checkpoint"), options.get("ranks", ALONE)
        train = choose_training_images(config, data.splits.train)
        check_recipe(config, device)
        super().__init__(config, data, device, profile=options.get("profile", False))
        self._ranks = ranks
        self._settings = backbones.read_augmentation(config)
        self._images = options.get("place", place_images)(data.images, device)
        self.images_on = describe_place(self._images, device)
        self._labels = torch.from_numpy(np.array(data.labels, dtype=np.int64))
        self._batches = EpochBatches(config, data, train)
        shape = self._batches.shape
        self._class_weights = compute_class_weights(config, data, train).to(device)
        weights_are_equal = bool((self._class_weights == self._class_weights[0]).all())
        self._parts_are_even = ranks.size == 1 or (weights_are_equal and shape.batch_size % ranks.size == 0)
        model = backbones.build_model(config, len(data.class_names), weights=options.get("weights"))
        self.model = backbones.place_model(model, config, device)
        check_head(self.model, config, data, self._images, device)
        prepare_head(self.model, config, data, self._images, device, is_restored=checkpoint is not None)
        self.num_parameters = backbones.count_parameters(self.model)
        self._trained = self._find_trained()
        self._forward = self._make_forward()
        self._steps = OptimizerSteps(
            self._trained, config, device, batches_per_epoch=shape.num_batches, batch_size=shape.batch_size
        )
        self._partial: PartialEpoch | None = None
        if checkpoint is not None:
            self._restore(checkpoint)

    def run_epoch(self, *, should_stop: Callable[[], bool] = lambda: False) -> EpochMetrics:
        """Train and evaluate one epoch; after the last one, the head is fitted anew where `head_refit` says so."""
        metrics = super().run_epoch(should_stop=should_stop)
        if self.is_finished:
            self._refit_head()
        return metrics

    def take_over(self, state: Mapping[str, Tensor], history: Sequence[EpochMetrics]) -> None:
        """End where a trial ended that differs in `head_refit` alone, and whose network is therefore the same.

        Args:
            state: Its `state_dict`.
            history: Of all its epochs.
        """
        model = self.evaluated_model
        model.load_state_dict({**model.state_dict(), **state})
        self.history = tuple(history)
        self._refit_head()

    def _refit_head(self) -> None:
        if self.config["head_refit"] != NONE:
            refit_head(self.evaluated_model, self.config, self._data, self._images, self.device)

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and stored: the trained one, or with `ema_decay` the one with averaged weights."""
        return self._steps.averaged_model or self.model

    def preview_batch(self, most: int = 16) -> NDArray[np.uint8]:
        """Return the first images of the first batch of the training as the network sees them, before they are normalized.

        Args:
            most: Images at most.

        Returns:
            (N, S, S, 3) uint8; the training itself is not changed.
        """
        chosen = self._batches.of_epoch(1)[0]
        generator = torch_generator(self.config.seed, "augmentation", 1, device=self.device)
        images, labels = next(read_batches(self._images, (chosen,), self.device)), self._labels[chosen].to(self.device)
        num_classes = len(self._data.class_names)
        inputs, _ = augment_batch(images, labels, generator=generator, settings=self._settings, num_classes=num_classes)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self._settings.mean, self._settings.std))
        shown = inputs[:most].float().cpu() * std + mean
        return np.asarray((255 * shown).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())

    def state_dict(self) -> dict[str, Tensor]:
        """Return a contiguous copy of the evaluated model's state dict on the CPU, under torchvision's names."""
        return self.complete_state(self.evaluated_model.state_dict())

    def complete_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the same of a state dict of what is trained, such as that of a checkpoint."""
        return _copy_all(fold_state(state))

    def checkpoint(self) -> Checkpoint:
        """Return a copy of the state that the next epoch depends on."""
        averaged = self._steps.averaged_model
        return Checkpoint(
            fingerprint=self.config.fingerprint,
            epoch=self.epoch,
            model_state=_copy_all(self._trained.state_dict()),
            optimizer_state=_copy_all(self._steps.optimizer_state()),
            num_steps=self._steps.num_steps,
            learning_rates=self._steps.learning_rates,
            history=self.history,
            partial=self._partial,
            average_state={} if averaged is None else _copy_all(averaged.state_dict()),
            loss_scale=self._steps.loss_scale(),
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        checkpoint.check_configuration(self.config)
        try:
            self._trained.load_state_dict(dict(checkpoint.model_state))
        except RuntimeError:
            raise UserInputError(
                f"the checkpoint must fit a model of {len(self._data.class_names)} classes, but does not; "
                "continue with the image set that it was trained on"
            ) from None
        self._steps.restore(checkpoint)
        self.history = checkpoint.history
        self._partial = checkpoint.partial

    @property
    def _num_images_of_epoch(self) -> int:
        return self._batches.shape.num_batches * self._batches.shape.batch_size

    def train_epoch(self, epoch: int, should_stop: Callable[[], bool]) -> float:
        """Train an epoch, or this process's part of it, and return its mean loss; rank 0 alone decides about `should_stop`."""
        started = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        seed, ranks = self.config.seed, self._ranks
        generator = torch_generator(seed, "augmentation", epoch, *ranks.names, device=self.device)
        loss_sum = torch.zeros((), device=self.device)
        num_before, self._earlier_seconds = 0, 0.0
        if self._partial is not None:
            num_before, self._earlier_seconds = self._partial.num_batches, self._partial.seconds
            generator.set_state(ranks.unpack(self._partial.generator_state))
            loss_sum.copy_(ranks.unpack(self._partial.loss_sum))
        backbones.set_training_mode(self.model, self.config)
        per_step = self._steps.num_accumulated
        module_state = None if self._partial is None else ranks.unpack(self._partial.module_state)
        noise_seed = derive_seed(seed, *ranks.names) if ranks.names else seed
        noise = seeded_modules(noise_seed, epoch, self.device, module_state)
        with deterministic_kernels(self.config, self.device), noise as module_generator:
            batches = [ranks.take_part(batch) for batch in self._batches.of_epoch(epoch)[num_before:]]
            pixels = self._read_batches(batches, epoch)
            for number, chosen in enumerate(batches, start=num_before):
                if number > num_before and number % per_step == 0 and ranks.agree(int(should_stop())):
                    self._partial = PartialEpoch(
                        num_batches=number,
                        loss_sum=ranks.pack(loss_sum.cpu()),
                        generator_state=ranks.pack(generator.get_state()),
                        module_state=ranks.pack(module_generator.get_state()),
                        seconds=self._earlier_seconds + time.perf_counter() - started,
                    )
                    raise EpochInterrupted
                loss_sum += self._compute_loss(chosen, pixels, generator)
                if (number + 1) % per_step == 0:
                    self._last_rates = self._steps.head_and_backbone_lr
                    with self.stopwatch.part("optimizer"):
                        self._steps.step()
            mean_loss = float(ranks.gather(loss_sum).mean()) / self._batches.shape.num_batches
        self._partial = None
        return mean_loss

    def _compute_loss(self, chosen: Tensor, pixels: Iterator[Tensor], generator: torch.Generator) -> Tensor:
        """Run forward and backward pass of one batch, whose images come next; return its loss, detached, on the device."""
        with self.stopwatch.part("data"):
            images = next(pixels)
            labels = self._labels[chosen].to(self.device, non_blocking=True)
        with self.stopwatch.part("augment"):
            inputs, targets = self._augment(images, labels, generator)
        with self.stopwatch.part("forward"):
            with autocast(self.config, self.device):
                logits = self._forward(inputs)
            smoothing = self.config.number("label_smoothing")
            loss = compute_weighted_cross_entropy(logits, targets, self._class_weights, smoothing)
            loss, total_weight = self._weigh_loss(loss, targets)
        with self.stopwatch.part("backward"):
            self._steps.backward(loss, total_weight)
        return loss.detach()

    # What `ProbeRun` does otherwise.

    def _find_trained(self) -> nn.Module:
        """Return the part of the model that the optimizer and checkpoints know."""
        return self.model

    def _read_batches(self, batches: Sequence[Tensor], epoch: int) -> Iterator[Tensor]:  # noqa: ARG002 - views of a probe
        """Yield the images of each batch of an epoch on the device."""
        return read_batches(self._images, batches, self.device)

    def _augment(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the inputs of the forward pass and the soft targets (B, K) of one batch."""
        num_classes = len(self._data.class_names)
        return augment_batch(images, labels, generator=generator, settings=self._settings, num_classes=num_classes)

    def _compute_logits(self, split: str) -> NDArray[np.float32]:
        indices, batch_size = getattr(self._data.splits, split), self.config.whole("batch_size")
        return compute_logits(self.evaluated_model, self._images, indices, self.config, self.device, batch_size)

    def _make_forward(self) -> Callable[[Tensor], Tensor]:
        """Return the forward pass of a training batch; that of several processes averages the gradients over them."""
        if self._ranks.size == 1:
            return backbones.compile_model(self.model, self.config, self.device)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            return self.model
        return DistributedDataParallel(self.model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def _weigh_loss(self, loss: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return a loss whose mean over the processes is that of the batch, and its total weight where it is needed."""
        if self._parts_are_even and self._steps.num_accumulated == 1:
            return loss, None
        own = compute_total_weight(targets, self._class_weights)
        # The very same number in all processes, whose weights would drift apart otherwise.
        total = self._ranks.sum(own)
        return loss if self._parts_are_even else loss * (self._ranks.size * own / total), total


def _copy_all(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}


HEAD = "head"
LOGITS_BATCH = 8192


class ProbeRun(TrainingRun):
    """A trial of `tuning = "probe"`: `TrainingRun` with features in place of images.

    Epoch e trains on view (e - 1) mod `probe_views` of the training images. The first trial on a node computes the features,
    and others with the same backbone, images and preprocessing read them.
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
