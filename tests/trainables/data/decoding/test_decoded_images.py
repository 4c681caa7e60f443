"""Decoding: torchvision's pixels, every kind of file, one message for all bad files, and sets that are found again."""

import errno
import io
import os
import pickle
import re
import struct
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2

from search_spaces.errors import UserInputError
from tests.trainables.data.sources.parquet_files import encode, make_pixels
from trainables.data import all_cores, pixel_files
from trainables.data.decoding import decode_set
from trainables.data.decoding import decoded_images as decoding
from trainables.data.decoding.decode_set import DecodeRequest
from trainables.data.decoding.decoded_images import Decoded, decode_files
from trainables.data.decoding.encoded_files import BadImageError, DiskImages
from trainables.data.decoding.image_decoder import FORMATS, ImageHeader, Shape, decode_image, read_headers
from trainables.data.image_array import cut_content
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.pixel_files import find_pixel_file, measure_facts, open_writer


@dataclass(frozen=True)
class File:
    name: str
    path: Path


def write(folder: Path, **contents: bytes) -> list[File]:
    """Write files whose names are the keywords, with "_" for "."."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [File(f"set/{name.replace('_', '.')}", folder / name.replace("_", ".")) for name in contents]
    for file, content in zip(files, contents.values(), strict=True):
        file.path.write_bytes(content)
    return files


def write_many(folder: Path, number: int = 40, size: int = 16) -> list[File]:
    return write(folder, **{f"{i:03d}_png": encode(make_pixels(i, size)) for i in range(number)})


def decode(files: list[File], budget: ImageMemoryBudget | None = None, **changed: Any) -> Decoded:
    options = {"native_size": None, "image_size": None, "aspect": "crop", "on_bad_image": "refuse"} | changed
    budget = budget or ImageMemoryBudget(10**9, files[0].path.parent / "kept")
    return decode_files(DiskImages.of_files(files), DecodeRequest(**options), budget)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth noise with detail, as in a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    detail = np.random.default_rng(seed + 1).integers(-20, 20, (height, width, 3))
    return Image.fromarray((smooth + detail).clip(0, 255).astype(np.uint8))


def save(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


# --- pixels --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (301, 203), (40, 120), (64, 64)])
def test_crop_is_torchvisions_resize_and_center_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    files = write(tmp_path, a_png=save(photo(*size)), b_png=save(photo(90, 90)))
    decoded = decode(files, image_size=56)
    assert decoded.images.shape == (2, 64, 64, 3)
    recipe = v2.Compose([v2.Resize(64, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(64)])
    expected = np.asarray(recipe(default_loader(files[0].path)))
    np.testing.assert_array_equal(decoded.images[0], expected)
    bilinear = v2.Compose([v2.Resize(64), v2.CenterCrop(64)])(Image.fromarray(np.asarray(photo(*size))))
    squashed = photo(*size).resize((64, 64), Image.Resampling.BICUBIC)
    if size[0] != size[1]:
        # The content keeps its proportions: torchvision's default filter is near, squashing is far.
        near, far = (np.abs(decoded.images[0] - np.asarray(other, float)).mean() for other in (bilinear, squashed))
        assert near < far / 3
    assert decoded.origin.sizes.tolist() == [list(size), [90, 90]]


def test_squash_is_pillows_bicubic_as_ever(tmp_path: Path) -> None:
    gray = photo(30, 50).convert("L")
    files = write(tmp_path, a_png=save(photo(300, 100)), b_png=save(gray), c_png=save(photo(32, 32)))
    images = decode(files, native_size=32, aspect="squash").images
    bicubic = Image.Resampling.BICUBIC
    np.testing.assert_array_equal(images[0], np.asarray(photo(300, 100).resize((32, 32), bicubic)))
    np.testing.assert_array_equal(images[1], np.asarray(gray.resize((32, 32), bicubic))[..., None].repeat(3, 2))
    np.testing.assert_array_equal(images[2], np.asarray(photo(32, 32)))


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (301, 203), (40, 120), (20, 31), (64, 64)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pad_is_what_plain_torchvision_does(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    files = write(tmp_path, a_png=save(photo(*size).convert(mode)), b_png=save(photo(90, 90)))
    decoded = decode(files, image_size=56, aspect="pad")
    assert decoded.images.shape == (2, 64, 64, 3)
    width, height = (round(64 * side / max(size)) for side in size)
    left, top = (64 - width) // 2, (64 - height) // 2
    resized = v2.functional.resize(default_loader(files[0].path), [height, width], v2.InterpolationMode.BICUBIC)
    around = [left, top, 64 - width - left, 64 - height - top]
    np.testing.assert_array_equal(
        decoded.images[0], np.asarray(v2.functional.pad(resized, around, fill=[124, 116, 104]))
    )
    np.testing.assert_array_equal(cut_content(decoded.images[0]), np.asarray(resized))
    assert decoded.origin.sizes.tolist() == [list(size), [90, 90]]


def test_a_blank_photograph_is_blank_in_its_padding(tmp_path: Path) -> None:
    files = write(tmp_path, a_png=save(Image.new("RGB", (30, 10), (9, 9, 9))), b_png=save(photo(30, 10)))
    decoded = decode(files, native_size=16, aspect="pad")
    facts = measure_facts(decoded.images)
    assert (facts.lowest[0], facts.highest[0]) == (9, 9)
    assert facts.lowest[1] < facts.highest[1]


@pytest.mark.parametrize("streams", [False, True])
def test_images_are_decoded_again_in_other_ways(tmp_path: Path, streams: bool) -> None:
    contents = {f"{i}_png": save(photo(30 + i, 20, seed=i)) for i in range(4)}
    files = write(tmp_path, z_png=b"damaged", **contents)
    budget = ImageMemoryBudget(10**9, tmp_path / "kept", streams=streams)
    decoded = decode(files, budget, native_size=16, on_bad_image="skip")
    assert decoded.origin.decode_as is not None
    again = decoded.origin.decode_as(np.array([1, 3]), ("pad", "squash", "crop"))
    assert list(again) == ["pad", "squash", "crop"]
    for aspect, images in again.items():
        other = decode(files[1:], native_size=16, aspect=aspect).images
        np.testing.assert_array_equal(images, other[np.array([1, 3])])


def test_images_of_one_size_are_stored_as_they_are(tmp_path: Path) -> None:
    square = write(tmp_path, a_png=save(photo(20, 20)), b_png=save(photo(20, 20, seed=5)))
    np.testing.assert_array_equal(decode(square, image_size=224).images[1], np.asarray(photo(20, 20, seed=5)))
    wide = write(tmp_path / "wide", a_png=save(photo(30, 20)), b_png=save(photo(30, 20, seed=5)))
    assert decode(wide, aspect="squash").images.shape == (2, 20, 30, 3)
    assert decode(wide, image_size=28).images.shape == (2, 32, 32, 3)
    with pytest.raises(UserInputError, match=r"30x20 px.*native_size"):
        decode(wide)
    with pytest.raises(UserInputError, match=r"same size.*20x20 and 30x20 px.*native_size"):
        decode([*square, *wide])


def kinds_of_files() -> dict[str, bytes]:
    color = photo(24, 16)
    palette = color.quantize(64)
    deep = np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 170
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "rgb_png": save(color),
        "gray_png": save(color.convert("L")),
        "palette_png": save(palette),
        "clear_png": save(palette, transparency=bytes(range(64))),
        "cmyk_jpg": save(color.convert("CMYK"), "JPEG", quality=95),
        "rgba_png": save(color.convert("RGBA")),
        "la_png": save(color.convert("LA")),
        "deep_png": save(Image.fromarray(deep)),
        "bits_png": save(color.convert("1")),
        "turned_jpg": save(color, "JPEG", quality=95, subsampling=0, exif=exif),
        "turned_png": save(color, exif=exif),
        "turned_tif": save(color, "TIFF", exif=exif),
    }


def test_every_kind_of_file_in_one_set(tmp_path: Path) -> None:
    files = write(tmp_path, **kinds_of_files())
    decoded = decode(files, native_size=16)
    images = {file.path.name: image for file, image in zip(files, decoded.images, strict=True)}
    recipe = v2.Compose([v2.Resize(16, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(16)])
    for file in files:
        if not file.path.name.startswith(("turned", "deep")):
            with warnings.catch_warnings(action="ignore"):
                expected = np.asarray(recipe(default_loader(str(file.path))))
            np.testing.assert_array_equal(images[file.path.name], expected, err_msg=file.name)
    for name in ("turned.jpg", "turned.png", "turned.tif"):
        upright = recipe(photo(24, 16).transpose(Image.Transpose.ROTATE_270))
        assert np.abs(images[name] - np.asarray(upright, float)).mean() < 8, name
    deep = np.arange(24 * 16).reshape(16, 24) * 170 / 257
    np.testing.assert_allclose(images["deep.png"][..., 0], deep[:, 4:20], atol=1)
    assert decoded.origin.kinds == {
        "RGB": 4, "EXIF-rotated": 3, "grayscale": 1, "palette": 1, "palette with transparency": 1, "CMYK": 1, "RGBA": 1,
        "grayscale with transparency": 1, "16-bit": 1, "black and white": 1,
    }  # fmt: skip
    assert decoded.origin.sizes[-3:].tolist() == [[16, 24]] * 3


def test_squash_ignores_exif_as_ever_and_counts_it(tmp_path: Path) -> None:
    files = write(tmp_path, turned_jpg=kinds_of_files()["turned_jpg"])
    decoded = decode(files, native_size=16, aspect="squash")
    expected = Image.open(files[0].path).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decoded.images[0], np.asarray(expected))
    assert decoded.origin.kinds == {"RGB": 1, "EXIF rotation ignored": 1}
    assert decoded.origin.sizes.tolist() == [[24, 16]]


def test_headers_agree_with_decoding(tmp_path: Path) -> None:
    files = write(tmp_path, **kinds_of_files(), empty_png=b"", text_png=b"text")
    headers = read_headers(files)
    decoded = decode(files, native_size=16, on_bad_image="skip")
    found = [header for header in headers[:-2] if isinstance(header, ImageHeader)]
    assert [[header.width, header.height] for header in found] == decoded.origin.sizes.tolist()
    assert headers[-2:] == [file.reason for file in decoded.origin.skipped]
    assert Counter(kind for header in found for kind in header.kinds) == decoded.origin.kinds


@pytest.mark.parametrize("num_workers", [1, 3])
def test_results_do_not_depend_on_the_number_of_workers(
    tmp_path: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_many(tmp_path)
    files[7].path.write_bytes(b"")
    monkeypatch.setattr("joblib.cpu_count", lambda: num_workers)
    monkeypatch.setattr(all_cores, "NUM_ITEMS_PER_TASK", 3)
    decoded = decode(files, on_bad_image="skip")
    assert decoded.kept.tolist() == [i for i in range(40) if i != 7]
    for image, i in zip(decoded.images, decoded.kept, strict=True):
        np.testing.assert_array_equal(image, make_pixels(int(i), 16))


# --- bad files -----------------------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header declares width x height pixels, without them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


BAD = {
    "empty_png": (b"", "empty (0 bytes)"),
    "garbage_png": (b"no image at all", "not one of PNG"),
    "cut_png": (encode(make_pixels(1, 64))[:2000], "cannot be decoded"),
    "cut_jpg": (encode(make_pixels(1, 64), "JPEG")[:900], "truncated"),
    "frames_tif": (save(photo(9, 9), "TIFF", save_all=True, append_images=[photo(9, 9)]), "several frames"),
    "large_png": (png_header(8_100, 8_100), "more than 64 megapixels"),
    "huge_png": (png_header(60_000, 60_000), "more than 64 megapixels"),
    "gif_png": (save(photo(9, 9).quantize(8), "GIF"), "not one of PNG"),
    "float_tif": (save(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF"), "floating-point"),
    "pickled_png": (pickle.dumps([1, 2, 3]), "cannot be decoded"),
    "line_png": (save(Image.new("RGB", (4_000, 1))), "too long for their width"),
}


def test_one_message_names_all_bad_files_with_their_reasons(tmp_path: Path) -> None:
    files = write(tmp_path, good_png=save(photo(9, 9)), **{name: data for name, (data, _) in BAD.items()})
    files += [File("set/missing.png", tmp_path / "missing.png")]
    started = time.perf_counter()
    with pytest.raises(UserInputError) as caught:
        decode(files, native_size=256)
    assert time.perf_counter() - started < 2, "no bomb was opened"
    message = str(caught.value)
    assert message.startswith("image files: 12 of 13 images cannot be used: ")
    assert 'data.on_bad_image = "skip"' in message
    assert "set/missing.png (cannot be read (No such file or directory)" in message
    for name, (_, reason) in BAD.items():
        (found,) = re.findall(rf"set/{name.replace('_', '.')} \((.*?)\)[,;]", message)
        assert reason in found
    decoded = decode(files, native_size=256, on_bad_image="skip")
    assert decoded.kept.tolist() == [0]
    assert [file.name for file in decoded.origin.skipped] == [file.name for file in files[1:]]


def test_more_than_twenty_names_are_in_a_file(tmp_path: Path) -> None:
    files = write(tmp_path, **{f"{i:02d}_png": b"" for i in range(30)})
    with pytest.raises(UserInputError, match="and 10 more") as caught:
        decode(files, on_bad_image="skip")
    full = re.search(r"the full list is in (\S+)", str(caught.value))
    assert full is not None
    assert "set/29.png (empty (0 bytes))" in Path(full[1]).read_text()
    Path(full[1]).unlink()


def test_damaged_exif_is_no_rotation(tmp_path: Path) -> None:
    data = save(photo(9, 9), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    for aspect in ("crop", "pad", "squash"):
        assert decode(write(tmp_path, a_jpg=data), aspect=aspect).origin.kinds == {"RGB": 1}


VALID = {name: encode(make_pixels(5), name) for name in FORMATS}


@given(data=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BadImageError):
        decode_image(data, Shape(None, "crop"))


@given(
    image_format=st.sampled_from(FORMATS),
    position=st.floats(0, 1),
    junk=st.binary(max_size=12),
    keep_rest=st.booleans(),
    shape=st.sampled_from([Shape(None, "crop"), Shape(8, "crop"), Shape(8, "pad"), Shape(8, "squash")]),
)
@settings(max_examples=400, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_damaged_images_decode_or_are_refused(
    image_format: str, position: float, junk: bytes, keep_rest: bool, shape: Shape
) -> None:
    valid = VALID[image_format]
    at = int(position * len(valid))
    damaged = valid[:at] + junk + (valid[at + len(junk) :] if keep_rest else b"")
    pixels, reason = None, ""
    try:
        pixels, _ = decode_image(damaged, shape)
    except BadImageError as error:
        reason = str(error)
    if pixels is None:
        assert reason
        assert "\n" not in reason
    else:
        assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)


# --- sets that are found again -------------------------------------------------------------------------------------------


@pytest.fixture
def budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageMemoryBudget:
    """Memory holds the images, and sets of any size are kept."""
    monkeypatch.setattr(decoding, "MIN_KEPT_SECONDS", 0)
    return ImageMemoryBudget(10**9, tmp_path / "images")


@pytest.fixture
def count_decoded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that returns the number of files decoded since it was called last."""
    counted: list[int] = []

    def counting(data: bytes, shape: Shape) -> Any:
        counted.append(1)
        return decode_image(data, shape)

    def take() -> int:
        number = len(counted)
        counted.clear()
        return number

    monkeypatch.setattr(decode_set, "decode_image", counting)
    return take


