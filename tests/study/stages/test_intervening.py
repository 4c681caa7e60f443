"""`study intervene`: halves, statements, rounds, the comparison, and what the reports show. Nothing is trained."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tomli_w

from analysis.comparison.values import Verdict
from analysis.interventions.values import InterventionFindings, Outcome
from search_spaces.errors import UserInputError
from search_spaces.space import SearchSpace
from search_spaces.space_tables import read_parameters
from study.confirmation.evidence import load_evidence, require_plan
from study.confirmation.plan import confirmation_seeds, read_plan
from study.confirmation.stated_interventions import read_stated, restrict
from study.inputs.preparation import Prepared, check_models, prepare
from study.interventions import derived_spec
from study.interventions.derived_spec import make_recommended_spec
from study.interventions.diagnosing import name_group
from study.interventions.forecast import forecast_arms, forecast_cost
from study.interventions.stating import propose_interventions
from study.open_study import OpenStudy, load_study, next_round
from study.results.stored_findings import load_findings, load_rounds
from study.spec.reading import parse_spec
from study.spec.spaces import widen_space
from study.spec.study_spec import StudySpec
from study.stages import stage
from study.state import paths
from study.state.record_book import MemoryBook
from study.state.sealed_files import write_sealed_json
from tests.analysis.interventions.test_registry import make_diagnosis
from tests.faults.payloads import place_payloads
from tests.faults.storage import damage_files
from tests.study.command_line import Outcome as CommandOutcome
from tests.study.command_line import run_cli
from tests.study.interventions.intervened import CONFUSED, SPEC, FakeCluster, Killed, make_parent, store_predictions
from tests.study.searched import analyze_here
from trainables.storage.store import Store

ONLY = ("--only", "weighted_loss", "--only", "cutmix")
FIRST = "parent-intervene-1"


@dataclass(frozen=True)
class Finished:
    """A storage root with an analyzed study and its first round, the cluster, and what the round printed."""

    root: Path
    cluster: FakeCluster
    outcome: CommandOutcome

    def copy(self, folder: Path, *, with_round: bool) -> Path:
        """Return a copy of the study beside others, with its round or without."""
        shutil.copytree(self.root / "parent", folder / "parent")
        if with_round:
            shutil.copytree(self.root / FIRST, folder / FIRST)
        return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        root = tmp_path_factory.mktemp("storage")
        _, cluster = make_parent(root, monkeypatch)
        yield Finished(root, cluster, intervene(root, *ONLY))


def intervene(root: Path, *options: str) -> CommandOutcome:
    return run_cli("intervene", root / "parent", *options, width=160)


def load_parent(root: Path) -> OpenStudy:
    return load_study(Store(root / "parent"))


def load_round(root: Path, number: int = 1) -> OpenStudy:
    return load_study(Store(root / f"parent-intervene-{number}"))


def load_found(root: Path, number: int = 1) -> InterventionFindings:
    found = load_findings(load_round(root, number)).interventions
    assert found is not None
    return found


def test_damage_of_what_was_stated_is_refused_or_reported_and_no_pickle_in_its_place_is_executed(
    finished: Finished, tmp_path: Path
) -> None:
    root = str(finished.copy(tmp_path / "storage", with_round=True) / FIRST)
    damaged = damage_files(tmp_path, 30, root, only=paths.INTERVENTIONS)
    assert damaged.is_met, damaged
    placed = place_payloads(tmp_path, root, only=paths.INTERVENTIONS)
    assert placed.is_met, placed
    assert placed.injected == 6


def test_an_intervention_that_helps_its_target_is_better_and_recommended(finished: Finished) -> None:
    assert finished.outcome.status == 0, finished.outcome
    found, names = load_found(finished.root), load_findings(load_parent(finished.root)).class_names
    weighted, cutmix = found.effects
    assert weighted.stated.target.cells == ((names[CONFUSED[0]], names[CONFUSED[1]]),)
    assert weighted.target is not None
    assert weighted.target.verdict is Verdict.BETTER
    assert weighted.target.effect.estimate == pytest.approx(-0.3, abs=0.12)
    assert weighted.macro_f1_verdict is Verdict.BETTER
    assert weighted.outcome is Outcome.NONE
    assert cutmix.target is not None
    assert cutmix.target.verdict is not Verdict.BETTER
    assert found.recommended == "weighted_loss"
    reads = len(list((finished.root / FIRST / paths.TEST_READS).iterdir()))
    assert found.num_test_reads == 1 + reads


def test_reports_table_and_files_show_the_chain(finished: Finished) -> None:
    study, found = load_round(finished.root), load_found(finished.root)
    names = load_findings(study).class_names
    symptom = f"{names[CONFUSED[0]]} is predicted as {names[CONFUSED[1]]}"
    for name in (paths.REPORT_HTML, paths.REPORT_MARKDOWN, paths.INTERVENTIONS_CSV, paths.FINDINGS):
        report = study.store.read_text(name)
        assert symptom in report, name
        assert "BETTER" in report, name
        assert "does not fall" in report, name
    assert "Predicted and measured" in study.store.read_text(paths.REPORT_MARKDOWN)
    assert (finished.root / FIRST / paths.FIGURES / "interventions.png").exists()
    assert found.conclusion in finished.outcome.output
    assert symptom in " ".join(finished.outcome.output.split())


def test_the_report_of_the_parent_says_what_was_tried_and_what_came_of_it(finished: Finished) -> None:
    parent, found = load_parent(finished.root), load_found(finished.root)
    for name in (paths.REPORT_HTML, paths.REPORT_MARKDOWN):
        report = " ".join(parent.store.read_text(name).replace("\\", "").split())
        for text in ("Interventions that were tried", FIRST, "weighted_loss", found.conclusion):
            assert text in report, (name, text)
    for name in (paths.REPORT_HTML, paths.REPORT_MARKDOWN):
        assert "Interventions that were tried" not in load_round(finished.root).store.read_text(name)


def test_the_recommendation_is_a_spec_and_weights(finished: Finished) -> None:
    recommended = parse_spec((finished.root / FIRST / paths.RECOMMENDED).read_text(), "recommended.toml")
    assert list(recommended.configurations) == ["control", "weighted_loss"]
    assert recommended.intervene is None
    assert recommended.confirm.alpha == 0.05
    assert recommended.seed != load_round(finished.root).spec.seed
    assert (finished.root / FIRST / paths.RECOMMENDED_MODEL / "weighted_loss" / "model.safetensors").exists()


def test_the_control_is_the_winner_with_fresh_seeds_on_the_same_images(finished: Finished) -> None:
    study, parent = load_round(finished.root), load_parent(finished.root)
    plan, earlier = read_plan(study.store), read_plan(parent.store)
    assert plan is not None
    assert earlier is not None
    winner = parent.book.get("search", earlier.chosen["all"]).config
    control = study.book.get("search", plan.chosen["control"]).config
    assert {name: control[name] for name in winner.hyperparameters} == winner.hyperparameters
    assert {name: control[name] for name in winner.fixed} == winner.fixed
    treated = study.book.get("search", plan.chosen["weighted_loss"]).config
    changed = {
        name for name in {*control.hyperparameters, *treated.hyperparameters} if control.get(name, "") != treated[name]
    }
    assert changed == {"class_weighting", "class_weight_strength", "weighted_group"}
    assert not set(plan.seeds) & {record.config.seed for record in parent.book}
    assert plan.alpha == pytest.approx(0.05 / 2 / 2), "the first round has half of alpha, and macro-F1 half of that"


def test_rows_are_judged_by_the_other_half_and_a_seen_one_by_all(finished: Finished) -> None:
    study = load_round(finished.root)
    plan, read = require_plan(study), read_stated(study.store, study.spec)
    assert read is not None
    stated = read.stated
    assert not read.is_changed
    assert stated.num_choosing + stated.num_judging == 1258
    assert abs(stated.num_choosing - 629) < 80
    assert {row.num_images for row in load_findings(study).rows} == {
        1258 if stated.of_arm("cutmix").is_seen else stated.num_judging
    }
    evidence = load_evidence(study, plan)
    for is_seen, number in ((False, stated.num_judging), (True, 1258)):
        one = stated.of_arm("cutmix")
        changed = type(stated)(
            **{**_fields(stated), "interventions": (type(one)(**{**_fields(one), "is_seen": is_seen}),)}
        )
        row = next(row for row in plan.rows if row.treatment == "cutmix")
        judged = restrict(evidence, changed, row)["control"].predictions[0]
        assert len(judged.labels) == number


def _fields(value: object) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}  # type: ignore[attr-defined]


def test_a_killed_round_is_continued_to_the_same_table(finished: Finished, tmp_path: Path) -> None:
    root = finished.copy(tmp_path, with_round=False)
    finished.cluster.kill_after = 7
    with pytest.raises(Killed):
        intervene(root, *ONLY)
    finished.cluster.kill_after = None
    stated = (root / FIRST / paths.INTERVENTIONS).read_bytes()
    refused = intervene(root, *ONLY)
    assert refused.status == 2
    assert "has not ended" in refused.errors
    outcome = intervene(root)
    assert outcome.status == 0, outcome
    assert (root / FIRST / paths.INTERVENTIONS).read_bytes() == stated
    tables = [(place / FIRST / paths.INTERVENTIONS_CSV).read_text() for place in (root, finished.root)]
    assert tables[0] == tables[1]


def test_an_intervention_that_cannot_be_trained_is_left_out_and_the_others_are_compared(
    finished: Finished, tmp_path: Path
) -> None:
    root = finished.copy(tmp_path, with_round=False)
    finished.cluster.diverging = ("cutmix",)
    outcome = intervene(root, *ONLY)
    assert outcome.status == 0, outcome
    found = load_found(root)
    assert [effect.stated.arm for effect in found.effects] == ["weighted_loss"]
    assert found.recommended == "weighted_loss"
    assert "cutmix is left out, since it could not be trained (macro_f1 was not a finite number" in found.conclusion
    finished.cluster.diverging = ("weighted_loss", "cutmix")
    nothing = intervene(root, *ONLY, "--again")
    assert nothing.status == 2
    assert "no intervention of the round could be trained" in nothing.errors
    refused = intervene(root)
    assert refused.status == 2
    assert "parent-intervene-2 cannot go on: no intervention of the round could be trained" in refused.errors
    finished.cluster.diverging = ()
    assert intervene(root, "--only", "cutmix", "--again").status == 0


def test_a_round_that_ended_elsewhere_is_completed_and_the_parent_says_so(finished: Finished, tmp_path: Path) -> None:
    root = finished.copy(tmp_path, with_round=True)
    for name in (paths.REPORT_MARKDOWN, paths.REPORT_HTML):
        (root / "parent" / name).unlink()
    for name in (paths.REPORT_HTML, paths.RECOMMENDED):
        (root / FIRST / name).unlink()
    outcome = intervene(root)
    assert outcome.status == 0, outcome
    assert (root / FIRST / paths.REPORT_HTML).exists()
    assert (root / FIRST / paths.RECOMMENDED).exists()
    assert FIRST in (root / "parent" / paths.REPORT_MARKDOWN).read_text().replace("\\", "")


def test_rounds_of_a_deleted_study_are_not_those_of_a_new_one(finished: Finished, tmp_path: Path) -> None:
    root = finished.copy(tmp_path, with_round=True)
    shutil.rmtree(root / "parent")
    (root / "spec.toml").write_text(tomli_w.dumps(SPEC))
    outcome = run_cli("run", root / "spec.toml", "--storage", root, width=200)
    assert outcome.status == 2
    assert f"{root / FIRST}: rounds of interventions of an earlier study 'parent'" in outcome.errors


def test_a_confusion_that_is_not_found_is_asked_for() -> None:
    diagnosis = make_diagnosis(cells=())
    with pytest.raises(UserInputError, match=r"cutmix: it is to reduce a confusion, but none is found; name one"):
        propose_interventions(diagnosis, ["cutmix"])


def test_a_changed_prediction_is_shown_as_changed_in_every_output(finished: Finished, tmp_path: Path) -> None:
    root = finished.copy(tmp_path, with_round=True)
    store = Store(root / FIRST)
    content = json.loads(store.read_text(paths.INTERVENTIONS))
    content.pop("checksum")
    content["interventions"][0]["prediction"]["basis"] = "known all along"
    write_sealed_json(store, paths.INTERVENTIONS, content)
    outcome = run_cli("resume", root / FIRST, width=160)
    assert outcome.status == 0, outcome
    assert "STATEMENTS CHANGED" in outcome.output
    assert "PLAN CHANGED" in outcome.output
    assert load_found(root).is_changed
    warnings = load_findings(load_round(root)).warnings
    assert any("changed after they were written" in warning for warning in warnings)
    for name in (paths.REPORT_HTML, paths.REPORT_MARKDOWN, paths.COMPARISON_MARKDOWN, paths.COMPARISON_LATEX):
        assert "changed after" in store.read_text(name), name
    for name in (paths.INTERVENTIONS_CSV, paths.COMPARISON_CSV):
        assert "True" in store.read_text(name), name
    assert "statements_changed" in store.read_text(paths.INTERVENTIONS_CSV)


def test_a_finished_round_is_shown_and_another_one_has_less_alpha_and_other_seeds(
    finished: Finished, tmp_path: Path
) -> None:
    root = finished.copy(tmp_path, with_round=True)
    trained = finished.cluster.trained
    shown = intervene(root)
    assert shown.status == 0
    assert "--again begins another one" in shown.output
    as_json = json.loads(intervene(root, "--json").output)
    assert as_json["recommended"] == "weighted_loss"
    refused = intervene(root, "--only", "weighted_loss")
    assert refused.status == 2
    assert "--again" in refused.errors
    assert finished.cluster.trained == trained
    outcome = intervene(root, "--only", "cutmix", "--again")
    assert outcome.status == 0, outcome
    first, second = load_round(root).spec, load_round(root, 2).spec
    # Half of the first round's, and of that the share of one of the two interventions that were tried on these images so far.
    assert second.confirm.alpha == pytest.approx(first.confirm.alpha / 2 / 2)
    assert not set(confirmation_seeds(first)) & set(confirmation_seeds(second))
    found = load_found(root, 2)
    assert found.recommended == ""
    assert "Nothing helped" in outcome.output
    assert not (root / "parent-intervene-2" / paths.RECOMMENDED).exists()
    assert found.num_test_reads > load_found(root).num_test_reads


def test_a_dry_run_needs_none_of_the_devices_of_its_trials(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UserInputError("one trial needs 1 GPU")

    monkeypatch.setattr(stage, "check_cluster", refuse)
    root = finished.copy(tmp_path, with_round=False)
    dry = intervene(root, "--only", "weighted_loss", "--dry-run")
    assert dry.status == 0, dry
    assert "dry run, nothing written" in dry.output
    shown = " ".join(dry.output.split())
    assert re.search(
        r"recommended if macro-F1 certainly falls by less than 1 pp: where it stays .* 5 seeds show", shown
    )
    # One intervention has the whole alpha of the round; the forecast is that of its level and its looks.
    assert re.search(r"with a chance of \d+ % for each \(\d+ seeds for 80 %\)", shown)
    refused = intervene(root, "--only", "weighted_loss", "--local")
    assert (refused.status, refused.errors.strip()) == (2, "error: one trial needs 1 GPU")


def test_a_target_that_the_user_names_counts_as_seen(finished: Finished, tmp_path: Path) -> None:
    root = finished.copy(tmp_path, with_round=False)
    names = load_findings(load_parent(root)).class_names
    outcome = intervene(root, "--only", "weighted_loss", "--target", f"{names[8]}:{names[3]}", "--dry-run", "--json")
    assert outcome.status == 0, outcome
    (stated,) = json.loads(outcome.output)["interventions"]
    assert stated["is_seen"]
    assert stated["target"]["cells"] == [[names[8], names[3]]]
    assert stated["num_target_images"] > 100
    assert not (root / FIRST).exists()


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (("--target", "three"), ("TRUE:PREDICTED",)),
        (("--target", "thre:eight"), ("no class 'thre'",)),
        (
            ("--only", "cutmixx", "--strength", "-1", "--seeds", "0", "--device-seconds", "0", "--target", "three"),
            (
                "no intervention 'cutmixx'",
                "did you mean 'cutmix'",
                "--strength is -1, but 0 < strength <= 1",
                "--seeds is 0",
                "--device-seconds is 0",
                "TRUE:PREDICTED",
            ),
        ),
        (("--only", "weighted_loss", "--strength", "0"), ("--strength is 0, but 0 < strength <= 1",)),
        (("--only", "cutmix", "--strength", "0.5"), ("weighted_loss, which is not tried",)),
        ((*ONLY, "--device-seconds", "30"), ("would fit: --only weighted_loss", "device-seconds")),
        ((*ONLY, "--device-seconds", "1"), ("none of them fits",)),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(
    finished: Finished, tmp_path: Path, options: tuple[str, ...], messages: tuple[str, ...]
) -> None:
    root = finished.copy(tmp_path, with_round=False)
    outcome = intervene(root, *options)
    assert outcome.status == 2, outcome
    for message in messages:
        assert message in outcome.errors
    assert not (root / FIRST).exists()


def test_a_study_without_findings_is_told_to_analyze_first(finished: Finished, tmp_path: Path) -> None:
    root = finished.copy(tmp_path, with_round=False)
    (root / "parent" / paths.FINDINGS).unlink()
    outcome = intervene(root)
    assert outcome.status == 2
    assert "study analyze" in outcome.errors


def test_nothing_found_ends_with_status_0(finished: Finished, tmp_path: Path) -> None:
    root = finished.copy(tmp_path, with_round=False)
    study = load_study(Store(root / "parent"))
    driven = OpenStudy(store=Store(root / "parent"), spec=study.spec, book=type(study.book)(Store(root / "parent")))  # type: ignore[arg-type]
    prepared = prepare(study.spec)
    runs = [driven.book.save(run.updated(predictions=())) for run in driven.book.of_stage("confirmation")]
    store_predictions(driven.book, runs, prepared, {"all": 0.0})
    analyze_here(driven, prepared.image_set)
    outcome = intervene(root)
    assert outcome.status == 0, outcome
    assert "nothing found" in outcome.output
    assert not (root / FIRST).exists()


def test_a_study_that_goes_on_to_its_interventions_tries_all_that_a_confusion_asks_for(
    finished: Finished, tmp_path: Path
) -> None:
    (tmp_path / "spec.toml").write_text(tomli_w.dumps(SPEC))
    outcome = run_cli("run", tmp_path / "spec.toml", "--storage", tmp_path, "--intervene", width=160)
    assert outcome.status == 0, outcome
    assert "next: study intervene" in outcome.output
    arms = [effect.stated.arm for effect in load_found(tmp_path).effects]
    assert arms == ["weighted_loss", "hard_examples", "cutmix", "other_backbone", "other_interpolation"]
    assert load_round(tmp_path).spec.confirm.intervals == "moderated"
    assert {row.intervals for row in load_findings(load_round(tmp_path)).rows} == {"moderated"}
    assert load_found(tmp_path).has_moderated_rows
    recommended = (tmp_path / FIRST / paths.RECOMMENDED).read_text()
    assert parse_spec(recommended, "recommended.toml").confirm.intervals == "planned"
    left_out = {one.name: one.reason for one in load_found(tmp_path).stated.not_tried}
    assert left_out == {
        **dict.fromkeys(
            ["head_ring_swaps", "background_swap", "color_jitter", "leave_out_doubtful"], "no finding asks for it"
        ),
        "head_groups": "the images have no groups, fewer than two images in a group on average, or one group alone in a class",
        "head_balanced": "the classes have about equally many images, or one has too few in the split search",
    }
    report = load_round(tmp_path).store.read_text(paths.REPORT_MARKDOWN).replace("\\", "")
    assert "background_swap, since no finding asks for it" in report
    hard = load_found(tmp_path).effects[1].stated
    assert "could not be measured" in hard.prediction.basis, "images of 8 pixels are too small to remove cues from"
    again = intervene(finished.root, "--only", "weighted_loss", "--dry-run")
    assert "refuted if" in again.output


def test_what_the_control_has_already_is_not_tried_and_refuses_nothing() -> None:
    """A winner whose configuration has the settings of an intervention, and images that are not resized."""
    diagnosis = make_diagnosis(native_size=64, backbones=())
    weighted = next(p.changes for p in propose_interventions(diagnosis)[0] if p.intervention.name == "weighted_loss")
    diagnosis = replace(diagnosis, configuration={**diagnosis.configuration, **weighted})
    proposals, left_out = propose_interventions(diagnosis)
    assert [proposal.intervention.name for proposal in proposals] == ["hard_examples", "cutmix"]
    assert left_out["weighted_loss"] == "the control has these settings already"
    assert "none is resized" in left_out["other_interpolation"]
    assert "no other backbone" in left_out["other_backbone"]
    assert left_out["background_swap"] == "no finding asks for it"
    with pytest.raises(UserInputError) as refused:
        propose_interventions(diagnosis, ["weighted_loss", "other_interpolation"])
    assert "weighted_loss: the control has these settings already" in str(refused.value)
    assert "none is resized" in str(refused.value)


def test_more_seeds_are_taken_and_priced(finished: Finished, tmp_path: Path) -> None:
    root = finished.copy(tmp_path, with_round=True)
    short = intervene(root, "--only", "cutmix", "--again", "--seeds", "2", "--device-seconds", "1")
    assert (short.status, "none of them fits" in short.errors) == (2, True), short
    refused = intervene(root, "--seeds", "3")
    assert "add --again" in refused.errors, refused
    outcome = intervene(root, "--only", "cutmix", "--again", "--seeds", "6")
    assert outcome.status == 0, outcome
    assert "14 trials" in outcome.output, "one and six trials of the control and of the intervention"
    study = load_round(root, 2)
    assert study.spec.confirm.looks == [6]
    assert {row.num_seeds for row in load_findings(study).rows} == {6}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--only", "cutmix"], ["add --intervene, or remove --only"]),
        (["--intervene", "--only", "cutmix", "--only", "cutmx"], ["there is no intervention 'cutmx'"]),
        (["--only", "cutmx", "--only", "swop"], ["'cutmx'", "'swop'", "add --intervene"]),
    ],
)
def test_a_run_with_names_that_it_cannot_go_on_to_is_refused_before_it_starts(
    tmp_path: Path, options: list[str], words: list[str]
) -> None:
    (tmp_path / "spec.toml").write_text(tomli_w.dumps(SPEC))
    outcome = run_cli("run", tmp_path / "spec.toml", "--storage", tmp_path, *options)
    assert outcome.status == 2
    assert all(word in " ".join(outcome.errors.split()) for word in words), outcome
    assert not (tmp_path / "parent").exists()


def test_a_space_and_groups_of_ones_own_take_what_interventions_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group is used by the training, so that the round has it beside that of the confused classes, which it shares."""
    space = {
        "max_lr": {"kind": "log", "low": 1e-4, "high": 1e-2},
        "cutmix_probability": {"kind": "float", "low": 0.1, "high": 0.2},
    }
    fixed = {"backbone": "resnet18", "class_weighting": "none", "interpolation": "bicubic", "backbone_lr_ratio": 0.5}
    fixed |= {"weight_decay": 0.01, "label_smoothing": 0.0}
    search = {key: value for key, value in SPEC["search"].items() if key != "ranges"}
    make_parent(
        tmp_path,
        monkeypatch,
        search={**search, "space": space, "fixed": fixed},
        train={**SPEC["train"], "weighted_group": "mine"},
        analyze={"num_panels": 0, "num_audit_images": 0, "groups": {"mine": ["3", "4"], "rest": ["5"]}},
    )
    outcome = intervene(tmp_path, *ONLY)
    assert outcome.status == 0, outcome
    assert set(load_round(tmp_path).spec.analyze.groups) == {"mine", "confused"}
    assert load_round(tmp_path).spec.configurations["cutmix"]["cutmix_probability"] == 0.0
    assert load_found(tmp_path).recommended == "weighted_loss"
    parse_spec((tmp_path / FIRST / paths.RECOMMENDED).read_text(), "recommended.toml").arms()


