"""Hostile input: specs, configurations, records and images that nobody should send, and pickles where files are read."""

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from study.confirmation.evidence import load_evidence, require_plan
from study.open_study import load_study, read_passport
from study.results.findings import load_findings
from study.scheduling.warm_start import earlier_trials
from study.spec.reading import load_spec, preset_names
from study.state import paths
from study.views.status import status_json
from tests.faults.campaign import Outcome
from tests.faults.storage import make_whole_study, state_files
from trainables.data.augmentation import AugmentationSettings
from trainables.data.sources import load_image_set
from trainables.models.backbones import build_model
from trainables.models.weights import load_backbone_weights, load_weights_file
from trainables.records.record import TrialRecord, compute_checksum
from trainables.records.store import Store
from trainables.records.trial_files import TrialFiles
from trainables.training.checkpoint import Checkpoint

HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, float("nan"), float("inf"), 2**63, "", "../../x", "/etc/passwd", "\x00", "é" * 300, "a\nb",
    [], [[]], {}, {"a": {}}, "s3://bucket/../x", "__import__('os')", "%s%n", "-" * 5000, [1, "a"], [2, 1], "NaN",
)  # fmt: skip


def feed_hostile_input(folder: Path, count: int) -> Outcome:
    """R12: each input is taken or refused with UserInputError; nothing is written anywhere."""
    chooser = random.Random(12)
    before = _tree(folder)
    kinds: tuple[tuple[str, Callable[[random.Random, Path], None]], ...] = (
        ("specs", _feed_spec),
        ("configurations", _feed_configuration),
        ("records", _feed_record),
        ("images", _feed_image),
    )
    taken: dict[str, int] = dict.fromkeys((name for name, _ in kinds), 0)
    wrong = []
    for number in range(count):
        name, feed = kinds[number % len(kinds)]
        place = folder / "input"
        place.mkdir()
        try:
            feed(chooser, place)
            taken[name] += 1
        except UserInputError as error:
            if not str(error) or "Traceback" in str(error):
                wrong.append(f"{name} {number}: refused without a word")
        except Exception as error:
            wrong.append(f"{name} {number}: {type(error).__name__}: {error}")
        shutil.rmtree(place)
        if _tree(folder) != before:
            wrong.append(f"{name} {number}: wrote something")
    return Outcome(
        fault="R12 hostile input",
        injected=count,
        survived=count - len(wrong),
        lost=tuple(wrong),
        seen=f"taken as valid: {taken}; everything else refused in words",
    )


def _feed_spec(chooser: random.Random, place: Path) -> None:
    file = place / "spec.toml"
    preset = Path(paths.__file__).parents[1] / "presets" / f"{chooser.choice(preset_names())}.toml"
    text = preset.read_text()
    if chooser.random() < 0.4:
        data = bytearray(text.encode())
        for _ in range(chooser.randint(1, 8)):
            data[chooser.randrange(len(data))] = chooser.randrange(256)
        file.write_bytes(data)
        load_spec(str(file))
        return
    lines = [number for number, line in enumerate(text.splitlines()) if "=" in line and not line.startswith("#")]
    rows = text.splitlines()
    at = chooser.choice(lines)
    rows[at] = f"{rows[at].partition('=')[0]}= {_toml(chooser.choice(HOSTILE_VALUES))}"
    file.write_text("\n".join(rows))
    section = chooser.choice(["data", "model", "train", "search", "confirm", "resources", "gate", "search.asha", "x"])
    override = f"{section}.{chooser.choice(['ranges', 'num_trials', 'path', 'cpu', 'x', 'fixed', 'looks', 'options'])}="
    load_spec(str(file), [override + _toml(chooser.choice(HOSTILE_VALUES))] if chooser.random() < 0.5 else [])


