"""Arguments and options that several commands of the command line share, and the refusal of options that have no effect."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from search_spaces.errors import UserInputError
from study.state.paths import study_uri

# Names of the parameters that `compare` and `analyze` both use with --predictions.
PREDICTION_OPTIONS = frozenset({"predictions", "to"})


def refuse_unused_options(context: typer.Context, form: str, used: Collection[str]) -> None:
    """Refuse the options on the command line that have no effect in this form of the command.

    Args:
        context: of the command.
        form: the form of the command, such as "compare STUDY", for the message.
        used: names of the parameters that have an effect in this form.

    Raises:
        UserInputError: naming all options that were given and are not in `used`.
    """
    unused = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in used and _is_given(context, str(parameter.name))
    ]
    if unused:
        pronoun = "it" if len(unused) == 1 else "them"
        raise UserInputError(f"`study {form}` does not use {', '.join(unused)}; remove {pronoun}")


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


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_storage(context: typer.Context, storage: str | None) -> str | None:
    study = context.params.get("study")
    if storage is not None and study is not None and is_location(study):
        raise UserInputError(
            f"--storage applies to the name of a study, but {study!r} is a path or a URI; remove --storage"
        )
    return storage


SpecArgument = Annotated[
    str, typer.Argument(metavar="SPEC", help="A TOML file, or the name of a preset: demo, cifar10, cifar10-cpu.")
]
# Eager: parsed before --storage, which is checked against it.
_STUDY = typer.Argument(
    metavar="STUDY", is_eager=True, help="A path, a URI, or the name of a study under the storage root."
)
StudyArgument = Annotated[str, _STUDY]
OptionalStudyArgument = Annotated[str | None, _STUDY]
StudiesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="STUDY",
        help="A path, a URI, or the name of a study under the storage root; with --arms, configuration files.",
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        callback=_check_storage, help="Storage root: a folder or a URI. Default: $STUDY_STORAGE, or ./studies."
    ),
]
NameOption = Annotated[str | None, typer.Option(help="Name of the study, instead of the name in the spec.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one value of the spec: section.key=value. Repeatable.")
]
ArmsSetOption = Annotated[
    list[str] | None, typer.Option("--set", help="With --arms: override one value of the spec. Repeatable.")
]
WarmStartOption = Annotated[
    str | None,
    typer.Option(help="Another study of the same search space; the samplers start from its finished trials."),
]
ProfileOption = Annotated[
    bool, typer.Option("--profile", help="Record how much time each part of an epoch takes (resources.profile).")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        help="Address of a running Ray cluster, or 'auto'. Without it, or with 'local', Ray is started on this machine.",
    ),
]
AllowChangedOption = Annotated[
    bool,
    typer.Option(
        "--allow-changed",
        help="Continue although code or package versions have changed since the launch. The change is recorded permanently.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

PredictionsOption = Annotated[
    Path | None,
    typer.Option(
        help="Instead of a study: a Parquet file with the predictions of models trained elsewhere. Columns: arm, seed, "
        "sample_id, label, and probabilities or logits (a list per row)."
    ),
]
ArmsOption = Annotated[
    bool,
    typer.Option(
        "--arms",
        help="Instead of a study: JSON files with one configuration each (written by `study export`, or an object of "
        "hyperparameters). The first is the control. Launches a study that compares them under --spec.",
    ),
]
ArmsSpecOption = Annotated[
    str | None, typer.Option(help="With --arms: a TOML file or a preset with data, training and seeds.")
]
ArmsNameOption = Annotated[str | None, typer.Option(help="With --arms: name of the new study.")]
ControlOption = Annotated[str | None, typer.Option(help="With --predictions: the control. Default: the first arm.")]
MarginOption = Annotated[float, typer.Option(help="With --predictions: equivalence margin in macro-F1.")]
AlphaOption = Annotated[float, typer.Option(help="With --predictions: family-wise error rate.")]
ComparisonFolderOption = Annotated[
    Path | None, typer.Option(help="With --predictions: folder for comparison.html, .csv, .md and .tex.")
]
ClassNamesOption = Annotated[
    str | None, typer.Option(help="With --predictions: names of the classes, separated by commas.")
]
HumanCountsOption = Annotated[
    Path | None,
    typer.Option(
        help="With --predictions: .npy file of human label counts, shape (images, classes), in the order of sample_id."
    ),
]
GroupOption = Annotated[
    list[str] | None,
    typer.Option(help="With --predictions: a group of classes to contrast, NAME=CLASS,CLASS. Give two or more."),
]
ForensicsFolderOption = Annotated[
    Path | None, typer.Option(help="With --predictions: folder for forensics.html and forensics.json.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, but start no trial and write nothing.")
]
NumTrialsOption = Annotated[
    str | None, typer.Option(help="Extend the search: a new total such as 40, or an increase such as +8.")
]
DeviceSecondsOption = Annotated[
    str | None,
    typer.Option(help="Extend a search whose budget is device-seconds: a new total, or an increase such as +600."),
]
SearchOnlyOption = Annotated[bool, typer.Option("--search-only", help="Stop after the search.")]
ExportFolderOption = Annotated[
    str | None, typer.Option(help="A new or empty folder. Default: export, in the study's folder.")
]
OptunaOption = Annotated[
    str | None,
    typer.Option(help="SQLAlchemy URL of the database for the Optuna studies. Default: optuna.db in that folder."),
]
TrialOption = Annotated[str, typer.Option(help="best, the id of a search trial, or confirmation/<id>.")]
ArmOption = Annotated[str | None, typer.Option(help="With --trial best: the arm whose best trial is retrained.")]
RelocateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Location of data or weights on this machine, or the device: data.path, model.weights, resources.device.",
    ),
]
PortOption = Annotated[int, typer.Option(help="Port of 127.0.0.1.", min=1, max=65535)]
