"""A cell: one frozen, fully resolved point of a grid, and the short hash that names it.

Nothing that cannot change a result is part of a cell's identity: no device, worker count, path or
title. What can change a result and is not here is a defect.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

#: JSON scalars, the only hyper-parameter values a recipe can carry (a list becomes a tuple).
Scalar = bool | int | float | str | None
Param = Scalar | tuple[Scalar, ...]

#: What may stand in a run directory's name.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=64)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
#: Of each class so many images, or such a share of them.
HeldOut = Count | Annotated[float, Field(gt=0, lt=1)]

#: Marks a field that describes and does not decide; it is kept in cell.yaml and left out of the id.
DESCRIBES: JsonDict = {"identity": False}


#: The tail of a data set that is drawn as in the papers: their profile, subset, class order and labels.
STANDARD = "standard"


class Frozen(BaseModel):
    """Base of all validated values: unknown keys and wrong types are errors, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def identity(self) -> dict[str, Any]:
        """Return the JSON-able content that decides a result.

        What only describes is left out, and what has its default value: so a field that is added with a
        default that changes nothing leaves every id as it was. A default is never changed.
        """
        content = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.json_schema_extra == DESCRIBES or value == field.default:
                continue
            content[name] = _identity(value)
        return content


def _identity(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_identity, value))
    return value.identity() if isinstance(value, Frozen) else value


class ShotRule(Frozen):
    """Many-shot: more images than `many_above`; few-shot: fewer than `few_below`; else medium."""

    many_above: int = 100
    few_below: int = 20


class ExtraTrain(Frozen):
    """Generated images to train on beside the real ones, in one folder per class that has any.

    `folder` is a path below the data directory; as it only describes, `name` tells one set of images from
    another. With `list_file`, a file in it lists them, in place of a folder per class. Each class takes its
    first images in the order of their file names, or of the list: at most `max_per_class`, and no more than
    fill it up to `fill_to`, real ones included. `weight` is the share of the epochs in which each of them
    takes part. `kind` is the literature's word for where they come from.
    """

    name: Name
    folder: str = Field(json_schema_extra=DESCRIBES)
    list_file: str | None = Field(None, json_schema_extra=DESCRIBES)
    kind: Literal["generated_pretrained", "generated_in_domain", "other"] = Field(
        "generated_pretrained", json_schema_extra=DESCRIBES
    )
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_per_class: Count | None = None
    fill_to: Count | None = None


class ListFiles(Frozen):
    """Where a data set's list files are: paths below its folder, as are those of the images in them.

    A line is an image's path, a space and its label; in a .csv file a comma parts them. `val` serves to
    select a checkpoint. `classes` has a class's name on each line, in the order of the labels.
    """

    train: str
    test: str
    val: str | None = None
    classes: str | None = Field(None, json_schema_extra=DESCRIBES)


class Parts(Frozen):
    """What the parts of a data set are called where it lies: folders, splits, or words in the names of files.

    A name with `*` or `?` is a pattern of paths. `test` is by default the first that is there of test,
    validation and val; `val` serves to select a checkpoint where images are streamed.
    """

    train: str = "train"
    test: str | None = None
    val: str | None = None


class Columns(Frozen):
    """Which columns, or suffixes in WebDataset shards, have the images and the labels, where that is open."""

    image: str | None = None
    label: str | None = None


