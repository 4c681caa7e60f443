"""Arguments and options that several commands of the command line share, and the refusal of options that have no effect."""

from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from search_spaces.errors import UserInputError
from search_spaces.extensions import trusting_code
from study.state.paths import ReportFormat, study_uri

# Address of this process, as of `study.cluster.connection`, which imports what the command line must not.
THIS_PROCESS = "this process"
# Names of the parameters that `compare` and `analyze` both use with --predictions.
PREDICTION_OPTIONS = frozenset({"predictions", "to"})


class RoundDesign(StrEnum):
    """How a round tries its interventions; an enumeration, because Typer 0.16 takes no Literal."""

    ONE_AT_A_TIME = "one-at-a-time"
    FACTORIAL = "factorial"


def refuse_unused_options(context: Context, form: str, used: Collection[str]) -> None:
    """Refuse the options on the command line that have no effect in this form of the command.

    Args:
        context: of the command.
        form: the form of the command, such as "compare STUDY", for the message.
        used: names of the parameters that have an effect in this form. --trust-code only permits, so it is never refused.

    Raises:
        UserInputError: naming all options that were given and are not in `used`.
    """
    unused = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in {*used, "_trust_code"} and _is_given(context, str(parameter.name))
    ]
    if unused:
        pronoun = "it" if len(unused) == 1 else "them"
        raise UserInputError(f"`study {form}` does not use {', '.join(unused)}; remove {pronoun}")


def split_names(text: str | None) -> list[str] | None:
    """Return the names that are separated by commas; None if none are given."""
    return None if text is None else [name.strip() for name in text.split(",")]


