"""R13: pickles in the place of every file that the product reads."""

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from study.spec.reading import load_spec
from tests.faults.campaign import Outcome
from tests.faults.storage import make_whole_study, read_study, state_files
from tests.trainables.data.sources.tar_files import make_samples, write_shard
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.sources import load_image_set
from trainables.models.backbones import build_model
from trainables.models.weights import load_weights_file
from trainables.records.record import TrialRecord
from trainables.storage.store import Store
from trainables.training.checkpoint import Checkpoint


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_write_marker, (self.marker,))


def _write_marker(marker: str) -> str:
    Path(marker).write_text("executed")
    return marker


def place_payloads(folder: Path, root: str = "", only: str = "") -> Outcome:
    """R13: a pickle that leaves a mark, in six wrappings, in the place of every file that the product reads.

    `root` is a whole study; without it one is made. With `only`, one file of the study.
    """
    store, marker = Store(root or make_whole_study(folder)), folder / "executed"
    names = [only] if only else state_files(store)
    outside = {} if only else _outside_loads(folder)
    placed, lost = 0, []
    for name, load in [*_study_loads(store, names), *outside.items()]:
        for wrapping, data in wrap_payload(marker).items():
            placed += 1
            try:
                load(data)
            except UserInputError:
                pass
            except Exception as error:
                lost.append(f"{name} as {wrapping}: {type(error).__name__}: {error}")
            if marker.exists():
                lost.append(f"{name} as {wrapping} was executed")
                marker.unlink()
    return Outcome(
        fault="R13 pickle payloads",
        injected=placed,
        survived=placed - len(lost),
        lost=tuple(lost),
        seen=f"{len(names)} files of a study, weights given by the user (.pt, folder), images, parquet, tar files, "
        "the folder of decoded images, warm start",
    )


def _study_loads(store: Store, names: list[str]) -> Iterator[tuple[str, Callable[[bytes], Any]]]:
    """Yield loads of the study with another content for one of its files, and put the file back after each."""
    for name in names:
        file = Path(store.root, name)
        whole = file.read_bytes()

        def write_and_read(data: bytes, file: Path = file, name: str = name) -> None:
            file.write_bytes(data)
            read_study(store, name, is_forged=True)

        yield name, write_and_read
        file.write_bytes(whole)


def wrap_payload(marker: Path) -> dict[str, bytes]:
    """Return the payload as a pickle, as torch.save writes it (zip and legacy), in an npz, and after a safetensors header."""
    payload = Payload(marker)
    modern, legacy, archive, zipped = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"fc.weight": payload}, modern)
    torch.save({"fc.weight": payload}, legacy, _use_new_zipfile_serialization=False)
    np.savez(archive, logits=np.array([payload], dtype=object), sample_ids=np.array([payload], dtype=object))
    with zipfile.ZipFile(zipped, "w") as stream:
        stream.writestr("archive/data.pkl", pickle.dumps(payload))
    bare = pickle.dumps(payload)
    return {
        "pickle": bare,
        "torch.save": modern.getvalue(),
        "legacy torch.save": legacy.getvalue(),
        "npz": archive.getvalue(),
        "safetensors": len(bare).to_bytes(8, "little") + bare,
        "zip": zipped.getvalue(),
    }


def _outside_loads(folder: Path) -> dict[str, Callable[[bytes], Any]]:
    """Return functions by name that load a file of the user's from its content."""
    place, cifar10 = folder / "given", "cifar-10-batches-py/data_batch_1"

    def in_file(name: str, load: Callable[[Path], Any]) -> Callable[[bytes], Any]:
        def write_and_load(data: bytes) -> Any:
            shutil.rmtree(place, ignore_errors=True)
            (place / Path(name).parent).mkdir(parents=True)
            (place / name).write_bytes(data)
            return load(place / name)

        return write_and_load

    def backbone(path: Path) -> Any:
        config = TrialConfig(arm="a", seed=0, hyperparameters={"backbone": "resnet18"}, fixed={"image_size": 32})
        return build_model(config, 2, weights=str(path.parent))

    def tar_sample(extension: str) -> Callable[[bytes], Any]:
        def write_and_load(data: bytes) -> Any:
            shutil.rmtree(place, ignore_errors=True)
            samples = make_samples(4)
            samples[1] = samples[1] | {extension: data}
            return load_image_set("webdataset", str(write_shard(place / "train-0.tar", samples)))

        return write_and_load

    def image_folder(data: bytes) -> Any:
        """Load files whose decoded pixels, and what is known of them, were all replaced."""
        shutil.rmtree(place, ignore_errors=True)
        shard = str(write_shard(place / "train-0.tar", make_samples(4)))
        budget = ImageMemoryBudget(0, place / "decoded")
        load_image_set("webdataset", shard, memory_budget=budget)
        kept = [file for file in budget.folder.iterdir() if file.suffix != ".lock"]
        assert kept, "nothing was kept"
        for file in kept:
            file.write_bytes(data)
        return load_image_set("webdataset", shard, memory_budget=budget)

    return {
        "weights.pt": in_file("resnet18.pt", load_weights_file),
        "weights.safetensors": in_file("resnet18.safetensors", load_weights_file),
        "folder of weights": in_file("resnet18.pt", backbone),
        "image": in_file("a/0.png", lambda path: load_image_set("folder", str(path.parents[1]))),
        "parquet": in_file("train-0.parquet", lambda path: load_image_set("parquet", str(path.parent))),
        "tar file": in_file("train-0.tar", lambda path: load_image_set("webdataset", str(path))),
        **{f".{extension} of a tar file": tar_sample(extension) for extension in ("png", "cls", "json", "pkl", "pth")},
        "image folder": image_folder,
        "cifar10 batch": in_file(cifar10, lambda path: load_image_set("cifar10", str(path.parents[1]))),
        "spec": in_file("spec.toml", lambda path: load_spec(str(path))),
        "checkpoint": Checkpoint.from_bytes,
        "record": lambda data: TrialRecord.from_json(data, where="record.json"),
    }
