"""The pages of an invented study in a folder, as `study report` writes them, and a Chromium that shows them."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import plotly.offline
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from analysis.arms.arm_evidence import ArmEvidence, tabulate_images, tabulate_models
from analysis.arms.render import plot_class_f1
from analysis.comparison.tables import build_table_rows
from analysis.formats.figures import figure_to_png
from analysis.report.explorer import ExplorerInput, build_explorer
from analysis.report.galleries import ThumbnailSheets
from analysis.report.pages import build_html, build_search_page
from search_spaces.config import TrialConfig
from tests.analysis.findings_factory import SEEDS, SKILLS, make_findings, make_predictions
from tests.built_values import epoch_of, metrics_of, predictions_of, record_of
from trainables.records.record import TrialRecord

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Yield a headless Chromium; without one, skip the test, or fail it where the environment variable CI is true."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        message = "there is no Chromium: `make browser` installs Debian's package"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def watch(page: Page) -> list[str]:
    """Return a list that fills with the errors of a page, and with its requests beyond its own file and data."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: found.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    return found


def write_pages(folder: Path, num_images: int = 1500, side: int = 16) -> None:
    """Write report.html, search.html and explore.html of a study with three arms, five seeds and nine trials."""
    findings = make_findings(num_images=num_images)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (num_images, side, side, 3), dtype=np.uint8)
    thumbnails = ThumbnailSheets.draw(images, np.arange(num_images), num_images)
    png = figure_to_png(plot_class_f1(findings.arms))
    pictures = dict.fromkeys(findings.figures, png)
    rows = build_table_rows(findings.rows)
    html = build_html(findings, rows, pictures, thumbnails=thumbnails, has_explorer=True)
    (folder / "report.html").write_text(html)
    section = {"title": "a plot", "caption": "of trials", "html": "<p>here</p>"}
    (folder / "search.html").write_text(build_search_page(findings.study, [section], [], ""))
    write_explorer(folder / "explore.html", findings.class_names, SKILLS, thumbnails, {17: png})


def write_explorer(
    file: Path,
    class_names: Sequence[str],
    arms: Mapping[str, float],
    thumbnails: ThumbnailSheets,
    panels: Mapping[int, bytes],
) -> None:
    """Write explore.html of arms with these skills."""
    evidence = [make_evidence(arm, skill, thumbnails.num_test_images) for arm, skill in arms.items()]
    shown = ExplorerInput(
        study="cifar10-backbones",
        class_names=class_names,
        images=[tabulate_images(found, class_names) for found in evidence],
        models=[table for found in evidence for table in tabulate_models(found, class_names)],
        records=[make_trial(number, list(arms)[number % len(arms)]) for number in range(9)],
        thumbnails=thumbnails,
        panels=panels,
    )
    file.write_text(build_explorer(shown, plotly.offline.get_plotlyjs()))


def make_evidence(arm: str, skill: float, num_images: int) -> ArmEvidence:
    """Return the runs of an arm with the classes of `make_predictions` and probabilities of about 0.9."""
    drawn = make_predictions(arm, skill, 10, num_images)
    generator = np.random.default_rng(len(arm))
    predictions = [
        predictions_of(drawn.labels, 4 * np.eye(10)[own] + generator.normal(0, 0.5, (num_images, 10)))
        for own in drawn.predicted
    ]
    runs = [make_trial(number, arm, seed=seed) for number, seed in enumerate(SEEDS)]
    return ArmEvidence(arm=arm, source=runs[0], runs=runs, predictions=predictions)


def make_trial(number: int, arm: str, seed: int = 0) -> TrialRecord:
    """Return a trial of three epochs whose scores rise with its number; one hyperparameter is conditional."""
    epochs = tuple(
        epoch_of(metrics_of(epoch, 0.5 + 0.04 * number + 0.02 * epoch), order=10 * number + epoch)
        for epoch in (1, 2, 3)
    )
    values: dict[str, float | int | str | bool] = {"max_lr": 0.001 * 2.0**number, "interpolation": "bicubic"}
    if number % 2:
        values |= {"cutmix_probability": 0.1 * number, "interpolation": "bilinear"}
    config = TrialConfig(arm=arm, seed=seed, hyperparameters=values, fixed={"max_epochs": 3})
    more = {"suggested_order": 10 * number, "device_seconds": 3.0}
    return record_of(config, trial_id=f"{number:05d}", epochs=epochs, **more)
