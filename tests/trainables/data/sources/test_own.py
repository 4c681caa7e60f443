"""Custom sources: which arguments they get, and what is said of what they return."""

from typing import Any

import numpy as np
import pytest

from search_spaces.errors import UserInputError
from tests.trainables.data.sources.layout_files import refuse_source
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.sources import decoding_names, load_image_set
from trainables.data.splits import make_splits

pytestmark = pytest.mark.usefixtures("trusted")

MODULE = "tests.trainables.data.sources.own_sources"


def refuse(function: str, *words: str, **options: Any) -> str:
    message = refuse_source(f"{MODULE}:{function}", options.pop("path", None), *words, **options)
    assert "\n" not in message
    return message


def test_the_image_set_has_the_types_of_its_attributes_and_the_name_of_the_spec() -> None:
    found = load_image_set(f"{MODULE}:load", "somewhere", seed=3, year=2024)
    assert (found.source, found.class_names) == (f"{MODULE}:load", ("cat", "dog"))
    assert found.labels.dtype == np.int64
    assert found.group_names == ("'somewhere'", "2024", "()")
    other = load_image_set(f"{MODULE}:load", seed=4, year=2024)
    assert found.images.tobytes() != other.images.tobytes()
    assert load_image_set(f"{MODULE}:load_transposed").images.flags.c_contiguous


def test_images_that_numpy_maps_are_sent_as_pixels() -> None:
    found = load_image_set(f"{MODULE}:load_mapped").images
    assert not isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, load_image_set(f"{MODULE}:load_small").images)


def test_settings_of_the_study_are_passed_where_they_are_named(tmp_path: Any) -> None:
    budget = ImageMemoryBudget(memory_bytes=0, folder=tmp_path)
    assert len(load_image_set(f"{MODULE}:load_small", seed=3, memory_budget=budget)) == 12
    assert decoding_names(f"{MODULE}:load_small") == ()
    assert decoding_names(f"{MODULE}:load_at_size") == ("image_size", "on_bad_image")
    found = load_image_set(f"{MODULE}:load_at_size", seed=0, image_size=32, on_bad_image="skip")
    assert found.group_names == ("32", "skip")
    assert load_image_set(f"{MODULE}:load_anything", seed=0, a=1, b=2).group_names == ("a", "b")


def test_options_that_are_unknown_or_missing_are_refused_together() -> None:
    words = "has no option 'months_'", "did you mean 'months'", "needs 'year', which data.options lacks"
    refuse("load", *words, seed=0, months_=(1,))
    refuse("load_small", "has no option 'num_images', and takes none", num_images=3)
    refuse("load_small", "reads no files", path="somewhere")


def test_what_is_no_image_set_is_refused() -> None:
    refuse("load_arrays", "must return a trainables.data.images.ImageSet, but returned tuple")
    refuse(
        "load_floats",
        f"the source '{MODULE}:load_floats': images must be (N, H, W, 3) uint8, but are (12, 8, 8, 3) float32",
    )
    refuse("load_out_of_range", "labels must be in [0, 2), but range from 1 to 2")
    words = "class names must be distinct", "12 images need 12 labels, integers", "official_test must be (12,) bool"
    refuse("load_wrong", *words)


def test_errors_of_a_source_are_one_line_with_their_place() -> None:
    refuse("load_with_error", "failed with KeyError: 'images'", "own_sources.py, line ")
    refuse("lod", "cannot be imported", "AttributeError", "'lod'")
    with pytest.raises(UserInputError, match=r"'tests\.nowhere:load' cannot be imported \(ModuleNotFoundError"):
        load_image_set("tests.nowhere:load")
    with pytest.raises(UserInputError, match="must be a function with a signature, but is tuple"):
        load_image_set(f"{MODULE}:NAMES")
    with pytest.raises(
        UserInputError, match=r"no source 'mylab' \(valid: .*; one of your own is package.module:function"
    ):
        load_image_set("mylab")
    with pytest.raises(UserInputError, match="must be a function with a signature, but is type"):
        load_image_set(f"{MODULE}:BUILT_IN")


def test_the_fingerprint_is_that_of_the_pixels_and_labels() -> None:
    fractions = {"search_fraction": 0.25, "confirm_fraction": 0.25, "test_fraction": 0.25}
    found = [load_image_set(f"{MODULE}:{name}") for name in ("load_small", "load_mapped")]
    one, other = (make_splits(image_set, seed=0, **fractions).fingerprint for image_set in found)
    assert one == other