class DataSet(Frozen):
    """A data set and how its long tail is cut.

    `folder` is a path below the data directory. `copy_of` names the published data set of which this
    is a changed copy and `copy_kind` says how it differs ("JPEG quality 75"): such a copy is never
    compared as if it were the original, unless it says that it is `comparable`; then `copy_kind` is a
    footnote to its numbers. `md5` are the checksums of CIFAR's files in `folder`, as the lines that md5sum
    prints, where these are not the official ones but have their format. `n_max` is the size of the largest
    class (default: all images), `test_per_class` what is held out where a source has no test set of its own.
    With `held_out` training images take the place of the test set, to choose hyper-parameters by: so many of
    each class, or such a share of its images, as `longtail.held_counts` has it. The tail is cut without them.
    Shot groups go by the real images alone, whatever `extra_train` adds.

    `split_seed` draws the subset, 0 the papers'. `class_order` is the seed of a permutation that says which
    class gets which count, 0 the order of the labels. `label_noise` is the share of the training labels that
    are replaced by another class, all alike, drawn by `split_seed`: methods see the wrong labels, shot groups
    go by the true ones.

    Images that are `streamed` stay on disk, whole, as those of list files do by default; all others are read
    into memory at `image_size`. `short_side` is for copies of them that `data prepare` shrank until the
    shorter side has so many pixels: faster to read, and other pixels.

    With `orientation: exif` images are turned as their files say, which is ignored otherwise (the other rules
    of decoding are in `bench.data.read.decoding`). `allow_leak` says that test images may be trained on, as
    in a data set that was published so; without it that is an error.
    """

    name: Name
    source: Literal["digits", "cifar10", "cifar100", "folder", "list", "parquet", "datasets", "webdataset"]
    title: str = Field("", json_schema_extra=DESCRIBES)
    folder: str | None = Field(None, json_schema_extra=DESCRIBES)
    lists: ListFiles | None = None
    parts: Parts | None = None
    columns: Columns | None = None
    streamed: bool | None = None
    short_side: Count | None = None
    copy_of: str | None = Field(None, json_schema_extra=DESCRIBES)
    copy_kind: str | None = Field(None, json_schema_extra=DESCRIBES)
    comparable: bool = Field(False, json_schema_extra=DESCRIBES)
    md5: tuple[str, ...] = Field((), json_schema_extra=DESCRIBES)
    image_size: Count = 32
    mean: tuple[float, float, float] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, float, float] = (0.2023, 0.1994, 0.2010)
    profile: Literal["exponential", "step", "pareto", "natural"] = "exponential"
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    class_order: Annotated[int, Field(ge=0, lt=2**32)] = 0
    label_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    n_max: Count | None = None
    test_per_class: Count | None = None
    held_out: HeldOut | None = None
    shots: ShotRule = ShotRule()
    extra_train: ExtraTrain | None = None
    orientation: Literal["exif"] | None = None
    allow_leak: bool | None = Field(None, json_schema_extra=DESCRIBES)

    @property
    def upright(self) -> bool:
        """Whether images are turned as their EXIF orientation says."""
        return self.orientation == "exif"

    @property
    def tail(self) -> str:
        """How the training set is drawn, in words, where it is not by the papers' rule; else `STANDARD`."""
        told = {
            self.profile: self.profile not in ("exponential", "natural"),
            f"split {self.split_seed}": self.split_seed,
            f"class order {self.class_order}": self.class_order,
            f"label noise {self.label_noise:g}": self.label_noise,
        }
        return ", ".join(words for words, differs in told.items() if differs) or STANDARD

    @property
    def on_disk(self) -> bool:
        """Whether its images stay on disk."""
        return self.source == "list" if self.streamed is None else self.streamed

    @model_validator(mode="after")
    def _lists_have_a_source(self) -> DataSet:
        if (self.source == "list") != (self.lists is not None):
            raise ValueError("'source: list' needs lists: {train, test}, and only it has them")
        if self.source == "list" and not self.folder:
            raise ValueError("'source: list' needs folder, a path below the data directory")
        if self.source in ("parquet", "datasets", "webdataset") and not self.folder:
            raise ValueError(f"'source: {self.source}' needs folder, a path below the data directory")
        if self.source in ("digits", "cifar10", "cifar100") and (self.streamed or self.parts):
            raise ValueError(f"'source: {self.source}' is read into memory, and has its own parts")
        if self.parts is not None and (self.source == "list" or (self.parts.val and not self.on_disk)):
            raise ValueError("parts is for other sources than list, and its val for images that are streamed")
        if self.columns is not None and self.source not in ("parquet", "datasets", "webdataset"):
            raise ValueError("columns is for 'source: parquet', 'datasets' and 'webdataset'")
        if self.short_side is not None and not self.on_disk:
            raise ValueError("short_side is for 'source: list', and what is streamed")
        if self.md5 and not (self.source in ("cifar10", "cifar100") and self.folder and self.copy_of):
            raise ValueError("md5 is for files in the format of CIFAR: it needs source, folder and copy_of")
        if any(len(line.split()) != 2 for line in self.md5):
            raise ValueError("md5 has lines as md5sum prints them: a checksum and a file name")
        if self.comparable and not self.copy_kind:
            raise ValueError("comparable needs copy_of, and copy_kind, which says how the copy differs")
        if self.profile == "natural" and self.class_order:
            raise ValueError("class_order permutes nothing: 'profile: natural' keeps every image")
        if self.profile == "natural" and self.split_seed and not (self.held_out or self.label_noise):
            raise ValueError("split_seed draws nothing: 'profile: natural' keeps every image")
        return self


class Sharpness(Frozen):
    """A step whose gradient is taken at a distance `rho` from the weights; see `bench.train.displaced`.

    `sam`, `imbsam`, `focal_sam` and `sam_a` climb first: two passes a step, and all but `sam` weigh images
    by their class. `gaussian` moves at random: one pass. `adaptive` measures distance relative to each
    weight's size. `eta` is ImbSAM's: the classes with fewer images are its tail. `strength` and `gamma` are
    Focal-SAM's: a class's share of the climb is strength (1 - n_c / N)^gamma. `halve_every` so many epochs
    the random distance is halved.
    """

    form: Literal["sam", "imbsam", "focal_sam", "sam_a", "gaussian"] = "sam"
    rho: Positive = 0.05
    adaptive: bool = False
    eta: Count = 20
    gamma: Annotated[float, Field(ge=0)] = 3.0
    strength: Positive = 0.5
    halve_every: Count | None = None


