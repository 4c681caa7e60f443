"""Which configuration a round of interventions recommends: that of one intervention, or of several in a factorial design.

A recommendation is wrong if an intervention neither raises macro-F1 nor, at a loss below the margin, reduces its target. Each one
is a hypothesis of its own, and needs no alpha for each of its two tests: where macro-F1 does fall by the margin, only the test of
that loss can err, and elsewhere only the claims that something is BETTER (an intersection-union test, Berger 1982,
Technometrics 24:295). Those have a quarter of alpha for all rows and a quarter for all targets, so that at least half of alpha is
left for the tests of a loss. The intervention that leads has this half, which is written before the test split is read.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.comparison.values import ComparisonRow, Verdict
from analysis.interventions.values import InterventionEffect, StatedIntervention
from search_spaces.designs import INTERACTION_SIGN

# Setting of an intervention that the command line sets.
STRENGTH = "class_weight_strength"
NOTHING_HELPED = "Nothing helped: no intervention is BETTER on macro-F1, or on its target without loss of macro-F1."


def find_lead(stated: Sequence[StatedIntervention]) -> str:
    """Return the arm of the intervention with the largest predicted reduction; "" where none is predicted with certainty.

    A target that is seen is predicted from images that also judge it, so that its intervention does not lead.
    """
    predicted = {one.arm: one.prediction.effect for one in stated if not one.is_seen}
    certain = {arm: effect.estimate for arm, effect in predicted.items() if effect is not None and effect.high < 0}
    return min(certain, key=lambda arm: certain[arm], default="")


def order_by_gain(stated: Sequence[StatedIntervention], seconds: Mapping[str, float]) -> list[StatedIntervention]:
    """Return the interventions in the order in which they are worth their device time, by arm in `seconds`.

    The first is that with the largest predicted reduction per device-second that its interval at 95 % leaves certain. Then come
    those whose prediction is uncertain, by its estimate, and those without one, the cheapest first.
    """

    def rank(one: StatedIntervention) -> tuple[float, float, float]:
        effect, cost = one.prediction.effect, max(seconds[one.arm], 1e-9)
        gains = (0.0, 0.0) if effect is None else (max(-effect.high, 0.0) / cost, max(-effect.estimate, 0.0) / cost)
        return *gains, -cost

    return sorted(stated, key=rank, reverse=True)


def share_noninferior_levels(
    stated: Sequence[StatedIntervention], alpha: float, num_looks: int = 1
) -> dict[str, float]:
    """Return the one-sided level, by arm, at which macro-F1 must not fall by the margin or more.

    Of m interventions, one that can err here leaves what its claims would have had, alpha / 2m. The other half of alpha belongs
    to the intervention that leads or, where none does, to all equally. With the claims of the others, that is alpha at most.

    Args:
        stated: the interventions that are tried.
        alpha: of the round.
        num_looks: planned.
    """
    lead, number = find_lead(stated), len(stated)
    shares = {one.arm: float(one.arm == lead) if lead else 1 / number for one in stated}
    return {arm: alpha * (1 / number + share) / (2 * num_looks) for arm, share in shares.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The recommended configuration.

    Attributes:
        arm: of the round, which has the configuration; "" if nothing helped.
        interventions: that the arm has, in the order of the round.
        reason: in words.
    """

    arm: str = ""
    interventions: tuple[str, ...] = ()
    reason: str = NOTHING_HELPED


