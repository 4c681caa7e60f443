"""The templates share their prose: no long text stands in two of them."""

import re
from collections import defaultdict
from pathlib import Path

import analysis.report

TEMPLATES = Path(analysis.report.__file__).parent / "templates"
NUM_WORDS = 9
PROSE = re.compile(r"[\w'-]+(?:(?:[ ,;:]|\. )+[\w'-]+)+")


def find_runs(template: str) -> set[str]:
    """Return every run of `NUM_WORDS` words that a template contains outside tags and code."""
    runs = set()
    for text in PROSE.findall(re.sub(r"<style>.*?</style>", "", template, flags=re.DOTALL)):
        words = re.findall(r"[\w'-]+", text)
        runs |= {" ".join(words[i : i + NUM_WORDS]) for i in range(len(words) - NUM_WORDS + 1)}
    return runs


def test_no_long_text_stands_in_two_templates() -> None:
    sources = defaultdict(list)
    for path in sorted(TEMPLATES.rglob("*.j2")):
        for run in find_runs(path.read_text(encoding="utf-8")):
            sources[run].append(path.name)
    assert len(sources) > 100
    assert {run: names for run, names in sources.items() if len(names) > 1} == {}


def test_a_repeated_sentence_is_found() -> None:
    sentence = "A dash: the setting does not apply to that arm, or was not measured."
    html, markdown = find_runs(f'<p class="soft">{sentence}</p>'), find_runs(f"\n{sentence}\n")
    assert len(html & markdown) == len(sentence.split()) - NUM_WORDS + 1
    assert not find_runs("{{ arm.arm }} is better than {{ row.value.control }}.")