def test_a_set_is_decoded_once(tmp_path: Path, budget: ImageMemoryBudget, count_decoded: Callable[[], int]) -> None:
    files = write_many(tmp_path / "set")
    files[3].path.write_bytes(b"damaged")
    first = decode(files, budget, native_size=12, on_bad_image="skip")
    assert count_decoded() == 40
    again = decode(files, budget, native_size=12, on_bad_image="skip")
    assert count_decoded() == 0
    plain = decode(files, native_size=12, on_bad_image="skip")
    for found in (first, again):
        assert type(found.images) is np.ndarray, "images that memory could hold are sent to other nodes as they are"
        np.testing.assert_array_equal(found.images, plain.images)
        np.testing.assert_array_equal(found.kept, plain.kept)
        np.testing.assert_array_equal(found.origin.sizes, plain.origin.sizes)
        assert (found.origin.names, found.origin.kinds, found.origin.skipped) == (
            plain.origin.names, plain.origin.kinds, plain.origin.skipped,
        )  # fmt: skip
    count_decoded()
    with pytest.raises(UserInputError, match=r"003\.png"):
        decode(files, budget, native_size=12)
    assert count_decoded() == 0


def test_moved_files_are_found_by_their_content_and_changed_ones_are_not(
    tmp_path: Path, budget: ImageMemoryBudget, count_decoded: Callable[[], int]
) -> None:
    decode(write_many(tmp_path / "set"), budget)
    moved = write_many(tmp_path / "copy")
    count_decoded()
    decode(moved, budget)
    assert count_decoded() == 0
    # The same size and time of change, but other pixels.
    before = moved[5].path.stat()
    flipped = bytearray(moved[5].path.read_bytes())
    moved[5].path.write_bytes(encode(make_pixels(1005, 16)))
    assert moved[5].path.stat().st_size == len(flipped)
    os.utime(moved[5].path, ns=(before.st_atime_ns, before.st_mtime_ns))
    np.testing.assert_array_equal(decode(moved, budget).images[5], make_pixels(1005, 16))
    assert count_decoded() > 0