class Optimizer(Frozen):
    """The optimiser of one stage; `clip` is the largest norm that the whole gradient keeps."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.1
    momentum: Share = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 2e-4
    clip: Positive | None = None
    sharpness: Sharpness | None = None


class Averaging(Frozen):
    """Weights averaged over the run, scored at its end beside the last ones.

    `ema` moves by 1 - `decay` in each step, faster in the first ones; `swa` is the mean of those at the ends
    of the epochs after the share `start` of them.
    """

    kind: Literal["ema", "swa"]
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    start: Share = 0.75


class Schedule(Frozen):
    """The learning rate over the epochs (from 0), as a factor of the optimiser's rate.

    `lead` is how many epochs a cosine runs ahead of the clock (BCL, BCCL and ProCo: 1).
    """

    kind: Literal["constant", "steps", "cosine"] = "cosine"
    per: Literal["epoch", "step"] = "epoch"
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    lead: Annotated[int, Field(ge=0)] = 0
    milestones: tuple[int, ...] = ()
    factors: tuple[Positive, ...] = ()

    @model_validator(mode="after")
    def _steps_have_factors(self) -> Schedule:
        if len(self.milestones) != len(self.factors):
            raise ValueError(
                f"{len(self.milestones)} milestones need as many factors, got {len(self.factors)}"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        if bool(self.milestones) != (self.kind == "steps"):
            raise ValueError("milestones and factors belong to 'kind: steps', and it needs them")
        return self


class Protocol(Frozen):
    """How a cell is trained and scored: what makes two numbers comparable.

    `augmentation` is the policy of the view "main"; `views` overrides the policies of the method's views,
    one for each, and `sampler` its sampler. The test set is scored after every `evaluate_every`-th epoch and
    after each of the `evaluate_last` ones. `label_smoothing` is the share of a label that is spread over
    all classes, for methods that take it. With `subsample` each class keeps at most so many times the images
    of the smallest one, always the same ones.
    """

    epochs: Annotated[int, Field(ge=0)] = 200
    batch_size: Count = 128
    drop_last: bool = False
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augmentation: str = "crop_flip"
    views: tuple[str, ...] = ()
    sampler: str | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    averaging: Averaging | None = None
    subsample: Count | None = None
    evaluate_every: Count = 1
    evaluate_last: Count = 1

    def scores_after(self, epoch: int) -> bool:
        """Tell whether the test set is scored after an epoch, counted from 0."""
        return (epoch + 1) % self.evaluate_every == 0 or epoch >= self.epochs - self.evaluate_last


class MethodChoice(Frozen):
    """A registered method with all its hyper-parameters written out (see `Entry.choose`).

    `changed` names those that are not the method's defaults: they alone enter the id.
    """

    name: Name
    version: Count = 1
    params: dict[str, Param] = {}
    changed: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        changed = {name: self.params[name] for name in self.changed}
        return {"name": self.name, "version": self.version, "params": changed}


class BackboneChoice(Frozen):
    """A timm model name and the keyword arguments it is created with."""

    name: str
    options: dict[str, Param] = {}


class Cell(Frozen):
    """One point of a grid; `id` is its short hash, `run_id` the name of its run directory.

    It starts from `parent`, or from that and `others`, in this order.
    """

    method: MethodChoice
    dataset: DataSet
    imbalance_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    backbone: BackboneChoice
    protocol: Protocol
    seed: Annotated[int, Field(ge=0)] = 0
    mode: Literal["fast", "exact"] = "fast"
    parent: Cell | None = None
    others: tuple[Cell, ...] = ()

    @property
    def parents(self) -> tuple[Cell, ...]:
        """All cells that it starts from, in the recipe's order."""
        return () if self.parent is None else (self.parent, *self.others)

    @cached_property
    def id(self) -> str:
        """Ten hexadecimal digits of the hash of the canonical form; key order is not in it."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:10]

    @cached_property
    def run_id(self) -> str:
        """The run directory's name: readable axes, then the id, which alone decides."""
        axes = f"{self.dataset.name}-if{self.imbalance_factor:g}-{self.method.name}-s{self.seed}"
        return f"{axes}-{self.id}"

    def family(self) -> list[Cell]:
        """Return the cell and its ancestors, eldest first: the order in which they must train."""
        return [*(member for parent in self.parents for member in parent.family()), self]


def families(cells: Iterable[Cell]) -> dict[str, Cell]:
    """Return the cells and their ancestors by run id, parents first."""
    return {member.run_id: member for cell in cells for member in cell.family()}
