"""The A/B table for the terminal and as csv, markdown and LaTeX, all from the same rows of text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from analysis.comparison.values import ArmDivergence, ComparisonRow, Question, Verdict
from analysis.formats.numbers import format_bounds, join_intervals
from analysis.formats.table_formats import FittedTable, list_bounds, to_csv, to_latex, to_markdown, to_terminal
from analysis.statistics.interval import Interval

BAR_WIDTH = 23
MOST_DECIMALS = 5
PLAN_CHANGED = "The plan was changed after it was written, so the intervals and verdicts are not valid as stated."
TWO_QUESTIONS = (
    "The verdict is about the recipe: it holds for new seeds and new test images. The interval for these models holds for new "
    "images alone."
)
ONE_SEED = "With one seed, the verdict is about these models alone and says nothing about the recipe on other seeds."
NOT_AVAILABLE = "n/a"
VERDICT_STYLES = {
    Verdict.BETTER: "bold green",
    Verdict.WORSE: "bold red",
    Verdict.EQUIVALENT: "bold cyan",
    Verdict.UNDECIDED: "bold yellow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One A/B row as text, from which every format is built.

    Attributes:
        comparison: "ResNet50 vs ResNet18".
        effect: "+0.42 pp".
        interval: "[+0.11, +0.73]", in percentage points.
        verdict: "BETTER", "BETTER (material)", "BETTER (these models)", ...
        models: the interval for these models and its verdict: "[+0.20, +0.64] BETTER".
        seeds: "10 seeds".
        mde: "0.40", in percentage points; "n/a" in anytime rows.
        cost: "2.3x cost", or "cost not measured".
        p_adjusted: over the rows and looks of the table: "0.012", "<0.001", or "n/a".
        confidence: "95 %", "98.3 %".
        reach: end of the axis of the bars, from -reach to reach, that all rows of a table share.
        value: the row itself.
    """

    comparison: str
    effect: str
    interval: str
    verdict: str
    models: str
    seeds: str
    mde: str
    cost: str
    p_adjusted: str
    confidence: str
    reach: float
    value: ComparisonRow

    @property
    def cells(self) -> tuple[str, ...]:
        """Cells of the row in the order of `HEADER`."""
        return tuple(cell(self) for cell in _COLUMNS.values())

    def place(self, difference: float) -> float:
        """Return where a difference is on the axis of the bars, from 0 at its start to 1 at its end."""
        return (difference / self.reach + 1) / 2


def count_seeds(row: ComparisonRow) -> str:
    """Return the number of paired seeds, such as "5"; where they do not pair, those of both arms: "3 and 5"."""
    return str(row.num_seeds) if row.num_control_seeds is None else f"{row.num_seeds} and {row.num_control_seeds}"


_COLUMNS: Mapping[str, Callable[[TableRow], str]] = {
    "comparison": lambda row: row.comparison,
    "difference": lambda row: row.effect,
    "interval (pp)": lambda row: row.interval,
    "verdict": lambda row: row.verdict,
    "interval for these models (pp)": lambda row: row.models,
    "seeds": lambda row: count_seeds(row.value),
    "MDE (pp)": lambda row: row.mde,
    "cost": lambda row: row.cost.removesuffix(" cost").removeprefix("cost "),
    "p (adjusted)": lambda row: row.p_adjusted,
}
HEADER = tuple(_COLUMNS)


def build_table_rows(rows: Sequence[ComparisonRow], *, winner_first: bool = True) -> tuple[TableRow, ...]:
    """Return the rows of one A/B table as text, each with the better side first; they share the axis of the bars.

    Args:
        rows: in the order of the arms in the spec.
        winner_first: False for the question of a gate, which is about the new side whether it is better or not.
    """
    rows = [row.winner_first() for row in rows] if winner_first else rows
    ends = [abs(end) for row in rows for end in (row.effect.low, row.effect.high, row.margin)]
    reach = 1.08 * max(ends, default=1.0)
    return tuple(_build_row(row, reach) for row in rows)


def format_row(row: ComparisonRow) -> str:
    """Return one line: difference, interval and MDE in pp, verdict, seeds, cost; for an undecided row what would decide it.

    Example: ``ResNet50 vs ResNet18 | +0.42 pp [+0.11, +0.73] | BETTER | 10 seeds | MDE 0.40 | 2.3x cost``.
    """
    text = build_table_rows([row])[0]
    effect = f"{text.effect} {text.interval}"
    parts = [text.comparison, effect, text.verdict, text.seeds, f"MDE {text.mde}", text.cost]
    notes = [describe_divergence(text.value), row.settles, "PLAN CHANGED" if row.plan_changed else ""]
    return " | ".join([*parts, *(note for note in notes if note)])


