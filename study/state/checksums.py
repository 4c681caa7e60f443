"""Seals: a checksum inside a file of the study's state, so that a cut or a changed bit is noticed and named."""

import hashlib
import json
from typing import Any

from trainables.damaged_files import DamagedFileError
from trainables.records.store import Store

CHECKSUM = "checksum"
_TOML_SEAL = "# checksum: "


def write_sealed_json(store: Store, name: str, content: dict[str, Any]) -> None:
    """Create or replace a JSON file with its checksum in it."""
    text = json.dumps({**content, CHECKSUM: _digest(_canonical(content))}, indent=1, sort_keys=True, allow_nan=False)
    store.write_text(name, text + "\n")


def read_sealed_json(store: Store, name: str) -> dict[str, Any]:
    """Return what `write_sealed_json` wrote.

    Raises DamagedFileError, naming the file, if it is missing, is no JSON object, or has changed since it was written.
    """
    content, is_intact = read_changed_json(store, name)
    if not is_intact:
        raise DamagedFileError(f"{store.root}/{name} is damaged: its content does not match its checksum")
    return content


def read_changed_json(store: Store, name: str) -> tuple[dict[str, Any], bool]:
    """Return what a sealed file holds, and whether it is as `write_sealed_json` wrote it.

    Raises DamagedFileError, naming the file, if it is missing or is no JSON object.
    """
    where = f"{store.root}/{name}"
    try:
        content = json.loads(store.read_bytes(name))
        checksum = content.pop(CHECKSUM, "")
    except FileNotFoundError:
        raise DamagedFileError(f"{where} is missing; restore it, or launch a new study") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(f"{where} is damaged: {error}") from None
    return dict(content), checksum == _digest(_canonical(content))


def write_sealed_toml(store: Store, name: str, text: str) -> None:
    """Create or replace a TOML file with its checksum in its last line, a comment."""
    body = text.rstrip("\n") + "\n"
    store.write_text(name, f"{body}{_TOML_SEAL}{_digest(body)}\n")


def read_sealed_toml(store: Store, name: str) -> str:
    """Return the text that `write_sealed_toml` was given, with one line break at its end.

    Raises DamagedFileError, naming the file, if it is missing or has changed since it was written.
    """
    where = f"{store.root}/{name}"
    try:
        body, separator, checksum = store.read_text(name).rpartition(_TOML_SEAL)
    except FileNotFoundError:
        raise DamagedFileError(f"{where} is missing; restore it, or launch a new study") from None
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{where} is damaged: {error}") from None
    if not separator or checksum != f"{_digest(body)}\n":
        raise DamagedFileError(
            f"{where} is damaged, or was changed after the launch: its content does not match the checksum in its last line"
        )
    return body


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
