"""The whole chain on planted scenes: a study finds a symptom, tries what it asks for, and compares; the truth is known."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w

from analysis.comparison.values import Verdict
from analysis.interventions.effects import judge_prediction
from analysis.interventions.intervention import Recalibration
from analysis.interventions.recommendation import recommend, share_noninferior_levels
from analysis.interventions.values import InterventionEffect, StatedIntervention
from benchmarks.validation.planted_models import FIRST_WORLD
from study.open_study import list_rounds, load_study
from study.results.stored_findings import load_findings
from study.spec.reading import validate_spec
from trainables.storage.store import Store

NAME = "loop"
PAIR = ["bar", "crescent"]
NOISE_RATE = 0.3
NUM_TRAINING, NUM_TEST = 1200, 2000
SEEDS = 4
MARGIN = 0.02
SMALLEST = "timm:test_resnet"
# Object cues of all worlds; the other cues are random.
CUES = MappingProxyType({"shape": 1.0, "texture": 0.6, "color": 0.0, "background": 0.0})
NO_REASON = "no finding asks for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopWorld:
    """A kind of scenes, and the interventions that are tried on it.

    Attributes:
        kind: "shared texture": two classes have one texture, and few training images show one of them; "shortcut": the frame
            shows the class of nine training images in ten; "label noise": three in ten images of two classes have the other's
            label.
        num_seeds: of the study, and of the control and each intervention.
    """

    kind: str
    num_seeds: int = SEEDS

    @property
    def interventions(self) -> tuple[str, ...]:
        """Names of the interventions that are tried."""
        return ("background_swap",) if self.kind == "shortcut" else ("weighted_loss", "hard_examples")

    @property
    def recipe(self) -> tuple[str, float, int]:
        """Backbone, maximum learning rate, and epochs of the configuration that wins.

        The smallest network of timm learns these scenes in seconds. Where two classes share a texture it learns them too well for
        an effect that four seeds would show, and ResNet18 takes its place.
        """
        return ("resnet18", 0.02, 5) if self.kind == "shared texture" else (SMALLEST, 0.05, 10)

    def describe(self) -> dict[str, Any]:
        """Return the options of the planted scenes."""
        options: dict[str, Any] = {"noise_std": 8.0, "num_distractors": 0, "cue_correlation": dict(CUES)}
        test_set: dict[str, Any] = {"num_images": NUM_TEST, "class_frequencies": {}}
        if self.kind == "shared texture":
            options["exchanges"] = [{"cue": "texture", "pairs": [PAIR], "rate": 0.5}]
            options["class_frequencies"] = {PAIR[0]: 0.25}
        elif self.kind == "shortcut":
            options["shortcuts"] = {"frame": 0.9}
            test_set["correlation"] = {"frame": 0.3}
        else:
            # The texture is random in these two classes, so that the shape alone says what the image shows.
            options["class_correlation"] = {"texture": dict.fromkeys(PAIR, 0.0)}
            options["exchanges"] = [{"cue": "shape", "pairs": [PAIR], "rate": NOISE_RATE}]
        return options | {"test_set": test_set}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOutcome:
    """The interventions of one world; none where nothing was found.

    Attributes:
        effects: in the order in which they were tried.
        alpha: of the round.
    """

    effects: tuple[InterventionEffect, ...] = ()
    alpha: float = 0.0

    @property
    def asked(self) -> tuple[InterventionEffect, ...]:
        """Those that a finding asks for."""
        return tuple(effect for effect in self.effects if effect.stated.symptom != NO_REASON)

    @property
    def is_claimed(self) -> bool:
        """Whether an intervention that a finding asks for is BETTER on its target."""
        return any(effect.target is not None and effect.target.verdict is Verdict.BETTER for effect in self.asked)

    def recalibrate(self, known: Mapping[str, Recalibration]) -> "LoopOutcome":
        """Return the outcome with predictions that are recalibrated anew, what became of them, and the levels that follow."""
        stated = [_recalibrate(effect.stated, known.get(effect.stated.arm)) for effect in self.effects]
        levels = share_noninferior_levels(stated, self.alpha)
        effects = [
            replace(
                effect,
                stated=one,
                outcome=judge_prediction(one.prediction, effect.target),
                noninferior_level=levels[one.arm],
            )
            for effect, one in zip(self.effects, stated, strict=True)
        ]
        return replace(self, effects=tuple(effects))

    def recommend(self) -> str:
        """Return the recommended arm; "" for none."""
        return recommend(self.effects, MARGIN, NAME).arm


def _recalibrate(stated: StatedIntervention, known: Recalibration | None) -> StatedIntervention:
    before = stated.prediction.before
    if before is None:
        return stated
    return replace(stated, prediction=replace(stated.prediction, effect=known.apply(before) if known else before))


def run_loop(world: LoopWorld, seed: int) -> LoopOutcome:
    """Run a study of the world and a round of interventions by the command line, in one process."""
    with tempfile.TemporaryDirectory(prefix="loop-") as folder:
        spec = Path(folder) / "spec.toml"
        spec.write_text(tomli_w.dumps(make_spec(world, seed)))
        only = [word for name in world.interventions for word in ("--only", name)]
        command = [
            Path(sys.executable).parent / "study",
            "run",
            spec,
            "--storage",
            folder,
            "--local",
            "--intervene",
            *only,
        ]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{world} with seed {seed} failed:\n{done.stderr}{done.stdout}")
        return _read_outcome(Path(folder) / NAME)


def make_spec(world: LoopWorld, seed: int) -> Mapping[str, Any]:
    """Return the spec of a study on the world's scenes: the recipe, against one epoch of the smallest network, which loses."""
    seed += FIRST_WORLD
    backbone, max_lr, epochs = world.recipe
    base = {
        "backbone": backbone,
        "backbone_lr_ratio": 1.0,
        "cutmix_probability": 0.0,
        "class_weighting": "none",
        "interpolation": "bicubic",
        "weight_decay": 1e-4,
        "label_smoothing": 0.0,
    }
    data = {
        "name": NAME,
        "seed": seed,
        "data": {
            "source": "planted",
            "num_images": NUM_TRAINING,
            "search_fraction": 0.12,
            "confirm_fraction": 0.1,
            "options": world.describe(),
        },
        "model": {"weights": "none"},
        "train": {"image_size": 32, "batch_size": 32, "rotation_degrees": 0.0, "brightness_fraction": 0.0},
        "search": {"max_epochs": epochs},
        "configurations": {
            "short": base | {"backbone": SMALLEST, "max_lr": max_lr / 4, "max_epochs": 1},
            "full": base | {"max_lr": max_lr},
        },
        "confirm": {"top_k": 1, "looks": [world.num_seeds], "margin": MARGIN},
        "analyze": {"num_panels": 0, "num_audit_images": 400},
        "resources": {"cpu": 1, "max_concurrent": 1},
    }
    validate_spec(data, where=world.kind)
    return data


def _read_outcome(root: Path) -> LoopOutcome:
    rounds = list_rounds(load_study(Store(str(root))))
    if not rounds:
        return LoopOutcome()
    found = load_findings(load_study(rounds[-1])).interventions
    assert found is not None
    return LoopOutcome(effects=found.effects, alpha=found.alpha)
