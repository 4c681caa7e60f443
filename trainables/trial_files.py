"""`TrialFiles`: the names and forms of what one trial stores: its checkpoint, final weights and predictions."""

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from search_spaces.errors import UserInputError
from trainables.checkpoint import Checkpoint
from trainables.predictions import Predictions
from trainables.record import DamagedFileError
from trainables.store import Store

CHECKPOINT = "checkpoint/state.safetensors"
WEIGHTS = "best/weights.safetensors"


class TrialFiles:
    """Reads and writes below one trial's folder."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        self.store.write_bytes(CHECKPOINT, checkpoint.to_bytes())

    def read_checkpoint(self) -> Checkpoint | None:
        """Return the last checkpoint, or None if there is none yet; raise DamagedFileError naming a damaged one."""
        if not self.store.exists(CHECKPOINT):
            return None
        try:
            return Checkpoint.from_bytes(self.store.read_bytes(CHECKPOINT))
        except UserInputError as error:
            raise DamagedFileError(f"{self.store.root}/{CHECKPOINT} is damaged: {error}") from None

    def delete_checkpoint(self) -> None:
        """Delete the checkpoint of a trial that will not go on."""
        self.store.delete("checkpoint")

    def write_weights(self, state: Mapping[str, Tensor]) -> None:
        """Store the final weights, a state dict of contiguous CPU tensors under torchvision's names."""
        self.store.write_bytes(WEIGHTS, save(dict(state)))

    def load_weights(self, model: nn.Module) -> nn.Module:
        """Load the final weights into `model` and return it; raise DamagedFileError naming a damaged file."""
        try:
            model.load_state_dict(load(self.store.read_bytes(WEIGHTS)))
        except FileNotFoundError:
            raise DamagedFileError(f"{self.store.root}/{WEIGHTS} is missing") from None
        except (SafetensorError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise DamagedFileError(f"{self.store.root}/{WEIGHTS} is damaged: {first}") from None
        return model

    def write_predictions(self, predictions: Predictions) -> None:
        """Store the predictions on one split."""
        self.store.write_bytes(f"best/{predictions.split}.npz", predictions.to_npz())

    def read_predictions(self, split: str) -> Predictions:
        """Return the predictions on one split; raise DamagedFileError naming a missing or damaged file."""
        name = f"best/{split}.npz"
        try:
            return Predictions.from_npz(self.store.read_bytes(name))
        except FileNotFoundError:
            raise DamagedFileError(f"{self.store.root}/{name} is missing") from None
        except Exception as error:
            raise DamagedFileError(f"{self.store.root}/{name} is damaged: {error}") from None
