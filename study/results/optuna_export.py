"""The search as Optuna studies, built from records, for Optuna's own plots, importances and dashboard."""

import math
import re
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, create_trial

from search_spaces.designs import Arm
from search_spaces.distributions import to_distribution
from search_spaces.errors import UserInputError, first_line
from search_spaces.space import SearchSpace
from study.open_study import OpenStudy
from study.scheduling.sampler import expect_experimental
from study.spec.setting_places import PROBE, TUNING, UNUSED
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord, TrialState

METRIC_NAME = "macro_f1"
DIVERGED_NOTE = "diverged"
MIN_TRIALS_FOR_IMPORTANCE = 2
_SECRET = re.compile(r"([?&](?:[^=&]*(?:pass|pwd|secret|token|key)[^=&]*|odbc_connect)=)[^&]*", re.IGNORECASE)

_STATES = {
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.PRUNED: optuna.trial.TrialState.PRUNED,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
}


def build_optuna_study(
    records: Sequence[TrialRecord],
    space: SearchSpace,
    storage: BaseStorage | None = None,
    study_name: str | None = None,
) -> optuna.Study:
    """Return an Optuna study (direction maximize) of finished search trials, in the order of their ids.

    A complete trial has its last macro-F1, a pruned one its last and all intermediate values. A failed one (diverged
    or crashed) is FAIL with its finite values. A record that is still RUNNING is left out, because Optuna would show it as
    running forever. A trial's number in Optuna may therefore differ from its id, which is its user attribute `trial_id`.

    Args:
        records: of the search stage, of one arm or of all.
        space: that was searched; in a space with the factor, the factor is a parameter like the others.
        storage: of the Optuna study; None for memory.
        study_name: name in Optuna; None lets Optuna choose one.

    Raises:
        UserInputError: naming the trial, if its hyperparameters do not lie in the space.
        DamagedFileError: naming the trial, if its start or end is not a time.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", storage=storage, study_name=study_name)
    with expect_experimental():
        study.set_metric_names([METRIC_NAME])
    study.add_trials([_freeze(r, space) for r in sorted(records, key=lambda r: r.trial_id) if r.state.is_finished])
    return study


def build_search_studies(study: OpenStudy, storage: BaseStorage | None = None) -> dict[str, optuna.Study]:
    """Return one Optuna study per arm, "<study>/<arm>", and where there are several arms "<study>" with all trials.

    The last has the factor as a categorical parameter. User attributes name the study, the space, the factor and the arm.

    Args:
        study: whose search is exported; running trials are left out.
        storage: of the Optuna studies; None for memory.
    """
    records, spec = study.book.of_stage("search"), study.spec
    studies = {}
    for name, arm in _name_studies(study).items():
        own = records if arm is None else [r for r in records if r.config.arm == arm.name]
        studies[name] = build_optuna_study(own, arm.space if arm else spec.search_space(), storage, name)
        origin = {"study": spec.name, "space": spec.search.space, "factor": spec.factor, "arm": arm.name if arm else ""}
        for key, value in origin.items():
            studies[name].set_user_attr(key, value)
    return studies


def _name_studies(study: OpenStudy) -> dict[str, Arm | None]:
    """Return the arm of each Optuna study by its name; None for the study of all arms."""
    arms = study.spec.arms()
    return {f"{study.name}/{arm.name}": arm for arm in arms} | ({study.name: None} if len(arms) > 1 else {})


def export_optuna(study: OpenStudy, url: str) -> list[str]:
    """Write the search's Optuna studies into the relational database at `url` and return their names.

    Args:
        study: whose search may still be running; running trials are left out.
        url: an SQLAlchemy URL, such as ``sqlite:///optuna.db``; optuna-dashboard takes the same.

    Raises:
        UserInputError: if the database cannot be opened, or already contains a study of one of the names.
    """
    try:
        storage = RDBStorage(url)
    except Exception as error:  # SQLAlchemy, its drivers and Optuna each raise errors of their own
        raise UserInputError(f"--optuna {hide_password(url)!r} cannot be opened: {first_line(error)}") from None
    try:
        taken = sorted(set(_name_studies(study)) & set(optuna.get_all_study_names(storage)))
        if taken:
            raise UserInputError(
                f"the database {hide_password(url)} already contains the study {taken[0]!r}; give another --optuna URL, or "
                "delete it with `optuna delete-study`"
            )
        return list(build_search_studies(study, storage))
    finally:
        storage.remove_session()
        storage.engine.dispose()


def hide_password(url: str) -> str:
    """Return a database URL with stars for its password, and for the passwords and keys in its query."""
    head, separator, rest = url.partition("://")
    rest = _SECRET.sub(r"\1***", rest)
    login, _, host = rest.rpartition("@")
    return f"{head}{separator}{login.partition(':')[0]}:***@{host}" if ":" in login else f"{head}{separator}{rest}"


def compute_importances(optuna_study: optuna.Study) -> tuple[dict[str, float] | None, tuple[str, ...]]:
    """Return each hyperparameter's importance (PED-ANOVA), and the warnings of Optuna's evaluator.

    The call is the same as in optuna-dashboard 0.21, so that both show the same numbers: evaluator with its defaults, target the
    negated value (PED-ANOVA assumes that low is good), equal shares where the evaluator returns none. It compares the best
    tenth of the complete trials with all of them, so it is imprecise below about 50 complete trials. Source:
    https://arxiv.org/abs/2304.10255, and https://arxiv.org/abs/2601.20800 for conditional parameters.

    Args:
        optuna_study: of one arm, or of all.

    Returns:
        The importances, the highest first, summing to 1, or None for too few complete trials; and the warnings as sentences.
    """
    trials = optuna_study.get_trials(deepcopy=False)
    if sum(t.state is optuna.trial.TrialState.COMPLETE for t in trials) < MIN_TRIALS_FOR_IMPORTANCE:
        return None, ()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importances = get_param_importances(optuna_study, target=negated_value, evaluator=PedAnovaImportanceEvaluator())
    if not importances:
        names = {n for t in trials if t.state is not optuna.trial.TrialState.FAIL for n in t.distributions}
        importances = {name: 1 / len(names) for name in names}
    # The evaluator iterates over a set of names, so equal importances come in arbitrary order.
    ordered = dict(sorted(importances.items(), key=lambda item: (-item[1], item[0])))
    # PED-ANOVA is experimental in Optuna before 5.
    notes = {
        str(w.message)
        for w in caught
        if "computes the importances of params to achieve low" not in str(w.message)
        and not issubclass(w.category, optuna.exceptions.ExperimentalWarning)
    }
    return ordered or None, tuple(sorted(notes))


def negated_value(trial: FrozenTrial) -> float:
    """Return PED-ANOVA's target for a study that maximizes: low is good."""
    return -float(trial.values[0])


