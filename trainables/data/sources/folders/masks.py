"""Masks of photographs: PNG files of one color or two with the stem of an image, or with the stem and `_mask`.

They lie beside the images, or in folders such as masks/ of the same structure.
At most `MAX_LOOKED_AT` of the PNG files that may be masks are decoded to decide about all of them.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search_spaces.errors import UserInputError
from trainables.data.all_cores import map_on_all_cores
from trainables.data.decoding.decode_set import DecodeRequest
from trainables.data.decoding.decoded_images import decode_files
from trainables.data.decoding.encoded_files import DiskImages
from trainables.data.decoding.image_decoder import check_frame, read_headers
from trainables.data.image_array import PAD_COLOR, cut_content
from trainables.data.image_audit import find_missing_objects
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet
from trainables.data.problems import Problem, make_printable
from trainables.data.sources.folders.image_files import ImageFile

MAX_LOOKED_AT = 64
# Numbers of colors of a PNG file that can be decoded; three stands for more.
BLANK, TWO, MANY = 1, 2, 3
# Without photographs, images of two colors are masks if so many are blank; else they may be drawings.
MIN_BLANK_FRACTION = 0.05
_MASK = re.compile(r"[-_ .]masks?(?=[.]\w+$)", re.IGNORECASE)
# Folders that hold masks, and those that may hold their images; they are no part of what an image has in common with its mask.
MASK_FOLDERS = frozenset({"mask", "masks", "annotation", "annotations", "ground_truth"})
IMAGE_FOLDERS = frozenset({"image", "images", "img", "imgs"})


def pair_masks(files: Sequence[ImageFile]) -> tuple[list[ImageFile], list[Problem]]:
    """Return the images without the masks among them, each with its own, and what is wrong with masks and equal stems.

    Args:
        files: all image files of a folder of class folders.
    """
    stems: dict[str, list[ImageFile]] = {}
    for file in files:
        stems.setdefault(_find_stem(file.name), []).append(file)
    pairs = [pair for group in stems.values() if (pair := _order_pair(group)) is not None]
    colors = _count_colors([mask for _, mask in pairs])
    if not {BLANK, TWO} & set(colors) or 2 * colors.count(MANY) > len(colors):
        pairs = []  # Two photographs each.
    mask_of = {image.name: mask.path for image, mask in pairs}
    masks = {mask.name for _, mask in pairs}
    several = [group for group in stems.values() if len(group) > 2]
    single = [group[0] for group in stems.values() if pairs and len(group) == 1 and _is_png(group[0])]
    if any(_is_png(image) for image, _ in pairs):
        single = [file for file in single if _is_named(file)]
    colors = _count_colors(single, len(single))
    lone = [file.name for file, number in zip(single, colors, strict=True) if number in {BLANK, TWO}]
    without = [file.name for file in files] if not pairs and _are_masks(files) else []
    found = (
        ("masks without an image", lone, "add their images, or remove them"),
        ("masks of one color or two without images", without, "put the photographs beside them, with the same stems"),
        ("images of one stem and size in three files or more", _find_copies(several), "keep one file of each"),
    )
    images = [replace(f, mask=mask_of.get(f.name)) if pairs else f for f in files if f.name not in masks]
    return images, [Problem(rule, tuple(names), advice) for rule, names, advice in found if names]


def add_masks(
    image_set: ImageSet, files: Sequence[ImageFile], request: DecodeRequest, memory_budget: ImageMemoryBudget
) -> ImageSet:
    """Return the image set with the masks of its files, if the audits can use them, and with a note that says so.

    The brighter color of a mask is the object. Masks are resized and cropped as the images are.

    Args:
        image_set: N images.
        files: N files that they were decoded from.
        request: how they were decoded.
        memory_budget: memory that the masks may take while they are decoded.
    """
    num_masks = sum(file.mask is not None for file in files)
    if not num_masks or image_set.origin is None:
        return image_set
    masks = _decode_masks(image_set, files, request, memory_budget)
    use = f"do not use them: {masks}" if isinstance(masks, str) else "use them"
    note = f"{num_masks:,} mask{'s' * (num_masks > 1)} left out as images; the audits and heat maps {use}"
    origin = replace(image_set.origin, notes=(note,))
    return replace(image_set, masks=None if isinstance(masks, str) else masks, origin=origin)


def _decode_masks(
    image_set: ImageSet, files: Sequence[ImageFile], request: DecodeRequest, memory_budget: ImageMemoryBudget
) -> NDArray[np.bool_] | str:
    """Return (N, H, W) masks of all images, or why they cannot be used."""
    number, height, width, channels = image_set.images.shape
    found = [replace(f, name=make_printable("/".join(f.mask.parts[-2:])), path=f.mask) for f in files if f.mask]
    if missing := number - len(found):
        return f"{missing:,} of {number:,} images have none"
    if memory_budget.streams or 2 * number * height * width * channels > memory_budget.memory_bytes:
        return "the images are streamed, or take more than resources.image_memory_gb with their masks"
    shape = replace(request, native_size=height if height == width else None, on_bad_image="refuse")
    try:
        decoded = decode_files(DiskImages.of_files(found), shape, memory_budget)
    except UserInputError as error:
        return str(error).partition(";")[0]
    assert image_set.origin is not None
    misfits = np.flatnonzero((decoded.origin.sizes != image_set.origin.sizes).any(axis=1))
    if len(misfits):
        return f"{len(misfits):,} have another size than their images, such as {found[misfits[0]].name}"
    masks = np.stack([_mark_object(decoded.images[i]) for i in range(number)])
    unmarked = [found[i] for i in np.flatnonzero(~masks.any(axis=(1, 2)))] if request.aspect == "crop" else []
    colors = _count_colors(unmarked, len(unmarked))
    if cut := [file.name for file, seen in zip(unmarked, colors, strict=True) if seen in {TWO, MANY}]:
        lost = f"a crop of the center cuts the whole object off {len(cut):,} images, such as {cut[0]}"
        return f'{lost}; data.aspect = "pad" keeps it'
    if len(empty := find_missing_objects(masks, image_set.labels)):
        return f"{len(empty):,} mark nothing, unlike others of their class, such as {found[empty[0]].name}"
    return masks


def _mark_object(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (H, W) where a mask (H, W, 3) has the brighter of its two colors; False in its padding."""
    content = cut_content(image).max(axis=2)
    low, high = int(content.min()), int(content.max())
    is_padding = (image == np.array(PAD_COLOR, dtype=np.uint8)).all(axis=2)
    return np.asarray((image.max(axis=2) > ((low // 2 + high // 2) if low < high else 0)) & ~is_padding)


def _is_png(file: ImageFile) -> bool:
    return file.name.lower().endswith(".png")


def _find_stem(name: str) -> str:
    """Return the path that an image and its mask have in common."""
    *folders, file = _MASK.sub("", name).split("/")
    shared = [folder for folder in folders if folder.lower() not in MASK_FOLDERS | IMAGE_FOLDERS]
    return "/".join([*shared, file.rpartition(".")[0]])


def _is_named(file: ImageFile) -> bool:
    """Return whether a file is a mask by its name, or by that of a folder."""
    folders = file.name.lower().split("/")[:-1]
    return bool(_MASK.search(file.name)) or not MASK_FOLDERS.isdisjoint(folders)


def _order_pair(group: Sequence[ImageFile]) -> tuple[ImageFile, ImageFile] | None:
    """Return the image and the PNG file that may be its mask; None if the files of a stem are no such pair."""
    named = [file for file in group if _is_named(file)]
    found = [file for file in named or group if _is_png(file)]
    if len(group) != 2 or len(found) != 1:
        return None
    return (group[1] if found[0] is group[0] else group[0]), found[0]


def _count_colors(files: Sequence[ImageFile], most: int = 0) -> list[int]:
    """Return the number of colors of at most so many PNG files, spread over the list; 0 if one cannot be decoded."""
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(len(files), most or MAX_LOOKED_AT)).astype(int)]
    return list(map_on_all_cores(_count_colors_of, chosen, len(chosen), "looking for masks"))


def _count_colors_of(_: int, file: ImageFile) -> int:
    # As for images, Pillow raises almost anything; a damaged file is named where it is decoded.
    try:
        with Image.open(file.path, formats=("PNG",)) as image:
            check_frame(image)
            # Pillow does not count colors of 16 bits.
            return MANY if image.mode.startswith("I") else len(image.getcolors(TWO) or range(MANY))
    except Exception:
        return 0


def _are_masks(files: Sequence[ImageFile]) -> bool:
    """Return whether all files are masks, by their names or because some are blank, which drawings are not."""
    if not all(map(_is_png, files)) or MANY in _count_colors(files[:1]):
        return False
    colors = _count_colors(files)
    are_named, num_blank = all(map(_is_named, files)), colors.count(BLANK)
    return MANY not in colors and TWO in colors and (are_named or num_blank > MIN_BLANK_FRACTION * len(colors))


def _find_copies(groups: Sequence[Sequence[ImageFile]]) -> list[tuple[str, ...]]:
    """Return the names of files of one stem that have one size in pixels."""
    headers = read_headers([file for group in groups for file in group])
    sizes = iter([None if isinstance(header, str) else (header.width, header.height) for header in headers])
    return [tuple(file.name for file in group) for group in groups if len({next(sizes) for _ in group}) == 1]