def test_a_space_is_widened_with_the_conditions_and_below_a_logarithmic_range() -> None:
    tables = {
        "class_weighting": {"kind": "categorical", "choices": ["none", "inverse_frequency"]},
        "class_weight_strength": {
            "kind": "float",
            "low": 0.0,
            "high": 0.5,
            "when": {"class_weighting": ["inverse_frequency"]},
        },
        "cutmix_probability": {"kind": "log", "low": 0.01, "high": 1.0},
    }
    control = {"class_weighting": "none", "cutmix_probability": 0.1}
    weighted = {"class_weighting": "group", "class_weight_strength": 1.0, "cutmix_probability": 0.0}
    parameters, problems = read_parameters(widen_space(tables, [control, weighted]))
    assert problems == []
    space = SearchSpace(name="own", parameters=parameters)
    for configuration in (control, weighted):
        assert space.check(configuration) == configuration


def test_one_intervention_that_does_not_fit_leaves_the_others(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = finished.copy(tmp_path, with_round=False)

    def check(spec: StudySpec, prepared: Prepared) -> None:
        if "cutmix" in spec.configurations:
            raise UserInputError("no weights of this")
        check_models(spec, prepared)

    monkeypatch.setattr(derived_spec, "check_models", check)
    outcome = intervene(root, "--dry-run", "--json")
    assert outcome.status == 0, outcome
    stated = json.loads(outcome.output)
    assert "weighted_loss" in [one["arm"] for one in stated["interventions"]]
    assert {"name": "cutmix", "reason": "no weights of this"} in stated["not_tried"]
    refused = intervene(root, *ONLY)
    assert refused.status == 2
    assert "- cutmix: no weights of this" in refused.errors
    assert not (root / FIRST).exists()


def test_a_recommendation_that_leaves_images_out_keeps_the_seed_whose_images_they_are(finished: Finished) -> None:
    study, found = load_round(finished.root), load_found(finished.root)
    configurations = {name: {**values, "leave_out": "3 5"} for name, values in study.spec.configurations.items()}
    spec = study.spec.model_copy(update={"configurations": configurations})
    text = make_recommended_spec(replace(study, spec=spec), found)
    assert text.startswith("# leave_out names training images")
    recommended = parse_spec(text, "recommended.toml")
    assert recommended.seed == study.spec.seed
    earlier = {*confirmation_seeds(study.spec), *confirmation_seeds(load_parent(finished.root).spec)}
    assert not earlier & set(confirmation_seeds(recommended))


def test_the_cost_of_a_round_is_that_of_the_winner_and_of_what_is_changed(finished: Finished) -> None:
    parent = load_parent(finished.root)
    plan = read_plan(parent.store)
    assert plan is not None
    winner = parent.book.get("search", plan.chosen["all"])
    book = MemoryBook()
    for record in parent.book:
        cost = 5.0 * len(record.epochs) if record in parent.book.with_configuration_of(winner, "confirmation") else 50.0
        book.save(record.updated(device_seconds=cost))
    costly = book.get("search", winner.trial_id)
    other = costly.updated(
        config=replace(costly.config, hyperparameters={**costly.config.hyperparameters, "max_lr": 0.5})
    )
    book.save(other.updated(stage="confirmation", trial_id="00099", device_seconds=9e9))
    study = replace(parent, book=book)
    proposal = propose_interventions(make_diagnosis(), ["cutmix"])[0][0]
    forecast = forecast_cost(study, winner, [proposal], (3,))
    assert forecast.first_seconds == pytest.approx(2 * 4 * 2 * 5.0)
    longer = replace(proposal, changes={"max_epochs": 4})
    assert forecast_cost(study, winner, [longer], (3,)).first_seconds == pytest.approx((1 + 2) * 4 * 2 * 5.0)
    head = replace(proposal, changes={"head_refit": "ring_swaps"})
    assert forecast_cost(study, winner, [head], (3,)).first_seconds == pytest.approx((1 + 1 / 2) * 4 * 2 * 5.0)
    assert forecast_arms(study, winner, [head]) == {"cutmix": pytest.approx(5.0)}
    both = forecast_cost(study, winner, [replace(head, changes={"head_refit": "ring_swaps", "max_lr": 0.1})], (3,))
    assert both.first_seconds == pytest.approx(2 * 4 * 2 * 5.0), "another network is trained"


def test_the_rounds_are_found_from_within_the_folder_of_the_study(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(load_rounds(load_parent(finished.root)))
    assert expected
    monkeypatch.chdir(finished.root / "parent")
    study = load_study(Store("."))
    assert list(load_rounds(study)) == expected
    assert Path(next_round(study)[1].address) == finished.root / f"parent-intervene-{1 + len(expected)}"


@pytest.mark.parametrize(
    ("groups", "name"),
    [({}, "confused"), ({"confused": ["a", "b"]}, "confused_2"), ({"confused": ["c", "b"]}, "confused")],
)
def test_the_group_of_the_confused_classes_does_not_take_the_name_of_another(
    groups: dict[str, list[str]], name: str
) -> None:
    """The winner may use the group of a round before; it would be trained with other classes."""
    assert name_group(("b", "c"), groups) == name
