"""The disk space that a study takes, before it starts: nearly all of it are the weights of its trials."""

from search_spaces.config import TrialConfig
from search_spaces.designs import Arm
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from study.views.live_view import plan_confirmation_trials
from trainables.models.backbones import build_model
from trainables.records.trial_files import NUM_CHECKPOINTS_KEPT

# Of the head, which is small beside a backbone; a spec does not say the number of its data's classes.
NUM_CLASSES = 10
MEGABYTE = 1e6
# A checkpoint has the weights and, of every weight, what the optimizer keeps; with averaged weights these, too.
OPTIMIZER_COPIES = {"sgd": 1, "adamw": 2}


def describe_size(spec: StudySpec) -> str:
    """Return a sentence on the study's size when it ends, and on the checkpoints of a running trial."""
    total, parts, largest = 0.0, [], 0.0
    # Search trials of an arm that keep their weights; None if they are all of an unknown number.
    kept = 1 if spec.has_given_arms else spec.num_kept_weights
    confirmed = plan_confirmation_trials(spec, MemoryBook())
    for arm in spec.arms():
        size, num_confirmed = measure_weights(spec, arm), confirmed[arm.name]
        if size is None:
            return f"size on disk: not known, because {arm.name} is trained by a custom loop"
        largest = max(largest, size)
        if kept is None:
            parts.append(f"{arm.name} {size / MEGABYTE:.0f} MB for every search trial and {num_confirmed} others")
        else:
            total += size * (kept + num_confirmed)
            parts.append(f"{arm.name} {size / MEGABYTE:.0f} MB in {kept} + {num_confirmed} trials")
    about = "" if kept is None else f"about {total / 1e9:.1f} GB, "
    averaged = any(float(decay) > 0 for decay in spec.setting_values("ema_decay"))
    copies = 1 + max(OPTIMIZER_COPIES[str(name)] for name in spec.setting_values("optimizer")) + averaged
    checkpoint = NUM_CHECKPOINTS_KEPT * largest * copies
    return (
        f"size on disk when it ends: {about}nearly all of it weights ({'; '.join(parts)}); a running trial adds up to "
        f"{checkpoint / MEGABYTE:.0f} MB of checkpoints"
    )


def measure_weights(spec: StudySpec, arm: Arm) -> float | None:
    """Return the bytes of a model's weights in the arm, of the largest where backbones vary; None where there is no network."""
    states = [build_model(config, NUM_CLASSES, weights="none").state_dict() for config in list_networks(spec, arm)]
    sizes = [sum(tensor.numel() * tensor.element_size() for tensor in state.values()) for state in states]
    return float(max(sizes)) if sizes else None


def list_networks(spec: StudySpec, arm: Arm) -> list[TrialConfig]:
    """Return a configuration of each backbone of the arm, with its largest images and all layers trained."""
    fixed = {"image_size": spec.values_of(arm, "image_size")[-1], "tuning": "full"}
    return [
        TrialConfig(arm=arm.name, seed=0, hyperparameters={"backbone": backbone}, fixed=fixed)
        for backbone in arm.space.values_of("backbone")
    ]