def format_bar(row: TableRow) -> str:
    """Draw an interval with text of BAR_WIDTH characters: margin band ░, interval ━ (▓ inside the band), zero │, estimate ●."""

    def column(difference: float) -> int:
        return round(row.place(difference) * (BAR_WIDTH - 1))

    cells, effect, margin = [" "] * BAR_WIDTH, row.value.effect, row.value.margin
    for i in range(column(-margin), column(margin) + 1):
        cells[i] = "░"
    for i in range(column(effect.low), column(effect.high) + 1):
        cells[i] = "━" if cells[i] == " " else "▓"
    cells[column(0.0)] = "│"
    cells[column(effect.estimate)] = "●"
    return "".join(cells)


def build_rich_table(rows: Sequence[ComparisonRow]) -> FittedTable:
    """Return the A/B table for a terminal, with a bar for each interval where there is room for it."""
    table_rows = build_table_rows(rows)
    header = ("comparison", "difference (pp)", f"{'-margin  0  +margin':^{BAR_WIDTH}}", "verdict")
    title = "A/B comparison: macro-F1 on the test split"
    return to_terminal(
        title, header, [_list_lines(row) for row in table_rows], _caption(table_rows), no_wrap=True, least=(2,)
    )


def _list_lines(row: TableRow) -> tuple[str | Text, ...]:
    """Return the cells of a row for the terminal, of several lines each."""
    lines, models = row.verdict, ""
    if row.value.question is Question.MODELS:
        lines = lines.replace(" (", "\n(").replace(", ", ",\n")
    else:
        models = f"\nmodels {row.models.rpartition(' ')[0]}"
    verdict = Text(f"{lines}\n")
    verdict.stylize(VERDICT_STYLES[row.value.verdict])
    cost = f"\n{row.cost}" if row.value.cost_ratio is not None else ""
    verdict.append(f"p {row.p_adjusted}{cost}", style="not bold default")
    return (
        row.comparison.replace(" vs ", "\nvs "),
        f"{row.effect.removesuffix(' pp')}\n{row.interval}",
        f"{format_bar(row)}\n{row.seeds}, MDE {row.mde}{models}",
        verdict,
    )


def list_values(row: ComparisonRow) -> dict[str, object]:
    """Return the values of a row of the A/B table by column, in full precision; effects are in percentage points (`_pp`)."""
    minimum, error = row.minimum_detectable_effect, row.standard_error
    record = {
        "treatment": row.treatment,
        "control": row.control,
        "effect_pp": 100 * row.effect.estimate,
        "low_pp": 100 * row.effect.low,
        "high_pp": 100 * row.effect.high,
        "confidence": row.confidence,
        "margin_pp": 100 * row.margin,
        "verdict": row.verdict.value,
        "materiality": row.materiality,
        "num_seeds": row.num_seeds,
        "num_control_seeds": row.num_seeds if row.num_control_seeds is None else row.num_control_seeds,
        "num_images": row.num_images,
        "minimum_detectable_effect_pp": None if minimum is None else 100 * minimum,
        "standard_error_pp": None if error is None else 100 * error,
    }
    same = ("degrees_of_freedom", "p_value", "p_adjusted", "cost_ratio", "look", "num_looks", "intervals")
    return {
        **record,
        **{name: getattr(row, name) for name in same},
        **list_bounds("bootstrap", row.bootstrap, "_pp"),
        "plan_changed": row.plan_changed,
        "settles": row.settles,
        "question": row.question.value,
        **list_bounds("models", row.models_effect, "_pp"),
        "models_verdict": row.models_verdict.value,
        **list_bounds("all_runs", row.all_runs_effect, "_pp"),
        "num_diverged": sum(arm.num_diverged for arm in row.divergence),
        "divergence": describe_divergence(row),
    }


def build_csv(rows: Sequence[ComparisonRow]) -> str:
    """Return the A/B table as csv; see `list_values`."""
    return to_csv([list_values(row) for row in rows])


def build_markdown(rows: Sequence[ComparisonRow]) -> str:
    """Return the A/B table as markdown, with its caption below."""
    table_rows = build_table_rows(rows)
    return to_markdown(HEADER, [row.cells for row in table_rows]) + f"\n{_caption(table_rows)}\n"


def build_latex(rows: Sequence[ComparisonRow]) -> str:
    """Return the A/B table as a LaTeX tabular, which needs the package booktabs."""
    table_rows = build_table_rows(rows)
    table = to_latex(HEADER, [row.cells for row in table_rows])
    notes = [PLAN_CHANGED] if any(row.plan_changed for row in rows) else []
    notes += [ONE_SEED] if any(row.question is Question.MODELS for row in rows) else []
    return table + "".join(f"{note}\n" for note in notes)


