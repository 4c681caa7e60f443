"""Csv whose texts no spreadsheet executes."""

import csv
import io
from pathlib import Path

import pandas as pd
import pytest

from analysis.formats.table_formats import escape_formula, to_csv, unescape_formula

ROOT = Path(__file__).parents[3]
FORMULAS = ['=HYPERLINK("http://evil")', "+1+cmd", "-1+cmd", "@SUM(A1)", "\tcat", "\rcat", "'=1", "''-1"]


@pytest.mark.parametrize("text", [*FORMULAS, "cat", "a=b", "'quoted'", "", "a-b"])
def test_a_text_that_a_spreadsheet_would_execute_is_marked_and_read_back(text: str) -> None:
    escaped = escape_formula(text)
    assert (escaped != text) == (text in FORMULAS)
    assert escaped[:1] not in tuple("=+-@\t\r")
    assert unescape_formula(escaped) == text


def test_numbers_of_csv_stay_numbers_and_its_texts_are_no_formulas() -> None:
    records = [
        {"class": "=1+1", "effect": -0.1, "number": -3, "mixed": 1, "-x": None, "seen": True},
        {"class": "dog", "effect": 1e-9, "number": 2, "mixed": -2.5, "-x": "-y", "seen": False},
    ]
    head, first, second = csv.reader(io.StringIO(to_csv(records)))
    assert head == ["class", "effect", "number", "mixed", "'-x", "seen"]
    assert first == ["'=1+1", "-0.1", "-3", "1.0", "", "True"]
    assert second == ["dog", "1e-09", "2", "-2.5", "'-y", "False"]


def test_a_table_is_written_without_a_change_of_itself() -> None:
    table = pd.DataFrame({"arm": ["=a", None], "seed": [-1, None]})
    assert to_csv(table) == "arm,seed\n'=a,-1.0\n,\n"
    assert table["arm"][0] == "=a"


def test_csv_is_written_in_one_place() -> None:
    files = [file for package in ("analysis", "study", "trainables") for file in (ROOT / package).rglob("*.py")]
    assert [file.name for file in files if ".to_csv(" in file.read_text()] == ["table_formats.py"]
