"""Arguments and options of the commands of the command line."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from analysis.statistics.interval import ALPHA, MARGIN
from search_spaces.errors import UserInputError
from search_spaces.extensions import trusting_code
from study.state.paths import ReportFormat, study_uri

# Address of this process, see `study.cluster.connection`, which imports what the command line must not.
THIS_PROCESS = "this process"


class RoundDesign(StrEnum):
    """How a round tries its interventions; an enumeration, because Typer 0.16 takes no Literal."""

    ONE_AT_A_TIME = "one-at-a-time"
    FACTORIAL = "factorial"


class TrackerName(StrEnum):
    """A tracker that `study sync` writes to."""

    MLFLOW = "mlflow"
    TRACKIO = "trackio"


def is_given(context: Context, name: str) -> bool:
    """Return whether a parameter of the command is on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_storage(context: Context, storage: str | None) -> str | None:
    study = context.params.get("study")
    if storage is not None and study is not None and study_uri(study) == study.rstrip("/"):
        raise UserInputError(
            f"--storage applies to the name of a study, but {study!r} is a path or a URI; remove --storage"
        )
    return storage


def _choose_address(context: Context, address: str | None) -> str | None:
    if not context.params.get("_local"):
        return address
    if is_given(context, "address"):
        raise UserInputError(f"--local runs in this process, but --address names a cluster, {address!r}; remove one")
    return THIS_PROCESS


def _trust(context: Context, trusts: bool) -> bool:
    context.with_resource(trusting_code(trusts))
    return trusts


Text = str | None
Texts = list[str] | None

