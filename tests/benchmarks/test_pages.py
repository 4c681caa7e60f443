"""Pages of measurements: the text above the mark is kept, the measurements below it are replaced."""

from pathlib import Path

import pytest
import typer

from benchmarks.pages import MARK, Table, publish_simulation, write_page

TABLE = Table("T", ("a", "b"), [("1", "2 | 3")])


def test_text_above_the_mark_is_kept_and_the_measurements_below_are_replaced(tmp_path: Path) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text(f"# Title\n\nText.\n\n{MARK}\n\nold\n")
    write_page(page, ["machine", TABLE])
    below = "machine\n\n## T\n\n| a | b |\n| --- | --- |\n| 1 | 2 \\| 3 |\n"
    assert page.read_text() == f"# Title\n\nText.\n\n{MARK}\n\n{below}"
    write_page(tmp_path / "NEW.md", [TABLE._replace(title="")])
    assert (tmp_path / "NEW.md").read_text().startswith(f"# NEW\n\n{MARK}\n\n| a | b |")


def test_missed_goals_are_written_and_end_with_status_1(tmp_path: Path) -> None:
    for problems, status, missed in (([], 0, "none"), (["x > y", "z"], 1, "x > y; z")):
        with pytest.raises(typer.Exit) as ended:
            publish_simulation(0.0, [TABLE], problems, "1 of 3", tmp_path / "PAGE.md")
        assert ended.value.exit_code == status
        assert (tmp_path / "PAGE.md").read_text().splitlines()[-1] == f"Goals missed: {missed}. Open: 1 of 3."