def _freeze(record: TrialRecord, space: SearchSpace) -> FrozenTrial:
    hyperparameters = record.config.hyperparameters
    # Of an arm of probes they are fixed, whatever their ranges are.
    unused = UNUSED if record.config.get(TUNING, "") == PROBE else ()
    parameters = {p.name: p for p in space.parameters if p.name in hyperparameters and p.name not in unused}
    scores = {e.epoch: e.macro_f1 for e in record.epochs if e.macro_f1 is not None and math.isfinite(e.macro_f1)}
    state = _STATES[record.state]
    has_value = record.state in (TrialState.COMPLETE, TrialState.PRUNED)
    try:
        trial = create_trial(
            state=state,
            value=record.last_macro_f1 if has_value else None,
            params={name: hyperparameters[name] for name in parameters},
            distributions={name: to_distribution(parameter) for name, parameter in parameters.items()},
            user_attrs=_describe(record),
            intermediate_values=scores,
        )
    except ValueError as error:
        raise UserInputError(
            f"trial {record.trial_id} does not fit the space {space.name!r}: {first_line(error)}"
        ) from None
    trial.datetime_start = _naive_utc(record.started, record)
    trial.datetime_complete = _naive_utc(record.ended, record)
    return trial


def _describe(record: TrialRecord) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "trial_id": record.trial_id,
        "arm": record.config.arm,
        "seed": record.config.seed,
        "device_seconds": record.device_seconds,
    }
    if record.reason:
        attributes["reason"] = record.reason
    if record.diverged:
        attributes["note"] = DIVERGED_NOTE
    return attributes


def _naive_utc(text: str, record: TrialRecord) -> datetime:
    """Return an ISO 8601 time in Optuna's form: UTC, without a zone."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
    except ValueError:
        raise DamagedFileError(
            f"the record of trial {record.trial_id} is damaged: it has ended, but {text!r} is not a time"
        ) from None
