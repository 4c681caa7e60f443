"""Tar files for tests."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def encode(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((12, 12, 3), value, dtype=np.uint8)).save(buffer, format="png")
    return buffer.getvalue()


def write_shard(path: Path, samples: list[dict[str, Any]], first: int = 0) -> Path:
    """Write samples of {extension: content}; the key of the n-th is n."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, sample in enumerate(samples, start=first):
            for extension, content in sample.items():
                data = content if isinstance(content, bytes) else str(content).encode()
                info = tarfile.TarInfo(f"./part/{number:06d}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def make_samples(number: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"png": encode(first + i), "cls": (first + i) % 2} for i in range(number)]
