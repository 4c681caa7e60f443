"""The page of an inspection is one offline file that holds every section; names from outside are escaped."""

import dataclasses
import re

import numpy as np
import pytest

from analysis.confusions.values import LabelIssue
from analysis.images.appearance import draw_examples
from analysis.images.inspection import inspect_images
from analysis.images.values import ImagePair, Inspection, NetworkFindings, PairLoss, PairSeparability, Rung
from analysis.report.inspection_page import build_inspection_page, describe_inspection
from analysis.statistics.interval import Interval
from tests.analysis.report.test_pages import Page
from tests.trainables.data.augmentation.changed_settings import change
from tests.trainables.data.augmentation.test_pipeline import EVERYTHING
from trainables.data.image_audit import audit_image_set
from trainables.data.images import ImageOrigin, ImageSet, SkippedFile
from trainables.data.splits import make_splits

HOSTILE = '<script>alert("x")</script>'
SETTINGS = change(EVERYTHING, image_size=24, crop_min_area=0.5)
SCORE = Interval(estimate=0.6, low=0.55, high=0.65)


def make_inspection(class_names: tuple[str, ...] = ("cat", "dog"), network_note: str = "") -> Inspection:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, size=(120, 12, 12, 3), dtype=np.uint8)
    images[60] = images[0]
    sizes = np.tile(np.array([[300, 200]], dtype=np.int32), (120, 1))
    sizes[3] = (900, 30)
    image_set = ImageSet(
        images=images,
        labels=np.repeat([0, 1], 60),
        class_names=class_names,
        source="folder",
        origin=ImageOrigin(
            names=tuple(f"{class_names[0]}/{i}.png" for i in range(120)),
            sizes=sizes,
            kinds={"RGB": 118, "CMYK": 2},
            skipped=(SkippedFile(name="notes.txt", reason="not an image"),),
            notes=("120 masks left out as images",),
        ),
    )
    splits = make_splits(image_set, seed=0, search_fraction=0.2, confirm_fraction=0.2, test_fraction=0.2)
    audit = audit_image_set(image_set, splits)
    pair = PairSeparability(first=0, second=1, area=SCORE, confusion_rate=0.2)
    loss = PairLoss(first=0, second=1, loss=Interval(estimate=0.1, low=0.05, high=0.15))
    network = NetworkFindings(
        backbone="resnet18",
        interpolation="bicubic",
        num_images=96,
        classes=np.arange(2),
        macro_f1=SCORE,
        confusion=np.array([[40, 8], [10, 38]]),
        pairs=(pair,),
        num_pairs=1,
        num_ladder_images=48,
        rungs=(
            Rung(side=12, macro_f1=SCORE, loss=None, weakest=(pair,), lost_pairs=()),
            Rung(side=8, macro_f1=SCORE, loss=loss.loss, weakest=(pair,), lost_pairs=(loss,)),
        ),
        label_issues=(LabelIssue(sample_id=7, label=class_names[0], suggested=class_names[1], label_quality=0.01),),
        bicubic_gain=Interval(estimate=0.013, low=0.006, high=0.02),
    )
    return Inspection(
        name="mine",
        image_set=image_set,
        splits=splits,
        stages=audit.stages,
        audit=audit,
        examples=draw_examples(image_set, splits, SETTINGS, 0),
        image_size=24,
        images=inspect_images(image_set, splits, image_size=24, seed=0),
        network=None if network_note else network,
        network_note=network_note,
    )


@pytest.fixture(scope="module")
def inspection() -> Inspection:
    return make_inspection()


def test_the_page_is_well_formed_and_needs_nothing_else(inspection: Inspection) -> None:
    html = build_inspection_page(inspection, (), ())
    page = Page(html)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert "120 masks left out as images" in html
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"@import|url\(", html)
    sources = [attributes["src"] or "" for attributes in page.all("img")]
    # 2 classes before and after, 1 pair of duplicates, odd sizes, 1 label, matrix, ladder, 2 of the interpolations.
    assert len(sources) >= 10
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in sources)
    assert all(attributes["alt"] for attributes in page.all("img"))


def test_the_images_of_a_group_are_shown_side_by_side_with_their_splits(inspection: Inspection) -> None:
    near = [
        ImagePair(first=1, second=i, splits=("train", split), labels=(0, 0), distance=3)
        for i, split in zip(range(2, 12), ["test", *["train"] * 9], strict=True)
    ]
    found = dataclasses.replace(inspection, images=dataclasses.replace(inspection.images, near=tuple(near)))
    page = build_inspection_page(found, (), ())
    assert "cat/1.png (train), cat/2.png (test), cat/3.png (train)" in page
    assert "cat/8.png (train) and 3 more: cat" in page
    assert page.count("cat/1.png and its copies") == 1


