"""The images of a cell, and how their long tail is drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.cell.base import DESCRIBES, Count, Deviation, Frozen, HeldOut, Name, Share

#: `DataSet.tail` of a data set that is drawn as in the papers: their profile, subset, class order and labels.
STANDARD = "standard"


class ShotRule(Frozen):
    """Many-shot: more images than `many_above`; few-shot: fewer than `few_below`; else medium."""

    many_above: int = 100
    few_below: int = 20

    @model_validator(mode="after")
    def _groups_are_apart(self) -> ShotRule:
        if self.few_below > self.many_above + 1:
            raise ValueError(
                f"few_below ({self.few_below}) above many_above ({self.many_above}): a class would be both"
            )
        return self


class ExtraTrain(Frozen):
    """Generated images to train on beside the real ones.

    Attributes:
        name: identifies the images, as `folder` is not part of the id.
        folder: a path below the data directory, with one folder for each class that has images.
        list_file: a file in `folder` that lists the images, in place of a folder per class.
        kind: the literature's word for their origin.
        weight: the share of the epochs in which each image takes part.
        max_per_class, fill_to: of each class the first images by file name, or in the list's order, are
            taken: at most `max_per_class`, and no more than fill the class up to `fill_to`, real images
            included.
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
    """The list files of a data set: paths below its folder, as are the paths in them.

    A line is the path of an image, a space and its label; in a .csv file a comma separates them. `val` is
    used to select a checkpoint. `classes` has the name of a class on each line, in the order of the labels.
    """

    train: str
    test: str
    val: str | None = None
    classes: str | None = Field(None, json_schema_extra=DESCRIBES)


class Parts(Frozen):
    """The names of a data set's parts on disk: folders, splits, or words in file names.

    A name with `*` or `?` is a pattern of paths. `test` is by default the first that exists of test,
    validation and val; `val` is used to select a checkpoint, and only for streamed images.
    """

    train: str = "train"
    test: str | None = None
    val: str | None = None


class Columns(Frozen):
    """The columns, or suffixes in WebDataset shards, of images and labels, where these are ambiguous."""

    image: str | None = None
    label: str | None = None


class DataSet(Frozen):
    """A data set and how its long tail is drawn.

    Attributes:
        folder: a path below the data directory.
        streamed: whether images stay on disk, in their own size; the default for list files only. All others
            are read into memory at `image_size`.
        short_side: the shorter side in pixels to which `data prepare` shrank the images: faster to read, but
            other pixels.
        copy_of, copy_kind: the published data set that this is a changed copy of, and how it differs ("JPEG
            quality 75"). Such a copy is never compared with the original unless it is `comparable`; then
            `copy_kind` is a footnote to its numbers.
        md5: checksums of files in the format of CIFAR that are not the official ones, as lines of md5sum.
        n_max: size of the largest class (default: all its images).
        split_seed: draws the subset; 0 is the papers'.
        class_order: seed of a permutation that assigns counts to classes; 0 is the order of the labels.
        label_noise: share of the training labels that are replaced by another class, uniformly, drawn by
            `split_seed`. Methods see the wrong labels; shot groups go by the true ones.
        test_per_class: images held out as test set where a source has none.
        held_out: training images that replace the test set, to choose hyper-parameters by: a number of each
            class, or a share (see `longtail.held_counts`). The tail is drawn from the others.
        shots: the rule of shot groups, which count real images only, not `extra_train`.
        orientation: "exif" turns images as their files say; by default EXIF is ignored. The other rules of
            decoding are in `bench.data.read.decoding`.
        allow_leak: test images may be trained on, as in a data set that was published so; otherwise that is
            an error.
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
    mean: tuple[Share, Share, Share] = (0.4914, 0.4822, 0.4465)
    std: tuple[Deviation, Deviation, Deviation] = (0.2023, 0.1994, 0.2010)
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
        """How the training set is drawn, in words, where that is not the papers' rule; else `STANDARD`."""
        differences = {
            self.profile: self.profile not in ("exponential", "natural"),
            f"split {self.split_seed}": self.split_seed,
            f"class order {self.class_order}": self.class_order,
            f"label noise {self.label_noise:g}": self.label_noise,
        }
        return ", ".join(words for words, differs in differences.items() if differs) or STANDARD

    @property
    def on_disk(self) -> bool:
        """Whether its images stay on disk."""
        return self.source == "list" if self.streamed is None else self.streamed

    @model_validator(mode="after")
    def _fields_agree(self) -> DataSet:
        if (self.source == "list") != (self.lists is not None):
            raise ValueError("'source: list' needs lists: {train, test}, and only it has them")
        if self.source in ("list", "parquet", "datasets", "webdataset") and not self.folder:
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
