"""Spec files as people have them: saved on Windows, or a folder of images in place of a spec."""

from pathlib import Path

import pytest

from search_spaces.errors import UserInputError
from study.spec.reading import load_spec

SPEC = 'name = "s"\n[data]\nsource = "planted"\n'


def test_a_byte_order_mark_is_no_part_of_a_spec(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(SPEC, encoding="utf-8-sig")
    assert load_spec(str(tmp_path / "s.toml"))[0].name == "s"


def test_a_folder_of_images_is_no_spec_and_init_makes_one(tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    with pytest.raises(
        UserInputError, match=r"is a folder, not a spec; `study init '.*my photos'` writes a spec for its images"
    ):
        load_spec(str(tmp_path / "my photos"))