@pytest.mark.parametrize("change", [{"native_size": 8}, {"aspect": "squash"}, {"aspect": "pad"}, {"image_size": 14}])
def test_other_settings_are_another_set(
    tmp_path: Path, budget: ImageMemoryBudget, count_decoded: Callable[[], int], change: dict[str, Any]
) -> None:
    files = write_many(tmp_path / "set", 3)
    decode(files, budget)
    count_decoded()
    images = decode(files, budget, **change).images
    assert count_decoded() >= 3
    np.testing.assert_array_equal(images, decode(files, **change).images)


def flip_a_bit(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("memory_bytes", [0, 10**9])
@pytest.mark.parametrize("damage", [flip_a_bit, lambda path: os.truncate(path, 100), Path.unlink])
@pytest.mark.parametrize("kind", ["*.rgb", "*-of-*", "*-at-*", "*.facts", "*.state"])
def test_damaged_files_are_not_trusted(
    tmp_path: Path,
    budget: ImageMemoryBudget,
    count_decoded: Callable[[], int],
    memory_bytes: int,
    damage: Callable[[Path], None],
    kind: str,
) -> None:
    budget = ImageMemoryBudget(memory_bytes, budget.folder)
    files = write_many(tmp_path / "set", 10)
    decode(files, budget)
    count_decoded()
    (path,) = budget.folder.glob(kind)
    damage(path)
    images = decode(files, budget).images
    assert (count_decoded() > 0) == (kind in {"*.rgb", "*-of-*"})
    np.testing.assert_array_equal(images, np.stack([make_pixels(i, 16) for i in range(10)]))
    assert measure_facts(images).to_bytes() == measure_facts(np.array(images)).to_bytes()
    decode(files, budget)
    assert count_decoded() == 0


def test_the_file_is_written_while_it_is_filled(
    tmp_path: Path, budget: ImageMemoryBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, []
    monkeypatch.setattr(
        "os.fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink()) or real(number)
    )
    monkeypatch.setattr(decode_set, "NUM_IMAGES_PER_SYNC", 10)
    decode(write_many(tmp_path / "set"), budget)
    assert len(synced) > 1
    assert {path.suffix for path in synced} == {".partial"}


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_images_reach_the_file_even_if_the_system_writes_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    real, written = os.pwrite, []

    def write(file: int, data: memoryview, offset: int) -> int:
        written.append(real(file, bytes(data)[: int(share * data.nbytes)], offset))
        return written[-1]

    monkeypatch.setattr(os, "pwrite", write)
    images = np.memmap(tmp_path / "pixels", np.uint8, "w+", shape=(3, 4, 5, 3))
    expected = np.random.default_rng(0).integers(1, 256, images.shape, dtype=np.uint8)
    with open_writer(images) as writer:
        for position in (2, 0, 1):
            writer.put(position, expected[position])
    np.testing.assert_array_equal(images, expected)
    assert written == [int(share * 60)] * 3


def test_facts_are_those_of_the_pixels(tmp_path: Path, budget: ImageMemoryBudget) -> None:
    images = decode(write_many(tmp_path / "set"), budget).images
    assert find_pixel_file(images) is not None
    assert find_pixel_file(images[:5]) is None
    assert find_pixel_file(images[:, ::-1]) is None
    assert find_pixel_file(np.array(images)) is None
    facts = measure_facts(images)
    assert facts.to_bytes() == measure_facts(np.array(images)).to_bytes()
    assert facts.lowest.tolist() == [image.min() for image in images]
    assert len(set(facts.digests)) == 40


def test_of_two_that_need_a_set_at_once_one_decodes_it(
    tmp_path: Path, budget: ImageMemoryBudget, count_decoded: Callable[[], int]
) -> None:
    files = write_many(tmp_path / "set")
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: decode(files, budget, native_size=64), range(2))
    assert count_decoded() == 40
    np.testing.assert_array_equal(one.images, other.images)


def test_a_process_that_waits_says_so(
    tmp_path: Path, budget: ImageMemoryBudget, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "SECONDS_OF_SILENT_WAITING", 0.01)
    files = write_many(tmp_path / "set", 3)
    decode(files, budget)
    (lock,) = budget.folder.glob("*.lock")
    with ThreadPoolExecutor(1) as pool, FileLock(lock):
        waiting = pool.submit(decode, files, budget)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
    assert len(waiting.result().images) == 3
    assert "waiting for another process" in capsys.readouterr().err


def test_what_was_not_used_for_the_longest_time_is_deleted(
    tmp_path: Path, budget: ImageMemoryBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    for number in range(3):
        images = decode(write_many(tmp_path / f"set-{number}", 3 + number), budget).images
        paths.append(find_pixel_file(images))
    long_ago = time.time() - 10 * pixel_files.MIN_AGE_SECONDS
    for age, number in enumerate((1, 0)):
        path = paths[number]
        assert path is not None
        os.utime(path.with_suffix(".state"), (long_ago - age, long_ago - age))
    decode(write_many(tmp_path / "set-1", 4), budget)  # Used again.
    monkeypatch.setattr(pixel_files, "MAX_DISK_SHARE", 0)
    decode(write_many(tmp_path / "new", 9), budget)
    assert [path is not None and path.exists() for path in paths] == [False, True, True]
    assert len(decode(write_many(tmp_path / "set-0", 3), budget).images) == 3


def test_a_folder_that_cannot_be_written_is_named_and_decoding_goes_on(
    tmp_path: Path, budget: ImageMemoryBudget, capsys: pytest.CaptureFixture[str]
) -> None:
    budget.folder.write_text("a file")
    files = write_many(tmp_path / "set", 3)
    assert len(decode(files, budget).images) == 3
    assert "resources.image_folder" in capsys.readouterr().err


def test_a_full_disk_keeps_nothing_but_decodes(
    tmp_path: Path, budget: ImageMemoryBudget, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    files = write_many(tmp_path / "set", 3)
    np.testing.assert_array_equal(decode(files, budget).images, decode(files).images)
    assert "No space left on device" in capsys.readouterr().err
    assert not list(budget.folder.glob("*.rgb"))


@pytest.mark.parametrize("aspect", ["crop", "squash"])
def test_the_size_of_the_first_image_is_not_asked_of_the_disk_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aspect: str
) -> None:
    files = write(tmp_path / "set", a_png=save(photo(256, 256)), **{f"b{i}_png": save(photo(40, 30)) for i in range(5)})
    asked: list[int] = []

    def take(_file: int, _start: int, size: int) -> None:
        asked.append(size)
        if size > 6 * 64 * 64 * 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", take)
    budget = ImageMemoryBudget(20_000, tmp_path / "images")
    assert decode(files, budget, image_size=56, aspect=aspect).images.shape == (6, 64, 64, 3)
    assert asked == [6 * 256 * 256 * 3, 6 * 64 * 64 * 3]
    same = write(
        tmp_path / "same", **{f"{i}_png": save(photo(256, 256)) for i in range(6)}, z_png=save(photo(9, 9))[:60]
    )
    with pytest.raises(UserInputError, match=r"7 images of 256x256 px take"):
        decode(same, budget, image_size=56, aspect=aspect, on_bad_image="skip")


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_an_image_that_could_not_be_read_is_read_again(
    tmp_path: Path, budget: ImageMemoryBudget, monkeypatch: pytest.MonkeyPatch, streams: bool, error: int
) -> None:
    files = write_many(tmp_path / "set", 8)
    budget = ImageMemoryBudget(budget.memory_bytes, budget.folder, streams=streams)
    monkeypatch.setattr(decode_set, "RETRY_WAITS", (0.0, 0.0))
    whole, failures = Path.read_bytes, iter(range(0))

    def read(path: Path) -> bytes:
        if path == files[2].path and next(failures, None) is not None:
            raise OSError(error, os.strerror(error))
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    failures = iter(range(100))
    for _ in range(2):
        found = decode(files, budget, native_size=12, on_bad_image="skip")
        assert len(found.images) == 7
        assert found.origin.skipped[0].reason.startswith(f"cannot be read ({os.strerror(error)})")
    failures = iter(range(0))
    assert len(decode(files, budget, native_size=12, on_bad_image="skip").images) == 8
    if error == errno.EIO:
        failures = iter(range(1))
        assert len(decode(files, budget, native_size=10).images) == 8, "a second try helped"


def test_small_sets_are_not_kept(tmp_path: Path) -> None:
    decode(write_many(tmp_path / "set"), ImageMemoryBudget(10**9, tmp_path / "images"))
    assert not (tmp_path / "images").exists()
