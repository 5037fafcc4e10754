"""Our runs in the terms of the literature, so that both can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.cell import STANDARD, BackboneChoice, Cell, Protocol, families
from bench.controls import control_in
from bench.data.sets.subsets import Recognised, recognise
from bench.result import Result

#: A row of the literature, see `bench.published.to_rows`.
Number = Mapping[str, Any]

#: The literature's classes of our augmentation policies; others are classes of their own name.
AUGMENTATION_CLASSES = {
    "crop_flip": "std",
    "crop_flip_rotate": "std",
    "resized_crop_flip": "std",
    "resized_crop_flip_jitter": "std",
    "crop_flip_cutout": "cutout",
    "autoaugment": "autoaug",
    "autoaugment_cutout": "autoaug_cutout",
    "timm_randaugment": "randaug",
    "randcls": "randaug",
    "dscl_query": "simclr",
    "dscl_query_large": "simclr",
    "dscl_key_large": "simclr",
    "dscl_key": "simclr",  # KCL's and TSC's, counted so in the literature
    "simclr_blur": "simclr",
    "supcon": "simclr",
    "supcon_linear": "std",
}

#: Upper bounds of the epochs classes: doubling the epochs gains one to two points on CIFAR-LT.
EPOCHS_CLASSES = ((30, "<=30"), (79, "31-79"), (149, "80-149"), (249, "150-249"), (499, "250-499"))

#: Kinds of pre-training by the weights in a timm model's name.
_WEIGHTS = {"clip": "clip", "in21k": "imagenet21k", "in1k": "imagenet1k"}

#: First stages that the literature counts as pre-training.
_STAGES = {"livt_pretrain": "mae_same_set"}


def epochs_class(epochs: int | None) -> str | None:
    """Name the class of a number of epochs, None if unknown."""
    if epochs is None:
        return None
    return next((name for bound, name in EPOCHS_CLASSES if epochs <= bound), ">=500")


def architecture(name: str) -> str:
    """Reduce a timm model name to its architecture, without weights tag and input size."""
    parts = name.split(".")[0].split("_")
    return "_".join(part for part in parts if part not in ("clip", "224", "384"))


def _longest(run: Result) -> Protocol:
    """Return the protocol of the longest stage."""
    return max((stage.protocol for stage in run.cell.family()), key=lambda protocol: protocol.epochs)


def width_class(backbone: BackboneChoice) -> str:
    """Name the width of a network."""
    if "channels" in backbone.options:
        return "other"
    width = backbone.options.get("width", 1)
    return "standard" if width == 1 else f"{width:g}x-wide"


def _pretraining(run: Result) -> str:
    """Name the pre-training of a run, by its first stage or by its network's weights."""
    stages = (stage.method.name for stage in run.cell.family())
    return next((_STAGES[name] for name in stages if name in _STAGES), pretraining(run.cell.backbone))


def pretraining(backbone: BackboneChoice) -> str:
    """Name the pre-training of a network's weights."""
    if not backbone.options.get("pretrained"):
        return "none"
    return next((kind for part, kind in _WEIGHTS.items() if part in backbone.name), "other")


def _experts(run: Result) -> Any:
    # older records have it among the hyper-parameters, if at all
    return run.row["experts"] or run.cell.method.params.get("experts", 1)


def _recognised(run: Result) -> Recognised | None:
    """Recognise the published data set of a run by its images; None if only its name identifies it."""
    dataset = run.cell.dataset
    if dataset.source in ("cifar10", "cifar100"):
        return None  # identified by checksums
    counts = (run.record.get("data") or {}).get("class_counts") or ()
    found = recognise(run.record.get("image_hashes") or {}, counts, run.cell.imbalance_factor)
    if found is not None and _tail(run) != STANDARD:
        return replace(found, draw="original")  # the field "tail" has how it was drawn
    return found


def _tail(run: Result) -> str:
    tail, most = run.cell.dataset.tail, run.cell.protocol.subsample
    if most is None:
        return tail
    return ", ".join([*([] if tail == STANDARD else [tail]), f"subsample {most}"])


def _copy(run: Result) -> str:
    if recognised := _recognised(run):
        return recognised.copy
    if run.row["comparable"]:
        return "original"  # its footnote names the difference
    kind = run.row["copy_kind"]
    return kind or ("original" if run.row["copy_of"] is None else "copy")


@dataclass(frozen=True)
class Field:
    """A field of the protocol, which makes two numbers comparable.

    Attributes:
        of: returns the value of a run in the terms of the literature.
        league: whether only rows that share it are ranked together.
        judged: whether a published number judges only runs that share it.
        marked: whether pages mark a source that leaves it open.
        usual: the default value, which pages omit.
    """

    label: str
    help: str
    of: Callable[[Result], Any]
    kind: str = "string"
    league: bool = True
    judged: bool = True
    marked: bool = True
    usual: Any = None