SpecArgument = Annotated[
    str,
    Argument(metavar="SPEC", help="A TOML file, or a preset: cifar10, cifar10-cpu, demo, demo-loop, frozen-or-not."),
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
_IGNORE_HELP = "Take images that show nearly the same for independent ones, instead of keeping them in one split."
IgnoreNearDuplicatesOption = Annotated[bool, Option("--ignore-near-duplicates", help=_IGNORE_HELP)]
_STUDY_HELP = "A path, a URI, or the name of a study under the storage root."
# Eager: parsed before --storage, which is checked against it.
StudyArgument = Annotated[str, Argument(metavar="STUDY", is_eager=True, help=_STUDY_HELP)]
_STORAGE_HELP = "Storage root: a folder or a URI. Default: $STUDY_STORAGE, or ./studies."
StorageOption = Annotated[Text, Option(callback=_check_storage, help=_STORAGE_HELP)]
NameOption = Annotated[Text, Option(help="Name of the study, instead of the name in the spec.")]
SetOption = Annotated[Texts, Option("--set", help="Override one value of the spec: section.key=value. Repeatable.")]
WarmStartOption = Annotated[
    Text, Option(help="A study of the same space; the samplers start from its finished trials.")
]
_CONFIGURATION_HELP = """A JSON file with one configuration to compare, written by `study export`, or an object of
hyperparameters. Repeatable; the first is the control."""
ConfigurationOption = Annotated[list[Path] | None, Option("--configuration", help=_CONFIGURATION_HELP)]
ProfileOption = Annotated[bool, Option("--profile", help="Record how much time each part of an epoch takes.")]
_ADDRESS_HELP = "Address of a running Ray cluster, or 'auto'. Default, and 'local': Ray is started on this machine."
AddressOption = Annotated[Text, Option(envvar="RAY_ADDRESS", help=_ADDRESS_HELP, callback=_choose_address)]
_ANALYSIS_ADDRESS_HELP = "Cluster whose devices compute the audits and heat maps. Default: this process."
AnalysisAddressOption = Annotated[
    Text, Option("--address", envvar="RAY_ADDRESS", help=_ANALYSIS_ADDRESS_HELP, callback=_choose_address)
]
ClusterArgument = Annotated[str, Argument(metavar="ADDRESS", help="Of a running Ray cluster, or 'auto'.")]
_JOBS_ADDRESS_HELP = "Address of the cluster's job server, such as http://HEAD:8265."
JobsAddressOption = Annotated[Text, Option("--address", envvar="RAY_API_SERVER_ADDRESS", help=_JOBS_ADDRESS_HELP)]
_SHARED_STORAGE_HELP = (
    "Storage root that all nodes and this machine reach: a URI, or an absolute path on a shared disk."
)
SharedStorageOption = Annotated[Text, Option("--storage", help=_SHARED_STORAGE_HELP)]
_WITH_HELP = "A file or folder that the job needs, such as the module of a custom training loop. Repeatable."
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

_PREDICTIONS_HELP = """Files with the predictions of models trained elsewhere. An npz file has the arrays labels and
probabilities (or logits); a Parquet or csv file has the column label, and a column for each class (p_cat, p_dog) or a column of
lists (probabilities, logits). Optional: arm, seed, sample_id, class_names. Default of the arm: the name of the file."""
PredictionsArgument = Annotated[list[Path], Argument(metavar="FILE", help=_PREDICTIONS_HELP)]
ClassNamesOption = Annotated[Text, Option(help="Names of the classes, separated by commas.")]
ControlOption = Annotated[Text, Option(help="The arm that the others are compared with. Default: the first.")]
MarginOption = Annotated[float | None, Option(help=f"Margin in macro-F1. Default: {MARGIN}; of a gate, of NEW's plan.")]
AlphaOption = Annotated[float | None, Option(help=f"Error rate of all rows, of a gate of all looks. Default: {ALPHA}.")]
_GROUP_HELP = "A group of classes that is examined separately, NAME=CLASS,CLASS. Repeatable."
GroupOption = Annotated[Texts, Option("--group", help=_GROUP_HELP)]
_COUNTS_HELP = "An .npy file of human label counts, (images, classes), in the order of sample_id."
HumanCountsOption = Annotated[Path | None, Option(help=_COUNTS_HELP)]
_JUDGMENT_HELP = """Folder for forensics.html and .json; of two or more arms, also for comparison.html, .csv, .md and .tex, and
side_metrics.csv."""
JudgmentFolderOption = Annotated[Path | None, Option(help=_JUDGMENT_HELP)]

_SIDE_HELP = """A study, one of its arms (STUDY:ARM), a file with predictions of several seeds as `study judge` reads it (or
FILE:ARM), or a folder of such files. Of a study, the arm with the highest score on its confirm split."""
OldArgument = Annotated[str, Argument(metavar="OLD", help=_SIDE_HELP)]
NewArgument = Annotated[str, Argument(metavar="NEW", help="The same; its seeds are fresh, and have chosen nothing.")]
NotWorseOption = Annotated[bool, Option("--not-worse/--better", help="Ask whether NEW is not worse by the margin.")]
LogOption = Annotated[Path | None, Option(help="JSON lines; comparisons in them share a false discovery rate.")]
RateOption = Annotated[float | None, Option("--rate", help="False discovery rate of the log. Default: 0.1.")]
MarkdownOption = Annotated[bool, Option("--markdown", help="Print Markdown, also into $GITHUB_STEP_SUMMARY.")]

_TARGET_HELP = "TRUE:PREDICTED, the confusion to reduce, such as cat:dog. Default: the strongest one that is found."
TargetOption = Annotated[Text, Option(help=_TARGET_HELP)]
OnlyOption = Annotated[Texts, Option(help="An intervention to try, whether a finding asks for it or not. Repeatable.")]
StrengthOption = Annotated[float | None, Option(help="Strength of the class weights of weighted_loss, in (0, 1].")]
_DESIGN_HELP = "One at a time against the winner, or all combinations: effects over all runs, and interactions."
RoundDesignOption = Annotated[RoundDesign, Option("--design", help=_DESIGN_HELP)]
_ROUND_BUDGET_HELP = "Most device-seconds that the round may take, up to its last look."
RoundBudgetOption = Annotated[float | None, Option("--device-seconds", help=_ROUND_BUDGET_HELP)]
_ROUND_SEEDS_HELP = "Paired seeds of the control and of each intervention, 2 at least. Default: the looks of the study."
RoundSeedsOption = Annotated[int | None, Option("--seeds", help=_ROUND_SEEDS_HELP)]
AgainOption = Annotated[bool, Option("--again", help="Begin another round after a finished one, at half its alpha.")]
InterveneOption = Annotated[bool, Option("--intervene", help="Go on to the interventions that the findings ask for.")]

_FORMAT_HELP = "report.html, report.md or explore.html. Repeatable. Default: all of them."
FormatOption = Annotated[list[ReportFormat] | None, Option("--format", help=_FORMAT_HELP)]
ExportFolderOption = Annotated[Text, Option(help="A new or empty folder. Default: export, in the study's folder.")]
_OPTUNA_HELP = "SQLAlchemy URL of the database for the Optuna studies. Default: optuna.db in that folder."
OptunaOption = Annotated[Text, Option(help=_OPTUNA_HELP)]
_ONNX_HELP = "Write each model as ONNX too, checked against torch. Needs abstudy's extra onnx."
OnnxOption = Annotated[bool, Option("--onnx", help=_ONNX_HELP)]
TrialOption = Annotated[str, Option(help="best, the id of a search trial, or confirmation/<id>.")]
ArmOption = Annotated[Text, Option(help="With --trial best: the arm whose best trial is retrained.")]
_RELOCATE_HELP = (
    "What differs here: data.path, model.weights, resources.device, resources.images or resources.image_folder."
)
RelocateOption = Annotated[Texts, Option("--set", help=_RELOCATE_HELP)]
_TRACKER_HELP = "mlflow ($MLFLOW_TRACKING_URI) or trackio ($TRACKIO_DIR), from the extra of that name."
TrackerOption = Annotated[TrackerName, Option("--to", help=_TRACKER_HELP)]
FollowOption = Annotated[bool, Option("--follow", help="Go on while a process drives the study, every 15 seconds.")]
PortOption = Annotated[int, Option(help="Port of 127.0.0.1.", min=1, max=65535)]
