"""The interventions by name: those that come with the package, and those that installed packages add as entry points."""

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from analysis.causes.values import MIXED, RootCause
from analysis.interventions.intervention import ChoosingModels, Diagnosis, Intervention, Reason
from analysis.interventions.target_predictions import predict_without_cue, predict_without_reliance
from analysis.interventions.values import Prediction, Target, TargetKind
from analysis.shortcuts.values import GAP_TOLERANCE, AuditVerdict
from analysis.statistics.interval import TwoIntervals
from search_spaces.config import Value
from search_spaces.errors import UserInputError
from search_spaces.extensions import list_entry_points, load_object

ALL_CONFUSED = "all classes are confused, so that none of them differs from the others"
CUTMIX_PROBABILITY = 0.5
HARD_FRACTION = 0.25
RING_SWAP_PROBABILITY = 0.5
SATURATION_FRACTION, HUE_FRACTION = 0.6, 0.15


class _AgainstConfusion(Intervention):
    """The base of those that the strongest confusion asks for."""

    def find_reason(self, diagnosis: Diagnosis) -> Reason | None:
        """Return the strongest confusion with its root cause; None where no classes are confused."""
        if not diagnosis.cells:
            return None
        true, called = diagnosis.cells[0]
        cells = {(found.true_class, found.predicted_class): found for found in diagnosis.confusions.directed}
        found = cells.get((true, called))
        rate = "" if found is None else f" in {_show(found.rate, '%')} of its images"
        cause = find_cause(diagnosis)
        if cause is None or not cause.effects:
            why = f"root cause not measured{f': {cause.note}' if cause is not None and cause.note else ''}"
        else:
            why = f"root cause {cause.cause}"
        verdict = "more often than by chance" if found is None else str(found.verdict)
        return Reason(
            symptom=f"{true} is predicted as {called}{rate}",
            diagnosis=why,
            verdict="named by the user" if diagnosis.is_named else verdict,
        )


class WeightedLoss(_AgainstConfusion):
    """Cross-entropy in which the confused classes weigh more than the others."""

    name = "weighted_loss"
    title = "weighted cross-entropy on the confused classes"
    no_change = ALL_CONFUSED
    strength = 1.0

    def make_changes(self, diagnosis: Diagnosis) -> Mapping[str, Value] | None:
        """Return the weights of the confused classes; None where these are all classes."""
        if len(diagnosis.confused) == len(diagnosis.class_names):
            return None
        return {"class_weighting": "group", "class_weight_strength": self.strength, "weighted_group": diagnosis.group}


class HardExamples(_AgainstConfusion):
    """Batches that consist of the confused classes only, from the middle of the training on."""

    name = "hard_examples"
    title = "batches of the confused classes alone"
    no_change = ALL_CONFUSED

    def make_changes(self, diagnosis: Diagnosis) -> Mapping[str, Value] | None:
        """Return the share of such batches, and the epoch that they begin with; None where all classes are confused."""
        if len(diagnosis.confused) == len(diagnosis.class_names):
            return None
        return {
            "hard_group": diagnosis.group,
            "hard_fraction": HARD_FRACTION,
            "hard_from_epoch": 1 + int(diagnosis.configuration["max_epochs"]) // 2,
        }

    def predict(self, target: Target, diagnosis: Diagnosis, models: ChoosingModels) -> Prediction:
        """Return the change of the cells' rate without the cue that causes the confusion."""
        cause = find_cause(diagnosis)
        named = cause.cause if cause is not None and cause.cause != MIXED else None
        change, cue = predict_without_cue(target, named, models, is_named=diagnosis.is_named)
        chosen = "the named root cause" if named else "the cue whose removal lowers the rate most on other images"
        cells = "these cells" if diagnosis.is_named else "the strongest cells of other images and models"
        basis = f"rate of {cells} without {cue}, {chosen}, beyond other cells of the same confidence"
        return self.recalibrate(change, basis)


class CutMix(_AgainstConfusion):
    """CutMix where the control has none, and no CutMix where it has."""

    name = "cutmix"
    title = "CutMix"

    def make_changes(self, diagnosis: Diagnosis) -> Mapping[str, Value] | None:
        """Return the probability of CutMix."""
        has_cutmix = float(diagnosis.configuration["cutmix_probability"]) > 0
        return {"cutmix_probability": 0.0 if has_cutmix else CUTMIX_PROBABILITY}


class OtherBackbone(_AgainstConfusion):
    """The other backbone of the study or of its space."""

    name = "other_backbone"
    title = "the other backbone"
    no_change = "the study has no other backbone, in its arms or in its space"
    spares = "the macro-F1 of the control's recipe, whose learning rates were chosen for its own backbone"

    def make_changes(self, diagnosis: Diagnosis) -> Mapping[str, Value] | None:
        """Return the first other backbone; None if there is none."""
        return {"backbone": diagnosis.backbones[0]} if diagnosis.backbones else None