def recommend(
    effects: Sequence[InterventionEffect],
    margin: float,
    study: str,
    named_target: str = "",
    *,
    rows: Sequence[ComparisonRow] = (),
    runs: Mapping[str, Sequence[str]] | None = None,
) -> Recommendation:
    """Return the best of interventions that were tried one at a time, or the best run of a factorial design.

    An intervention helps if its macro-F1 is BETTER, or if its target is BETTER and its macro-F1 certainly does not fall by the
    margin or more, over all runs too where it made more of them diverge. Among several it is the one with the best macro-F1,
    those that are BETTER there first. Where more seeds would decide, the reason has the command.

    The run of a factorial design has the interventions that help, by their effects over all runs. Of two whose interaction is
    WORSE, the one with the lower effect on macro-F1 is left out. Where a fraction of a design has no run of all that are left,
    it is the run that has the best of them, then the second best, and so on.

    Args:
        effects: of each intervention; in a factorial design, with and without the others.
        margin: share of macro-F1 that a target may cost.
        study: that the interventions were tried on.
        named_target: TRUE:PREDICTED of the target that the user named; "" for none.
        rows: of the A/B table of a factorial design, with the interactions.
        runs: interventions of each run of a factorial design, by its name; None for another design.
    """
    ranked = sorted((effect for effect in effects if _helps(effect)), key=_rank, reverse=True)
    if not ranked:
        target = ["--target", named_target] if named_target else []
        command = shlex.join(["study", "intervene", study, "--again", *target])
        return Recommendation(reason=_explain_nothing(effects, margin, command, is_factorial=runs is not None))
    if runs is not None:
        return _choose_run([effect.stated.arm for effect in ranked], rows, runs)
    best = ranked[0]
    where = "macro-F1"
    if best.macro_f1_verdict is not Verdict.BETTER:
        where = (
            f"its target, and macro-F1 does not fall by {100 * margin:.2g} pp (p {best.p_noninferior:.2g}, at most "
            f"{best.noninferior_level:.2g})"
        )
    name = best.stated.arm
    reason = f"Recommended: {best.stated.title} ({name}), BETTER on {where}."
    return Recommendation(arm=name, interventions=(name,), reason=reason)


def _choose_run(
    helpful: Sequence[str], rows: Sequence[ComparisonRow], runs: Mapping[str, Sequence[str]]
) -> Recommendation:
    """Return the run that has the interventions that help, which are given by name, the best one first."""
    harmful = {
        frozenset(row.treatment.split(INTERACTION_SIGN))
        for row in rows
        if INTERACTION_SIGN in row.treatment and row.verdict is Verdict.WORSE
    }
    kept: list[str] = []
    left_out: list[str] = []
    for name in helpful:
        against = [other for other in kept if frozenset((name, other)) in harmful]
        if against:
            left_out.append(f"{name} is left out, since its interaction with {against[0]} is WORSE")
        else:
            kept.append(name)
    trained = {run: names for run, names in runs.items() if names and set(names) <= set(kept)}
    run = max(trained, key=lambda run: [name in trained[run] for name in kept], default="")
    if not run:
        reason = f"{_list_names(kept)} helped, but no run of the design has them without the others."
        return Recommendation(reason=reason)
    missing = [name for name in kept if name not in trained[run]]
    if missing:
        left_out.append(f"no run of the design has {_list_names(missing)} with them")
    reason = f"Recommended: {_list_names(trained[run])} ({run}), by the effects over all runs."
    return Recommendation(
        arm=run,
        interventions=tuple(trained[run]),
        reason=" ".join([reason, *(f"{text[0].upper()}{text[1:]}." for text in left_out)]),
    )


def _explain_nothing(effects: Sequence[InterventionEffect], margin: float, command: str, *, is_factorial: bool) -> str:
    """Return why nothing is recommended: nothing helped, or targets are BETTER whose macro-F1 more seeds would decide."""
    reached = [effect for effect in effects if _reaches_target(effect) and effect.macro_f1_verdict is Verdict.UNDECIDED]
    if not reached:
        return NOTHING_HELPED
    names = [effect.stated.arm for effect in reached]
    num_seeds = max(max(effect.target.num_seeds, effect.num_seeds) for effect in reached if effect.target)
    words = [f"--only {name}" for name in names]
    strengths = [effect.stated.changes[STRENGTH] for effect in reached if STRENGTH in effect.stated.changes]
    words += [f"--strength {strength}" for strength in strengths[:1]]
    words += ["--design factorial"] if is_factorial and len(names) > 1 else []
    return (
        f"Nothing is recommended yet: {_list_names(names)} {'is' if len(names) == 1 else 'are'} BETTER on the target, but with "
        f"{num_seeds} seeds a loss of {100 * margin:.2g} pp of macro-F1 is possible. More seeds may decide it: "
        f"`{command} {' '.join(words)} --seeds {2 * num_seeds}`; with --dry-run it says how likely."
    )


def _reaches_target(effect: InterventionEffect) -> bool:
    return effect.target is not None and effect.target.verdict is Verdict.BETTER


def _list_names(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _rank(effect: InterventionEffect) -> tuple[bool, float]:
    assert effect.macro_f1 is not None
    return effect.macro_f1_verdict is Verdict.BETTER, effect.macro_f1.estimate


def _helps(effect: InterventionEffect) -> bool:
    return effect.macro_f1_verdict is Verdict.BETTER or (_reaches_target(effect) and effect.is_noninferior)
