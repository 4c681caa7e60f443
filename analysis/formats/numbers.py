"""Formats of numbers, intervals and names in reports and terminals."""

import html
from collections.abc import Callable, Mapping
from typing import Any

from analysis.statistics.interval import Interval, TwoIntervals

# Characters of a setting in a table.
LONGEST_VALUE = 60
_MARKDOWN_ESCAPES = str.maketrans({"\n": " ", "\r": " ", **{mark: f"\\{mark}" for mark in "\\`*_[]|#~$"}})


def format_percent(fraction: float | None, decimals: int = 1) -> str:
    """Return a fraction in percent: "65.3 %"; a dash for None."""
    return "—" if fraction is None else f"{100 * fraction:.{decimals}f} %"


def format_bounds(interval: Interval, form: Callable[[float], str]) -> str:
    """Return the ends of an interval, each in a form: "[63.9, 66.7]"."""
    return f"[{form(interval.low)}, {form(interval.high)}]"


def join_intervals(interval: Interval | TwoIntervals, form: Callable[[float], str], unit: str = "") -> str:
    """Return the estimate with the interval for these models, then that for the recipe: "65.3 % [63.9, 66.7]; recipe [60, 70]".

    Args:
        interval: of one question, or of both; that for the recipe is left out where there is none.
        form: of a number.
        unit: after the estimate.
    """
    models, recipe = (interval.models, interval.recipe) if isinstance(interval, TwoIntervals) else (interval, None)
    text = f"{form(models.estimate)}{unit} {format_bounds(models, form)}"
    return text if recipe is None else f"{text}; recipe {format_bounds(recipe, form)}"


def format_interval(interval: Interval | TwoIntervals, decimals: int = 1) -> str:
    """Return a fraction with its interval in percent: "65.3 % [63.9, 66.7]", or with both."""
    return join_intervals(interval, lambda x: f"{100 * x:.{decimals}f}", " %")


def format_signed_pp(interval: Interval | TwoIntervals, unit: str = " pp") -> str:
    """Return a difference of fractions in percentage points: "+12.3 pp [+8.1, +16.5]", or with both."""
    return join_intervals(interval, lambda x: f"{100 * x + 0.0:+.1f}", unit)


def join_verdicts(verdict: str, recipe_verdict: str | None) -> str:
    """Return the verdict for these models, then that for the recipe where it differs: "FAIL; recipe UNDECIDED"."""
    return str(verdict) if recipe_verdict in (None, verdict) else f"{verdict}; recipe {recipe_verdict}"


def format_pp(fraction: float) -> str:
    """Return a difference of fractions in percentage points without sign: "0.5 pp"."""
    return f"{100 * fraction:g} pp"


def format_seconds(seconds: float) -> str:
    """Return a duration with two units at most: "7.4 s", "42 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds == 0 or seconds >= 9.95 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def format_bytes(num_bytes: int) -> str:
    """Return a size in binary units: "512 B", "1.2 GiB"; a dash for 0, which stands for "not measured"."""
    if num_bytes == 0:
        return "—"
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_count(count: float) -> str:
    """Return a count: "950", "1,874"; in millions from 1e6: "11.2 M"."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,.0f}"


def format_parameters(count: int) -> str:
    """Return a number of parameters, as `format_count`; a dash for 0, which stands for a model that does not tell it."""
    return format_count(count) if count else "—"


def format_gflops(flops: float) -> str:
    """Return a number of floating-point operations in units of 1e9, with three significant digits: "3.63"; a dash for 0."""
    return f"{flops / 1e9:.3g}" if flops else "—"


def format_value(value: Any) -> str:
    """Return a setting as text: floats with four significant digits, lists separated by commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item) for item in value) or "none"
    return "none" if value is None else str(value)


def shorten(text: str) -> str:
    """Return a text of at most `LONGEST_VALUE` characters, the end replaced by "..." where it is longer."""
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def flatten_passport(passport: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Return (dotted key, text) for every leaf of the passport, in its order."""
    lines: list[tuple[str, str]] = []
    for key, value in passport.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            lines.extend(flatten_passport(value, f"{name}."))
        else:
            lines.append((name, format_value(value)))
    return tuple(lines)


def format_sentence(clause: str) -> str:
    """Return a clause with a capital letter at the start and a period at the end."""
    return f"{clause[:1].upper()}{clause[1:]}."


def escape_markdown(text: object) -> str:
    """Return text that markdown shows literally and on one line, also inside a table."""
    return html.escape(str(text), quote=False).translate(_MARKDOWN_ESCAPES)