def test_the_page_names_the_shares_of_cutmix_and_mixup(inspection: Inspection) -> None:
    assert "CutMix pastes a box of another image into 50 % of them" in build_inspection_page(inspection, (), ())
    assert "MixUp" not in build_inspection_page(inspection, (), ())
    mixes = SETTINGS.model_copy(update={"mixup_probability": 0.4})
    examples = draw_examples(inspection.image_set, inspection.splits, mixes, 0)
    page = build_inspection_page(dataclasses.replace(inspection, examples=examples), (), ())
    assert "into 50 % of them, and MixUp blends 20 % of them with another image" in page


def test_gray_images_are_called_gray(inspection: Inspection) -> None:
    image_set, splits = inspection.image_set, inspection.splits
    gray = dataclasses.replace(image_set, images=np.repeat(image_set.images[..., :1], 3, axis=3))
    found = dataclasses.replace(inspection, image_set=gray, images=inspect_images(gray, splits, image_size=24, seed=0))
    colors, of_gray = (describe_inspection(one, most=5, num_named=1)[-1] for one in (inspection, found))
    assert colors.tables[0].columns == ("mean color", "red", "green", "blue")
    assert "gray" not in " ".join(colors.lines)
    assert of_gray.tables[0].columns == ("mean gray level", "gray")
    assert of_gray.lines[0].startswith("the images are gray")
    assert "what the gray level alone predicts" in of_gray.lines[1]
    assert "color histogram" not in " ".join(of_gray.lines)
    assert Page(build_inspection_page(found, (), ())).open == []


def test_the_share_that_a_crop_cuts_is_said(inspection: Inspection) -> None:
    """119 images of 300 x 200 px lose a third, one of 900 x 30 px nearly all."""
    share = 100 * (119 / 3 + 29 / 30) / 120
    stages = describe_inspection(inspection, most=5, num_named=1)[0]
    assert f"sides differ: a crop of the center cuts {share:.1f} % of the area on average" in stages.lines
    assert "Training images whose sides differ" not in build_inspection_page(inspection, (), ())
    shown = dict.fromkeys(("crop", "pad", "squash"), inspection.image_set.images[:2])
    images = dataclasses.replace(inspection.images, squared=shown)
    page = build_inspection_page(dataclasses.replace(inspection, images=images), (), ())
    assert "Training images whose sides differ, as squares under each data.aspect." in page


def test_the_page_has_every_section_and_its_links(inspection: Inspection) -> None:
    page = Page(build_inspection_page(inspection, (), ("too few images",)))
    anchors = [a["id"] for a in page.all("section")]
    wanted = ["stages", "examples", "balance", "duplicates", "odd", "labels", "gap", "ladder", "interpolation", "color"]
    assert anchors == wanted
    assert [a["href"] for a in page.all("a")] == [f"#{anchor}" for anchor in anchors]
    for text in (
        "too few images", "CMYK 2", "notes.txt: not an image", "cat/60.png", "CONFLICT: cat / dog",
        "Different labels: cat/0.png (cat) and cat/60.png (dog)", "cat-dog", "60.0 % [55.0, 65.0]",
        "10.0 pp [5.0, 15.0]", "+1.3 pp [+0.6, +2.0]", "expected by chance", "wide: 1 images",
    ):  # fmt: skip
        assert text in page.text, text


def test_names_from_outside_are_escaped() -> None:
    page = Page(build_inspection_page(make_inspection((HOSTILE, "b & c")), (), (HOSTILE,)))
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text


def test_without_a_network_the_sections_say_why() -> None:
    found = make_inspection(network_note="needs pretrained weights: there is no file")
    sections = {s.anchor: s for s in describe_inspection(found, most=10, num_named=1)}
    for anchor in ("labels", "gap", "ladder"):
        assert sections[anchor].lines == ("needs pretrained weights: there is no file",)
    assert "bicubic leaves" in sections["interpolation"].lines[0]
    assert "needs pretrained weights" in sections["interpolation"].lines[1]
    page = Page(build_inspection_page(found, (), ()))
    assert page.open == []


def test_long_lists_are_cut_and_say_so(inspection: Inspection) -> None:
    sections = {s.anchor: s for s in describe_inspection(inspection, most=1, num_named=1)}
    assert len(sections["balance"].tables[0].rows) == 2  # one class and the sum
    assert "the 0 largest and the 1 smallest of 2 classes are listed" in sections["balance"].lines
    assert len(sections["color"].tables[0].rows) == 1
