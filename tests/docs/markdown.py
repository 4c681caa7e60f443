"""The pages of the documentation as the tests read them: fenced blocks, links and the anchors of headings."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its text, its line in the page, and the line before it."""

    page: Path
    line: int
    before: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path, language: str) -> Iterator[Block]:
    """Yield the fenced blocks of a language."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found[1] == language:
            above = text[: found.start()].splitlines()
            yield Block(page, len(above) + 1, above[-1] if above else "", found[2])


def list_blocks(language: str) -> list[Block]:
    """Return the fenced blocks of a language in all pages."""
    return [block for page in PAGES for block in read_blocks(page, language)]


def list_links(page: Path) -> list[str]:
    """Return the targets of the links and images of a page, those to other sites excepted."""
    text = re.sub(r"`[^`]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]


def list_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings that are the same where the repository is browsed and in the built site."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = [re.sub(r"[`*]", "", heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return _number(headings, _slug_of_github, "-") & _number(headings, _slug_of_mkdocs, "_")


def _number(headings: list[str], slug: Callable[[str], str], separator: str) -> set[str]:
    """Return the anchors of all headings; the second of equal ones has the number 1."""
    seen: Counter[str] = Counter()
    anchors = set()
    for name in map(slug, headings):
        anchors.add(f"{name}{separator}{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return anchors


def _slug_of_github(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _slug_of_mkdocs(heading: str) -> str:
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