def _build_row(row: ComparisonRow, reach: float) -> TableRow:
    effect, decimals = row.effect, _choose_decimals(row)

    def pp(fraction: float) -> str:
        # Adding 0.0 turns -0.0 into 0.0.
        return f"{round(100 * fraction, decimals) + 0.0:+.{decimals}f}"

    words = [row.materiality, "these models" if row.question is Question.MODELS else ""]
    notes = ", ".join(word for word in words if word)
    models, mde, p = row.models_effect, row.minimum_detectable_effect, row.p_adjusted
    return TableRow(
        comparison=f"{row.treatment} vs {row.control}",
        effect=f"{pp(effect.estimate)} pp",
        interval=format_bounds(effect, pp),
        verdict=f"{row.verdict} ({notes})" if notes else str(row.verdict),
        models=f"{format_bounds(models, pp)} {row.models_verdict}",
        seeds=f"{count_seeds(row)} seed{'' if count_seeds(row) == '1' else 's'}",
        mde=NOT_AVAILABLE if mde is None else pp(mde).removeprefix("+"),
        cost=f"{row.cost_ratio:.1f}x cost" if row.cost_ratio is not None else "cost not measured",
        p_adjusted=NOT_AVAILABLE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
        confidence=f"{round(100 * row.confidence, 1):g} %",
        reach=reach,
        value=row,
    )


def _choose_decimals(row: ComparisonRow) -> int:
    """Return 2, or the number of decimals that distinguishes the bounds from zero and from the margin."""
    for decimals in range(2, MOST_DECIMALS):
        shown = [
            (round(100 * bound, decimals), round(100 * mark, decimals), bound == mark)
            for interval in (row.effect, row.models_effect)
            for bound in (interval.low, interval.high)
            for mark in (0.0, row.margin, -row.margin)
        ]
        if all(bound != mark or same for bound, mark, same in shown):
            return decimals
    return MOST_DECIMALS


def _caption(rows: Sequence[TableRow]) -> str:
    levels = ", ".join(dict.fromkeys(row.confidence for row in rows))
    margins = ", ".join(dict.fromkeys(f"{100 * row.value.margin:g}" for row in rows))
    lines = [f"Intervals at {levels} confidence; margin {margins} pp."] if rows else []
    lines += describe_questions([row.value for row in rows])
    lines += [PLAN_CHANGED] if any(row.value.plan_changed for row in rows) else []
    for row in rows:
        notes = (describe_rule(row), describe_divergence(row.value), row.value.settles)
        lines += [f"{row.comparison}: {note}." for note in notes if note]
    return " ".join(lines)


def describe_questions(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return a sentence for each of the two questions that the rows of a table answer."""
    recipe = any(row.question is Question.RECIPE for row in rows)
    models = any(row.question is Question.MODELS for row in rows)
    return [sentence for sentence, is_needed in ((TWO_QUESTIONS, recipe), (ONE_SEED, models)) if is_needed]


def describe_divergence(row: ComparisonRow) -> str:
    """Return how many runs of each arm diverged, the difference over all runs, and whether they decided; "" if none diverged."""
    if not row.divergence:
        return ""
    arms = "; ".join(_describe_arm_divergence(arm) for arm in row.divergence)
    if row.all_runs_effect is None:
        return arms
    found = row.all_runs_effect
    finished = f"; the interval is about the {row.num_seeds} seeds with which every run finished"
    decided = "; the verdict comes from the runs that diverged" if row.is_decided_by_divergence else ""
    effect = f"difference over all runs {format_difference(found)}"
    return f"{arms}{'' if found == row.effect else finished}; {effect}{decided}"


def _describe_arm_divergence(arm: ArmDivergence) -> str:
    low, high = (f"{100 * end:.0f}" for end in (arm.rate.low, arm.rate.high))
    text = f"{arm.arm}: {arm.num_diverged} of {arm.num_runs} runs diverged (95 % interval {low} to {high} %)"
    if not arm.epochs:
        return text
    scored = ", ".join(f"epoch {epoch}" if epoch else "chance" for epoch in arm.epochs)
    return f"{text}, scored at {scored}"


def describe_rule(row: TableRow) -> str:
    """Return the look at which a row was decided, the kind of interval and the bootstrap interval; "" if none applies."""
    parts = []
    if row.value.num_looks > 1:
        parts.append(f"look {row.value.look} of {row.value.num_looks}")
    if row.value.intervals == "anytime":
        parts.append("interval valid at every number of seeds")
    if row.value.intervals == "moderated":
        parts.append("variance between seeds moderated by the other rows")
    if row.value.bootstrap is not None:
        parts.append(f"crossed bootstrap {format_bounds(row.value.bootstrap, _points)} pp")
    return ", ".join(parts)


def format_difference(effect: Interval) -> str:
    """Return a difference with its interval in percentage points, as the table has it: "+0.42 pp [+0.11, +0.73]"."""
    return join_intervals(effect, _points, " pp")


def _points(fraction: float) -> str:
    # Adding 0.0 turns -0.0 into 0.0.
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"
