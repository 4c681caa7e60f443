"""Hooks of MkDocs: files of the repository that pages link to are part of the site, under repository/.

A page links to a file outside of docs/ as everywhere in the repository, `../benchmarks/RESULTS.md`, so that the link works where
the repository is browsed as well.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FOLDER = "repository"
BACK = re.compile(r"(?<=\]\()(?:\.\./)*docs/([^)#\s]+\.md)")
LINK = re.compile(r"(?<=\]\()\.\./([^)#\s]+)")
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/*.md")
MEASUREMENTS = "Measurements"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every page of benchmarks/ into the navigation, the overview first."""
    pages = sorted(
        _list_pages(Path(config.docs_dir).parent, "benchmarks/*.md"), key=lambda path: ("README" not in path, path)
    )
    for section in config.nav or []:
        if MEASUREMENTS in section:
            section[MEASUREMENTS] = [f"{FOLDER}/{path}" for path in pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository and all files that pages in docs/ link to."""
    root = Path(config.docs_dir).parent
    for path in sorted({*_list_pages(root, *PAGES), *_list_linked(Path(config.docs_dir))}):
        if (root / path).is_file():
            files.append(File.generated(config, f"{FOLDER}/{path}", abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files outside of docs/ to where `on_files` puts them, and links of these files into docs/ back there."""
    del config, files
    if page.file.src_uri.startswith(FOLDER):
        return BACK.sub(lambda found: "../" * page.file.src_uri.count("/") + found[1], markdown)
    return LINK.sub(rf"{FOLDER}/\1", markdown)


def _list_pages(root: Path, *patterns: str) -> Iterator[str]:
    for pattern in patterns:
        yield from (path.relative_to(root).as_posix() for path in root.glob(pattern))


def _list_linked(docs: Path) -> Iterator[str]:
    for page in docs.glob("*.md"):
        yield from LINK.findall(page.read_text(encoding="utf-8"))
