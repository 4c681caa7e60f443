"""report.html and explore.html in headless Chromium: errors, requests, links, small and dark screens, axe-core, tables."""

import json
from collections.abc import Iterator
from csv import reader
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from analysis.report.galleries import ThumbnailSheets
from tests.browser.pages import open_browser, watch, write_explorer, write_pages

PAGES = ("report.html", "explore.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pages")
    write_pages(found)
    return found


def show(browser: Browser, file: Path, *, width: int = 1280, scheme: str = "light") -> tuple[Page, list[str]]:
    """Return the page when all of it is there, and what went wrong until then and goes wrong later."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    problems = watch(page)
    page.goto(file.as_uri())
    if file.name == "explore.html":
        page.wait_for_selector("html[data-ready=all]")
    return page, problems


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pages_load_without_errors_and_requests_fit_the_screen_and_axe_finds_nothing_serious(
    browser: Browser, folder: Path, name: str, width: int, scheme: str
) -> None:
    page, problems = show(browser, folder / name, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (color == "rgb(255, 255, 255)") == (scheme == "light")
    assert problems == []
    page.evaluate("document.querySelectorAll('details').forEach((element) => (element.open = true))")
    found = Axe().run(page).response["violations"]
    serious = [
        (violation["id"], violation["nodes"][0]["target"], violation["nodes"][0]["failureSummary"])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(browser: Browser, folder: Path, name: str) -> None:
    page, _ = show(browser, folder / name)
    links = page.eval_on_selector_all("a[href]", "links => links.map((link) => link.getAttribute('href'))")
    assert links
    for link in links:
        file, _, anchor = link.partition("#")
        assert not file or (folder / file).exists(), link
        assert not anchor or page.locator(f"[id='{anchor}']").count() == 1, link
    page.close()


def test_a_cell_of_the_confusion_matrix_opens_its_gallery(browser: Browser, folder: Path) -> None:
    page, problems = show(browser, folder / "report.html")
    cell = page.locator(".matrix a").first
    anchor = cell.get_attribute("href")
    gallery = page.locator(f"{anchor} img")
    assert not gallery.is_visible()
    cell.click()
    gallery.wait_for(state="visible")
    assert gallery.evaluate("image => image.naturalWidth") > 100
    assert problems == []
    page.close()


def locate_column(page: Page, table: str, title: str) -> Locator:
    heads = page.locator(f"#{table}_wrapper .dt-scroll-head .dt-column-title").all_text_contents()
    return page.locator(f"#{table} tbody tr td:nth-child({heads.index(title) + 1})")


def read_column(page: Page, table: str, title: str) -> list[str]:
    """Return the texts of a column as they are now; a table may be drawn some time after a click."""
    return locate_column(page, table, title).all_inner_texts()


def test_images_are_sorted_filtered_shown_and_downloaded(browser: Browser, folder: Path) -> None:
    page, problems = show(browser, folder / "explore.html")
    losses = [float(text) for text in read_column(page, "images", "resnet18: loss")]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 25
    head = page.locator("#images_wrapper .dt-scroll-head thead th").filter(has_text="true class")
    head.locator(".dtcc-button_dropdown, .dtcc-button").last.click()
    page.locator(".dtcc-dropdown .dtcc-button").filter(has_text="frog").first.click()
    page.keyboard.press("Escape")
    expect(page.locator("#images_wrapper .dt-info")).to_contain_text("of 150 entries")
    assert set(read_column(page, "images", "true class")) == {"frog"}
    with page.expect_download() as csv:
        page.get_by_text("Download CSV").first.click()
    lines = Path(csv.value.path()).read_text().splitlines()
    assert len(lines) == 151
    with page.expect_download() as exported:
        page.get_by_text("Download JSON").first.click()
    rows = json.loads(Path(exported.value.path()).read_text())
    assert len(rows) == 150
    assert {row["true class"] for row in rows} == {"frog"}
    page.locator("#images .thumb").first.click()
    assert page.locator("#detail tbody tr").count() == 3 * 5
    assert "frog" in page.locator("#detail h2").inner_text()
    assert problems == []
    page.close()


def test_heat_maps_are_shown_for_the_images_that_have_some(browser: Browser, folder: Path) -> None:
    page, _ = show(browser, folder / "explore.html")
    page.locator("#images_wrapper .dt-scroll-head .dtcc-button_order").first.click()
    expect(locate_column(page, "images", "id").nth(17)).to_have_text("17")
    page.locator("#images .thumb").nth(17).click()
    assert page.locator("#detail img").get_attribute("alt") == "heat maps of image 17"
    page.close()


def test_selected_trials_are_those_in_table_and_curves(browser: Browser, folder: Path) -> None:
    page, problems = show(browser, folder / "explore.html")
    assert len(read_column(page, "trials", "trial")) == 9
    page.evaluate(
        """document.getElementById('coordinates').emit('plotly_selected', {
            range: {x: [0.6, 1.4], y: [0.5, 1]},
            points: [{curveNumber: 7}, {curveNumber: 8}],
        })"""
    )
    assert read_column(page, "trials", "trial") == ["00008", "00007"]
    faint = page.evaluate("document.getElementById('curves').data.map((trace) => trace.opacity)")
    assert [value == 1 for value in faint] == [False] * 7 + [True] * 2
    page.evaluate("document.getElementById('coordinates').emit('plotly_deselect')")
    assert len(read_column(page, "trials", "trial")) == 9
    assert problems == []
    page.close()


def test_names_are_text_and_never_code(browser: Browser, tmp_path: Path) -> None:
    hostile = '<img src=x onerror="window.hacked = true"></script><script>window.hacked = true</script>'
    images = np.zeros((300, 8, 8, 3), dtype=np.uint8)
    thumbnails = ThumbnailSheets.draw(images, np.arange(300), 300)
    names = [f"{number} {hostile}" for number in range(10)]
    write_explorer(tmp_path / "explore.html", names, {f"a {hostile}": 1.5, f"b {hostile}": 1.6}, thumbnails, {})
    page, problems = show(browser, tmp_path / "explore.html")
    page.eval_on_selector_all(".dt-scroll-head .dtcc-button_dropdown", "menus => menus.forEach((menu) => menu.click())")
    page.locator("#images .thumb").first.click()
    assert hostile in page.locator("#detail h2").inner_text()
    assert page.evaluate("window.hacked") is None
    assert problems == []
    page.close()


def test_downloaded_csv_has_no_formulas(browser: Browser, tmp_path: Path) -> None:
    thumbnails = ThumbnailSheets.draw(np.zeros((40, 16, 16, 3), dtype=np.uint8), np.arange(40), 40)
    names = ["=1+1", "+cmd", *"abcdefgh"]
    write_explorer(tmp_path / "explore.html", names, {"=2+2 <b>": 0.9, "-arm": 0.8}, thumbnails, {})
    page, _ = show(browser, tmp_path / "explore.html")
    with page.expect_download() as csv:
        page.get_by_text("Download CSV").first.click()
    text = Path(csv.value.path()).read_text()
    head = next(reader(text.splitlines()))
    assert {"'=2+2 <b>: predicted", "'-arm: loss"} <= set(head)
    assert not [title for title in head if title[0] in "=+-@"]
    assert '"\'=1+1"' in text
    assert '"\'+cmd"' in text
    assert '"=' not in text
    assert '"+' not in text
    page.close()