class OtherInterpolation(_AgainstConfusion):
    """Bilinear interpolation in the place of bicubic, or the reverse."""

    name = "other_interpolation"
    title = "the other interpolation"
    no_change = "the images have the size that the network sees, so that none is resized"

    def make_changes(self, diagnosis: Diagnosis) -> Mapping[str, Value] | None:
        """Return the other interpolation; None for images that are not resized."""
        if diagnosis.configuration["image_size"] == diagnosis.native_size:
            return None
        is_bicubic = diagnosis.configuration["interpolation"] == "bicubic"
        return {"interpolation": "bilinear" if is_bicubic else "bicubic"}


class _AgainstReliance(Intervention):
    """The base of those that an audit asks for, which finds classes that lose accuracy where a part of the images is swapped."""

    kind: ClassVar[TargetKind]
    symptom: ClassVar[str]
    reliance: ClassVar[str]

    @abstractmethod
    def find_losses(self, diagnosis: Diagnosis) -> tuple[dict[str, TwoIntervals], AuditVerdict]:
        """Return what the suspected classes lose, by their names, and the verdict on them."""

    def find_reason(self, diagnosis: Diagnosis) -> Reason | None:
        """Return the suspected class with the largest loss; None where there is none."""
        losses, verdict = self.find_losses(diagnosis)
        if not losses:
            return None
        name, loss = max(losses.items(), key=lambda item: item[1].estimate)
        symptom = f"{name} loses {_show(loss, 'pp')} of accuracy {self.symptom}"
        return Reason(symptom=symptom, diagnosis=f"the models use the {self.reliance}", verdict=str(verdict))

    def choose_target(self, diagnosis: Diagnosis) -> Target:
        """Return the loss of the suspected classes; of all classes where there is none."""
        losses, _ = self.find_losses(diagnosis)
        classes = tuple(name for name in diagnosis.class_names if name in losses) or diagnosis.class_names
        return Target(kind=self.kind, classes=classes)


class BackgroundSwap(_AgainstReliance):
    """Training images whose outer ring comes from images of other classes."""

    name = "background_swap"
    title = "rings of other classes in training"
    kind = TargetKind.RING_GAP
    symptom = "with rings of other classes"
    reliance = "surroundings of the object"

    def find_losses(self, diagnosis: Diagnosis) -> tuple[dict[str, TwoIntervals], AuditVerdict]:
        """Return the classes that fail the audit of the narrowest ring, or where it is undecided if none fails."""
        classes = diagnosis.audits.ring_audits[0].classes if diagnosis.audits.ring_audits else ()
        verdicts = {c.verdict for c in classes}
        wanted = AuditVerdict.FAIL if AuditVerdict.FAIL in verdicts else AuditVerdict.UNDECIDED
        return {c.class_name: c.gap for c in classes if c.verdict is wanted}, wanted

    def make_changes(self, diagnosis: Diagnosis) -> Mapping[str, Value] | None:
        """Return the share of images with such a ring."""
        del diagnosis
        return {"ring_swap_probability": RING_SWAP_PROBABILITY}

    def predict(self, target: Target, diagnosis: Diagnosis, models: ChoosingModels) -> Prediction:
        """Return the change if the gap vanished."""
        del diagnosis
        basis = "the whole gap of the ring audit would vanish, of the worst classes of other images and models"
        return self.recalibrate(predict_without_reliance(target, models), basis)


class _HeadRefit(Intervention):
    """The base of those that fit a new classification layer on the same features."""

    refit: ClassVar[str]

    def make_changes(self, diagnosis: Diagnosis) -> Mapping[str, Value] | None:
        """Return how the layer is fitted; None where the images do not allow it, or nothing would change."""
        return {"head_refit": self.refit} if self.refit in diagnosis.refits else None


class HeadRingSwaps(_HeadRefit, BackgroundSwap):
    """A new classification layer on the same features, fitted with rings of other classes."""

    name = "head_ring_swaps"
    title = "a new classification layer, fitted with rings of other classes"
    no_change = "the split search has too few images of a class, or images too small for a ring"
    refit = "ring_swaps"


class HeadGroups(_HeadRefit, _AgainstConfusion):
    """A new classification layer on the same features, for which the groups of images in each class weigh alike."""

    name = "head_groups"
    title = "a new classification layer, with equal weights of the groups"
    no_change = "the images have no groups, fewer than two images in a group on average, or one group alone in a class"
    refit = "groups"