def _toml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return {"nan": "nan", "inf": "inf"}.get(str(value), str(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def _feed_configuration(chooser: random.Random, _: Path) -> None:
    """A configuration comes from a record; what it says is then built."""
    record = _sound_record()
    config = record["config"]
    where = config if chooser.random() < 0.5 else config[chooser.choice(["hyperparameters", "fixed"])]
    where[chooser.choice([*where, "unknown"])] = chooser.choice(HOSTILE_VALUES)
    trial = _read_record(record).config
    AugmentationSettings.from_config(trial)
    build_model(trial, chooser.choice([1, 2, 10]), weights="none")


def _feed_record(chooser: random.Random, _: Path) -> None:
    record = _sound_record()
    record[chooser.choice([*record, "epochs", "notes", "digests", "unknown"])] = chooser.choice(HOSTILE_VALUES)
    _read_record(record)


def _sound_record() -> dict[str, Any]:
    fixed = {
        "image_size": 32, "weights": "none", "batch_size": 16, "max_epochs": 2, "freeze": False, "precision": "fp32",
        "channels_last": True, "flip_probability": 0.5, "rotation_degrees": 5.0, "brightness_fraction": 0.2,
        "lr_peak_fraction": 0.3, "weighted_group": "", "momentum": 0.9,
    }  # fmt: skip
    hyperparameters = {"backbone": "resnet18", "max_lr": 0.1, "cutmix_probability": 0.5, "interpolation": "bicubic"}
    return {
        "trial_id": "00000",
        "stage": "search",
        "config": {"arm": "resnet18", "seed": 1, "hyperparameters": hyperparameters, "fixed": fixed},
        "fingerprint": "x",
        "state": "RUNNING",
        "suggested_order": 0,
    }


def _read_record(record: dict[str, Any]) -> TrialRecord:
    """Read a record as one who can write the study's files could make it: its checksum fits."""
    text = json.dumps(record)
    return TrialRecord.from_json(
        json.dumps({**record, "checksum": compute_checksum(json.loads(text))}), where="record.json"
    )


def _feed_image(chooser: random.Random, place: Path) -> None:
    """Write two classes of sound images and one that is not, and load them."""
    for label in ("a", "b"):
        (place / label).mkdir()
        for number in range(2):
            Image.new("RGB", (16, 16), (number * 80, 10, 20)).save(place / label / f"{number}.png")
    sound = (place / "a" / "0.png").read_bytes()
    bad = place / "a" / chooser.choice(["9.png", "9.jpg", "ü.png", "9.PNG"])
    kind = chooser.choice(["cut", "zero", "flip", "mode", "huge", "other", "link", "text", "bomb"])
    if kind == "cut":
        bad.write_bytes(sound[: chooser.randrange(len(sound))])
    elif kind == "zero":
        bad.write_bytes(b"")
    elif kind == "flip":
        data = bytearray(sound)
        data[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
        bad.write_bytes(data)
    elif kind == "mode":
        Image.new(chooser.choice(["1", "L", "LA", "P", "RGBA", "I;16", "CMYK", "F"]), (16, 16)).save(bad, format="TIFF")
    elif kind == "huge":
        Image.new("L", (chooser.choice([1, 9000]), 9000)).save(bad, format="PNG")
    elif kind == "other":
        bad.write_bytes(pickle.dumps({"an": "object"}))
    elif kind == "link":
        bad.symlink_to(place / "nowhere")
    elif kind == "text":
        bad.write_bytes(os.urandom(chooser.randrange(1, 4000)))
    else:
        bad.write_bytes(_png_that_claims_to_be_huge())
    load_image_set("folder", str(place), native_size=16 if chooser.random() < 0.5 else None)


def _png_that_claims_to_be_huge() -> bytes:
    """Return a PNG whose header says 60,000 x 60,000 pixels."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, format="PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_leave_mark, (self.marker,))


def _leave_mark(marker: str) -> str:
    Path(marker).write_text("executed")
    return marker


def place_payloads(folder: Path, root: str = "") -> Outcome:
    """R13: a pickle that leaves a mark, in six wrappings, in the place of every file that the product reads back.

    `root` is a whole study; without it one is made.
    """
    root = root or make_whole_study(folder)
    marker = folder / "executed"
    store = Store(root)
    placed, executed, odd = 0, [], []
    for name in state_files(store):
        whole = Path(root, name).read_bytes()
        for wrapping, data in _wrappings(marker).items():
            Path(root, name).write_bytes(data)
            placed += 1
            try:
                _read_everything(store, name)
            except UserInputError:
                pass
            except Exception as error:
                odd.append(f"{name} as {wrapping}: {type(error).__name__}: {error}")
            if marker.exists():
                executed.append(f"{name} as {wrapping} was executed")
                marker.unlink()
        Path(root, name).write_bytes(whole)
    for what, load in _outside_loads(folder).items():
        for wrapping, data in _wrappings(marker).items():
            placed += 1
            try:
                load(data)
            except UserInputError:
                pass
            except Exception as error:
                odd.append(f"{what} as {wrapping}: {type(error).__name__}: {error}")
            if marker.exists():
                executed.append(f"{what} as {wrapping} was executed")
                marker.unlink()
    return Outcome(
        fault="R13 pickle payloads",
        injected=placed,
        survived=placed - len(executed) - len(odd),
        lost=(*executed, *odd),
        seen=f"{len(state_files(store))} files of a study, weights given by the user (.pt, folder), images, parquet, warm start",
    )


def _wrappings(marker: Path) -> dict[str, bytes]:
    """Return the payload as a pickle, as torch.save writes it (zip and legacy), in an npz, and behind a safetensors head."""
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


def _read_everything(store: Store, placed: str) -> None:
    """Read a study as the product does; of the large files, weights, only the one that was `placed`."""
    study = load_study(store)
    status_json(study)
    earlier_trials(store)
    class_names = read_passport(store)["data"]["class_names"]
    for record in study.book:
        files = TrialFiles(store.child(paths.TrialPaths(stage=record.stage, trial_id=record.trial_id).folder))
        files.read_checkpoint()
        if record.digests and placed.startswith(paths.TrialPaths(stage=record.stage, trial_id=record.trial_id).folder):
            # Digests that fit, as one who can write the study's files could make them.
            names = files.store.list_files("best")
            digests = {f"best/{name}": _sha256(files.store.read_bytes(f"best/{name}")) for name in names}
            for split in record.predictions:
                files.read_predictions(split, digests)
            files.load_weights(build_model(record.config, len(class_names), weights="none"), digests)
    load_evidence(study, require_plan(study))
    load_findings(study)


def _outside_loads(folder: Path) -> dict[str, Callable[[bytes], Any]]:
    """Return loads of files that come from the user, by name; each takes the file's content."""
    place = folder / "given"

    def in_file(name: str, load: Callable[[Path], Any]) -> Callable[[bytes], Any]:
        def write_and_load(data: bytes) -> Any:
            shutil.rmtree(place, ignore_errors=True)
            (place / Path(name).parent).mkdir(parents=True)
            (place / name).write_bytes(data)
            return load(place / name)

        return write_and_load

    def backbone(path: Path) -> Any:
        config = TrialConfig(arm="a", seed=0, hyperparameters={"backbone": "resnet18"}, fixed={"image_size": 32})
        return load_backbone_weights(build_model(config, 2, weights="none"), "resnet18", str(path.parent))

    return {
        "weights.pt": in_file("resnet18.pt", load_weights_file),
        "weights.safetensors": in_file("resnet18.safetensors", load_weights_file),
        "folder of weights": in_file("resnet18.pt", backbone),
        "image": in_file("a/0.png", lambda path: load_image_set("folder", str(path.parents[1]))),
        "parquet": in_file("train-0.parquet", lambda path: load_image_set("parquet", str(path.parent))),
        "cifar10 batch": in_file(
            "cifar-10-batches-py/data_batch_1", lambda path: load_image_set("cifar10", str(path.parents[1]))
        ),
        "spec": in_file("spec.toml", lambda path: load_spec(str(path))),
        "checkpoint": Checkpoint.from_bytes,
        "record": lambda data: TrialRecord.from_json(data, where="record.json"),
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tree(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if "input" not in path.parts) + sorted(
        map(str, Path().iterdir())
    )
