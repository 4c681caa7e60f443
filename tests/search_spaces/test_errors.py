"""Lists in messages are short, whatever is listed."""

import pytest

from search_spaces.errors import MAX_LIST_CHARACTERS, list_some, nearest_name


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", 2], "a, 2"),
        ([str(n) for n in range(25)], ", ".join(map(str, range(20))) + ", and 5 more"),
        ([("a", "b"), "c"], "a = b, c"),
        ([tuple("abcdef")], "a = b = c = d and 2 more"),
    ],
)
def test_the_first_names_and_the_number_of_the_others_are_listed(names: list[object], text: str) -> None:
    assert list_some(names) == text


def test_a_list_of_long_names_and_long_groups_is_short() -> None:
    names = [tuple(f"{'x' * 60}/{group}/{n}.png" for n in range(500)) for group in range(100)]
    text = list_some(names)
    assert len(text) < MAX_LIST_CHARACTERS + 100
    assert text.endswith(" more")
    assert list_some(["y" * 5000]) == "y" * 5000, "one name is never cut"


def test_of_a_thousand_valid_names_some_are_listed() -> None:
    assert len(nearest_name("x", (f"class number {n}" for n in range(1000)))) < 500
    assert "did you mean 'class number 17'" in nearest_name(
        "class nunber 17", [f"class number {n}" for n in range(100)]
    )