class HeadBalanced(_HeadRefit, _AgainstConfusion):
    """A new classification layer on the same features, for which the classes weigh alike."""

    name = "head_balanced"
    title = "a new classification layer, with equal weights of the classes"
    no_change = "the classes have about equally many images, or one has too few in the split search"
    refit = "balanced"


class ColorJitter(_AgainstReliance):
    """Random saturation and hue in training."""

    name = "color_jitter"
    title = "random saturation and hue"
    kind = TargetKind.COLOR_LOSS
    symptom = "in gray images"
    reliance = "color"

    def find_losses(self, diagnosis: Diagnosis) -> tuple[dict[str, TwoIntervals], AuditVerdict]:
        """Return the classes that certainly lose more than the tolerance without color."""
        losses = diagnosis.audits.color_losses
        losing = {found.class_name: found.loss for found in losses if found.loss.models.low > GAP_TOLERANCE}
        return losing, AuditVerdict.FAIL

    def make_changes(self, diagnosis: Diagnosis) -> Mapping[str, Value] | None:
        """Return the ranges of saturation and hue."""
        del diagnosis
        return {"saturation_fraction": SATURATION_FRACTION, "hue_fraction": HUE_FRACTION}


class LeaveOutDoubtful(Intervention):
    """Training without the images whose labels are doubtful."""

    name = "leave_out_doubtful"
    title = "training without doubtful labels"
    no_change = "no label of a training image is doubtful"

    def find_reason(self, diagnosis: Diagnosis) -> Reason | None:
        """Return how many training labels are doubtful; None if none is, or nothing is confused."""
        if not diagnosis.doubtful or not diagnosis.cells:
            return None
        return Reason(
            symptom=f"{len(diagnosis.doubtful)} of {diagnosis.num_training:,} training images have the most doubtful labels",
            diagnosis="a probe on pretrained features and confident learning contradict them",
            verdict="doubtful",
        )

    def make_changes(self, diagnosis: Diagnosis) -> Mapping[str, Value] | None:
        """Return the images to leave out; None where no label is doubtful."""
        if not diagnosis.doubtful:
            return None
        return {"leave_out": " ".join(map(str, sorted(diagnosis.doubtful)))}


def find_cause(diagnosis: Diagnosis) -> RootCause | None:
    """Return the root cause of the strongest confusion; None where it was not measured."""
    first = set(diagnosis.cells[0]) if diagnosis.cells else set()
    return next((cause for cause in diagnosis.audits.root_causes if set(cause.classes) == first), None)


def _show(found: TwoIntervals, unit: str) -> str:
    low, high = 100 * found.models.low, 100 * found.models.high
    return f"{100 * found.estimate:.1f} {unit} [{low:.1f}, {high:.1f}]"


ENTRY_POINTS = "abstudy.interventions"
CONTROL = "control"
BUILT_IN: tuple[type[Intervention], ...] = (
    HeadRingSwaps,
    HeadGroups,
    HeadBalanced,
    WeightedLoss,
    HardExamples,
    CutMix,
    OtherBackbone,
    OtherInterpolation,
    BackgroundSwap,
    ColorJitter,
    LeaveOutDoubtful,
)


def load_interventions() -> Mapping[str, Intervention]:
    """Return every intervention by its name, those of this package first.

    Raises:
        UserInputError: listing every entry point that cannot be used, with the reason.
    """
    found: dict[str, Intervention] = {made.name: made for made in (kind() for kind in BUILT_IN)}
    problems = []
    for entry, location in list_entry_points(ENTRY_POINTS).items():
        try:
            added = _load(load_object(entry, ENTRY_POINTS, "the intervention"))
        except Exception as error:  # The code of another package may raise anything.
            problems.append(f"{entry} = {location!r}: {error}")
            continue
        if added.name in found:
            problems.append(f"{entry} = {location!r}: there is an intervention {added.name!r} already")
        else:
            found[added.name] = added
    if problems:
        raise UserInputError(
            f"entry points of {ENTRY_POINTS} cannot be used; fix or uninstall their packages: {'; '.join(problems)}"
        )
    return found


def _load(kind: object) -> Intervention:
    if not (isinstance(kind, type) and issubclass(kind, Intervention)):
        raise TypeError(f"it is no subclass of {Intervention.__module__}.{Intervention.__qualname__}")
    made = kind()
    name, title = getattr(made, "name", ""), getattr(made, "title", "")
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name)) or name == CONTROL:
        raise TypeError(f"its name must consist of letters, digits and '_' and not be {CONTROL!r}, but is {name!r}")
    if not (isinstance(title, str) and title):
        raise TypeError("it has no title")
    return made