#: All protocol fields; a published or external row has a column for each.
FIELDS = {
    "backbone": Field(
        "backbone",
        "the network, by its name in timm",
        lambda run: architecture(run.cell.backbone.name) or None,
    ),
    "width_class": Field(
        "width",
        "the network's width; 'other' is a different network of the same name",
        lambda run: width_class(run.cell.backbone),
        usual="standard",
    ),
    "epochs": Field(
        "epochs", "of the longest stage", lambda run: _longest(run).epochs, "Int64", league=False
    ),
    "epochs_class": Field(
        "epochs",
        "of the longest stage, in classes: twice the epochs is worth a point or two",
        lambda run: epochs_class(_longest(run).epochs),
        judged=False,
    ),
    "weight_decay": Field(
        "weight decay",
        "of the longest stage; few tables state it, and their authors' code is read for some",
        lambda run: _longest(run).optimizer.weight_decay,
        "Float64",
        league=False,
        marked=False,
    ),
    "augmentation": Field(
        "augmentation",
        "of the classified view: std is crop and flip, mixed a table that does not state which row has which",
        lambda run: AUGMENTATION_CLASSES.get(run.augmentation, run.augmentation),
    ),
    "experts": Field("experts", "how many networks or heads vote", _experts, "Int64", usual=1),
    "pretraining": Field(
        "pre-training",
        "what the network's weights were trained on before",
        _pretraining,
        usual="none",
    ),
    "extra_data": Field(
        "extra data",
        "images or texts beside the training set",
        lambda run: run.row["extra_data"] or "none",
        usual="none",
    ),
    "data_copy": Field(
        "data copy",
        "the images: a copy saved in another format is other data",
        _copy,
        usual="original",
    ),
    "tail": Field(
        "tail",
        "how the training set is drawn: standard is the papers' rule, an exponential tail or the data set's "
        "own, with their subset, class order and labels, and all of its images",
        _tail,
        usual=STANDARD,
    ),
}

JUDGED = tuple(name for name, field in FIELDS.items() if field.judged)


@dataclass(frozen=True)
class Measured:
    """A finished run in the terms of the literature.

    Attributes:
        key: its series: shared by its repetitions on the same pixels.
        literature: the method's name in the published table, None if it is not there.
        protocol: its `FIELDS`.
        footnote: how its images differ from those of published numbers that still judge it.
        seconds: device time including all that it starts from, None if a part is unknown.
    """

    run: Result
    key: str
    dataset: str
    imbalance_factor: float
    literature: str | None
    protocol: Mapping[str, Any]
    footnote: str | None = None
    seconds: float | None = None


def protocols(runs: Iterable[Result], numbers: Sequence[Number]) -> list[Measured]:
    """Return the finished runs in the terms of the literature.

    Runs evaluated on held-out training images are trials of a search, not results, and are left out. With
    several stages `epochs` are those of the longest. Neither a first stage alone nor a control (see
    `bench.controls`) is the published method. A copy of a published data set has that set's name, with its
    kind as `data_copy`; other pixels under the same name are another copy. A data set with the images of a
    published one is that one, whatever its name and format. One with a natural tail has the literature's
    imbalance factor.
    """
    every = list(runs)
    done = [run for run in every if run.row["status"] == "done" and run.row["held_out"] is None]
    names = {number["stages"] or number["method"]: number["method"] for number in numbers}
    natural, suffixes = natural_factors(numbers), _pixel_suffixes(done)
    times = {run.run_id: run.row.get("device_seconds") for run in every}
    found = []
    for run in done:
        stages = _stages(run.cell)
        control = any(map(control_in, run.cell.family()))
        spent = [times.get(run_id) for run_id in families([run.cell])]
        protocol = {name: field.of(run) for name, field in FIELDS.items()}
        protocol["data_copy"] += suffixes[run.run_id]
        dataset, factor = run.row["copy_of"] or run.cell.dataset.name, run.cell.imbalance_factor
        footnote = run.row["copy_kind"] if run.row["comparable"] else None
        if recognised := _recognised(run):
            dataset, factor = recognised.published, recognised.imbalance_factor
            footnote = recognised.footnote
        found.append(
            Measured(
                run=run,
                key=run.series + suffixes[run.run_id],
                dataset=dataset,
                imbalance_factor=natural.get(dataset, factor) if factor == 1 else factor,
                literature=None if control else names.get(">".join(stages)) or names.get(stages[-1]),
                protocol=protocol,
                footnote=footnote,
                seconds=None if None in spent else sum(part or 0 for part in spent),
            )
        )
    return found


def _stages(cell: Cell) -> list[str]:
    """Return the methods that a cell starts from, the first of several parents alone, and its own."""
    return [*(_stages(cell.parent) if cell.parent else ()), cell.method.name]


def natural_factors(numbers: Iterable[Number]) -> dict[str, float]:
    """Return the imbalance factor of each data set for which the literature has only one."""
    known = dict[str, set[float]]()
    for number in numbers:
        known.setdefault(number["dataset"], set()).add(number["imbalance_factor"])
    return {dataset: next(iter(factors)) for dataset, factors in known.items() if len(factors) == 1}


def _pixel_suffixes(done: Sequence[Result]) -> dict[str, str]:
    """Return by run id a suffix that names the pixels, empty if most runs on that data copy have the same."""
    seen = dict[tuple[Any, ...], Counter[str]]()
    copies = {}
    for run in done:
        row = run.row
        pixels = "".join(row[f"fingerprint_{part}"] or "" for part in ("train", "test", "extra_train"))
        copy = (row["dataset"], row["imbalance_factor"], _copy(run), row["extra_train"], _tail(run))
        copies[run.run_id] = copy, pixels
        seen.setdefault(copy, Counter())[pixels] += 1
    # of equally frequent pixels the first in sort order, so that the order of runs does not matter
    usual = {copy: min(counts, key=lambda pixels: (-counts[pixels], pixels)) for copy, counts in seen.items()}
    return {
        run_id: "" if pixels == usual[copy] else f" (pixels {pixels[:8]})"
        for run_id, (copy, pixels) in copies.items()
    }