def parse_group(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the name and the classes of "NAME=CLASS,CLASS"; raise UserInputError if `text` has another form."""
    name, found, classes = text.partition("=")
    names = tuple(word.strip() for word in classes.split(",") if word.strip())
    if not found or not name.strip() or not names:
        raise UserInputError(f"--group takes NAME=CLASS,CLASS, but got {text!r}")
    return name.strip(), names


def is_location(study: str) -> bool:
    """Return whether STUDY is a path or a URI, so that the storage root has no effect."""
    return study_uri(study) == study.rstrip("/")


def _is_given(context: Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_storage(context: Context, storage: str | None) -> str | None:
    study = context.params.get("study")
    if storage is not None and study is not None and is_location(study):
        raise UserInputError(
            f"--storage applies to the name of a study, but {study!r} is a path or a URI; remove --storage"
        )
    return storage


def _choose_address(context: Context, address: str | None) -> str | None:
    if not context.params.get("_local"):
        return address
    if _is_given(context, "address"):
        raise UserInputError(f"--local runs in this process, but --address names a cluster, {address!r}; remove one")
    return THIS_PROCESS


def _trust(context: Context, trusts: bool) -> bool:
    context.with_resource(trusting_code(trusts))
    return trusts


Text = str | None
Texts = list[str] | None

SpecArgument = Annotated[
    str, Argument(metavar="SPEC", help="A TOML file, or a preset: demo, demo-loop, cifar10, cifar10-cpu.")
]
_FOLDER_HELP = (
    "A folder of images, a table of their paths and labels, parquet or tar files, or the URI of one of these. "
    "Without it: an explanation."
)
FolderArgument = Annotated[Text, Argument(metavar="FOLDER", help=_FOLDER_HELP)]
LibraryArgument = Annotated[str, Argument(metavar="LIBRARY", help="torchvision, timm or own; all without it.")]
PatternArgument = Annotated[str, Argument(metavar="PATTERN", help="Wildcards, such as convnext*, for the names.")]
SpecFileOption = Annotated[Path | None, Option("--to", help="File for the spec. Default: FOLDER.toml, here.")]
ForceOption = Annotated[bool, Option("--force", help="Overwrite the file.")]
_WEIGHTS_HELP = "Pretrained weights: imagenet, none, a file, or a folder. Default: imagenet, if they can be had."
WeightsOption = Annotated[Text, Option(help=_WEIGHTS_HELP)]
_IMAGE_SIZE_HELP = "Side of the model's input in pixels. Default: what the images and the time allow."
ImageSizeOption = Annotated[int | None, Option(help=_IMAGE_SIZE_HELP, min=8, max=1024)]
MinutesOption = Annotated[float, Option(help="Time on this machine that the study may take.", min=1.0)]
_INIT_GROUP_HELP = (
    "What images have in common that belong together: a column of the table, or the level of folders in a class."
)
InitGroupOption = Annotated[Text, Option("--group", help=_INIT_GROUP_HELP)]
# Eager: parsed before --storage, which is checked against it.
_STUDY = Argument(metavar="STUDY", is_eager=True, help="A path, a URI, or the name of a study under the storage root.")
StudyArgument = Annotated[str, _STUDY]
OptionalStudyArgument = Annotated[Text, _STUDY]
StudiesArgument = Annotated[Texts, Argument(metavar="STUDY", help="A study; with --arms, configuration files.")]
_STORAGE_HELP = "Storage root: a folder or a URI. Default: $STUDY_STORAGE, or ./studies."
StorageOption = Annotated[Text, Option(callback=_check_storage, help=_STORAGE_HELP)]
NameOption = Annotated[Text, Option(help="Name of the study, instead of the name in the spec.")]
SetOption = Annotated[Texts, Option("--set", help="Override one value of the spec: section.key=value. Repeatable.")]
WarmStartOption = Annotated[
    Text, Option(help="A study of the same space; the samplers start from its finished trials.")
]
ProfileOption = Annotated[bool, Option("--profile", help="Record how much time each part of an epoch takes.")]
_ADDRESS_HELP = "Address of a running Ray cluster, or 'auto'. Default, and 'local': Ray is started on this machine."
AddressOption = Annotated[Text, Option(envvar="RAY_ADDRESS", help=_ADDRESS_HELP, callback=_choose_address)]
_ANALYSIS_ADDRESS_HELP = "Cluster whose devices compute the audits and heat maps. Default: this process."
AnalysisAddressOption = Annotated[
    Text, Option("--address", envvar="RAY_ADDRESS", help=_ANALYSIS_ADDRESS_HELP, callback=_choose_address)
]
_JOBS_ADDRESS_HELP = "Address of the cluster's job server, such as http://HEAD:8265."
JobsAddressOption = Annotated[Text, Option("--address", envvar="RAY_API_SERVER_ADDRESS", help=_JOBS_ADDRESS_HELP)]
_SHARED_STORAGE_HELP = (
    "Storage root that all nodes and this machine reach: a URI, or an absolute path on a shared disk."
)
SharedStorageOption = Annotated[Text, Option("--storage", help=_SHARED_STORAGE_HELP)]
_WITH_HELP = "A file or folder that the job needs, such as the module of a training loop of one's own. Repeatable."
WithOption = Annotated[list[Path] | None, Option("--with", help=_WITH_HELP)]
ResumeOption = Annotated[bool, Option("--resume", help="SPEC is a study, which the job goes on with.")]
DetachOption = Annotated[bool, Option("--detach", help="Do not wait for the job and show its output.")]
_LOCAL_HELP = "Run in this process, without Ray: one trial at a time, for a debugger, a notebook, or a machine alone."
# Eager: parsed before --address, in whose place it stands.
LocalOption = Annotated[bool, Option("--local", help=_LOCAL_HELP, is_eager=True)]
_CHANGED_HELP = "Continue although code or package versions have changed. The change is recorded permanently."
AllowChangedOption = Annotated[bool, Option("--allow-changed", help=_CHANGED_HELP)]
_TRUST_HELP = (
    "Import modules of the working folder that the spec or study names (package.module:object). Never remembered."
)
TrustOption = Annotated[bool, Option("--trust-code", help=_TRUST_HELP, callback=_trust)]
DryRunOption = Annotated[bool, Option("--dry-run", help="Check everything, but start no trial and write nothing.")]
NumTrialsOption = Annotated[Text, Option(help="Extend the search: a new total such as 40, or an increase such as +8.")]
DeviceSecondsOption = Annotated[Text, Option(help="Extend a search with a budget of device-seconds: 4000, or +600.")]
SearchOnlyOption = Annotated[bool, Option("--search-only", help="Stop after the search.")]
InspectionPageOption = Annotated[Path | None, Option(help="Also write one offline page: a file that ends in .html.")]
_QUICK_HELP = "Leave out what takes time: the probes on the pretrained backbone, and the measured seconds of a trial."
QuickOption = Annotated[bool, Option("--quick", help=_QUICK_HELP)]
LikeOption = Annotated[Text, Option(help="Take the variances and costs of this study, which has been compared.")]
_PILOT_HELP = "Train so many seeds of every arm on this machine, and take their variances and costs."
PilotOption = Annotated[int | None, Option(help=_PILOT_HELP)]
_SEED_SD_HELP = "Standard deviation of the paired difference in macro-F1 between seeds, in percentage points."
SeedSdOption = Annotated[float | None, Option(help=_SEED_SD_HELP)]
_IMAGE_SD_HELP = """Standard deviation of the images' influence on the difference, in percentage points: N test images contribute
IMAGE_SD / sqrt(N) to its standard error. For a difference in accuracy it is about the root of the share of images on which
the arms disagree: 35 for 12 %."""
ImageSdOption = Annotated[float | None, Option(help=_IMAGE_SD_HELP)]
_SEED_IMAGE_SD_HELP = "Standard deviation of one image's influence from seed to seed, in percentage points. Default: 0."
SeedImageSdOption = Annotated[float | None, Option(help=_SEED_IMAGE_SD_HELP)]
JsonOption = Annotated[bool, Option("--json", help="Print JSON.")]

_PREDICTIONS_HELP = """Instead of a study: a file with the predictions of models trained elsewhere. Repeatable. An npz file
has the arrays labels and probabilities (or logits); a Parquet or csv file has the column label, and a column for each class
(p_cat, p_dog) or a column of lists (probabilities, logits). Optional: arm, seed, sample_id, class_names."""
PredictionsOption = Annotated[list[Path] | None, Option(help=_PREDICTIONS_HELP)]
_ARMS_HELP = """Instead of a study: JSON files with one configuration each (written by `study export`, or an object of
hyperparameters). The first is the control. Launches a study that compares them under --spec."""
ArmsOption = Annotated[bool, Option("--arms", help=_ARMS_HELP)]
ArmsSpecOption = Annotated[Text, Option(help="With --arms: a TOML file or a preset with data, training and seeds.")]
ArmsNameOption = Annotated[Text, Option(help="With --arms: name of the new study.")]
ArmsSetOption = Annotated[Texts, Option("--set", help="With --arms: override one value of the spec. Repeatable.")]
ControlOption = Annotated[Text, Option(help="With --predictions: the control. Default: the first arm.")]
MarginOption = Annotated[float, Option(help="With --predictions: equivalence margin in macro-F1.")]
AlphaOption = Annotated[float, Option(help="With --predictions: family-wise error rate.")]
_COMPARISON_HELP = "With --predictions: folder for comparison.html, .csv, .md, .tex and side_metrics.csv."
ComparisonFolderOption = Annotated[Path | None, Option(help=_COMPARISON_HELP)]
ClassNamesOption = Annotated[Text, Option(help="With --predictions: names of the classes, separated by commas.")]
_COUNTS_HELP = "With --predictions: .npy file of human label counts, (images, classes), in the order of sample_id."
HumanCountsOption = Annotated[Path | None, Option(help=_COUNTS_HELP)]
_GROUP_HELP = "With --predictions: a group of classes to look at on its own, NAME=CLASS,CLASS. Repeat for more groups."
GroupOption = Annotated[Texts, Option(help=_GROUP_HELP)]
ForensicsFolderOption = Annotated[Path | None, Option(help="With --predictions: folder for forensics.html and .json.")]

_TARGET_HELP = "TRUE:PREDICTED, the confusion to reduce, such as cat:dog. Default: the strongest one that is found."
TargetOption = Annotated[Text, Option(help=_TARGET_HELP)]
OnlyOption = Annotated[Texts, Option(help="An intervention to try, whether a finding asks for it or not. Repeatable.")]
StrengthOption = Annotated[float | None, Option(help="Strength of the class weights of weighted_loss, in (0, 1].")]
_DESIGN_HELP = "One at a time against the winner, or all combinations: effects over all runs, and interactions."
RoundDesignOption = Annotated[RoundDesign, Option("--design", help=_DESIGN_HELP)]
_ROUND_BUDGET_HELP = "Most device-seconds that the round may take, up to its last look."
RoundBudgetOption = Annotated[float | None, Option("--device-seconds", help=_ROUND_BUDGET_HELP, min=0.0)]
_ROUND_SEEDS_HELP = "Paired seeds of the control and of each intervention. Default: the looks of the study."
RoundSeedsOption = Annotated[int | None, Option("--seeds", help=_ROUND_SEEDS_HELP, min=2)]
AgainOption = Annotated[bool, Option("--again", help="Begin another round after a finished one, at half its alpha.")]
InterveneOption = Annotated[bool, Option("--intervene", help="Go on to the interventions that the findings ask for.")]

_FORMAT_HELP = "report.html, report.md or explore.html. Repeatable. Default: all of them."
FormatOption = Annotated[list[ReportFormat] | None, Option("--format", help=_FORMAT_HELP)]
ExportFolderOption = Annotated[Text, Option(help="A new or empty folder. Default: export, in the study's folder.")]
_OPTUNA_HELP = "SQLAlchemy URL of the database for the Optuna studies. Default: optuna.db in that folder."
OptunaOption = Annotated[Text, Option(help=_OPTUNA_HELP)]
_ONNX_HELP = 'Write each model as ONNX too, checked against torch. Needs pip install "abstudy[onnx]".'
OnnxOption = Annotated[bool, Option("--onnx", help=_ONNX_HELP)]
TrialOption = Annotated[str, Option(help="best, the id of a search trial, or confirmation/<id>.")]
ArmOption = Annotated[Text, Option(help="With --trial best: the arm whose best trial is retrained.")]
_RELOCATE_HELP = (
    "What differs here: data.path, model.weights, resources.device, resources.images or resources.image_folder."
)
RelocateOption = Annotated[Texts, Option("--set", help=_RELOCATE_HELP)]
PortOption = Annotated[int, Option(help="Port of 127.0.0.1.", min=1, max=65535)]
