"""List files: what they hold, what is wrong with them and in which line, and where their images lie."""

from __future__ import annotations

import json
import lzma
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import photo_trees
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project import ROOT, SHARED

from bench.cell import DataSet, ListFiles
from bench.data.read.lists import LONGEST_PATH, read_list, read_lists
from bench.data.sets.catalogue import DATASETS
from bench.data.sets.known import KNOWN, git_blob
from bench.data.split.longtail import shot_groups
from bench.errors import BenchError
from bench.launch.checks import training_images
from bench.recipe import load as load_recipe
from bench.registry import find

SPLITS = SHARED / "data/splits.tar.xz"
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def listed(folder: Path, text: str | bytes, name: str = "list.txt") -> Path:
    content = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(content)
    return folder / name


# -- reading ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "a/x.jpg 0\nb c/y.JPEG 12\n"),
        ("list.txt", "a/x.jpg 0\nb c/y.JPEG 12"),
        ("list.txt", "\ufeffa/x.jpg 0\r\n\r\nb c/y.JPEG\t12\r\n\n"),
        ("list.csv", "img,label\na/x.jpg,0\nb c/y.JPEG,12"),
        ("list.csv", "a/x.jpg,0\r\nb c/y.JPEG, 12\r\n"),
    ],
)
def test_a_line_is_a_path_and_a_label(tmp_path: Path, name: str, text: str) -> None:
    listing = read_list(listed(tmp_path, text, name))
    assert [listing.path(i) for i in range(2)] == ["a/x.jpg", "b c/y.JPEG"]
    assert listing.labels.tolist() == [0, 12]
    assert len(listing) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg 0\nb.jpg\n", r"list\.txt:2: should be an image's path and its label"),
        ("a.jpg x\n", r"list\.txt:1: the label should be a number from 0 to 999,999, got 'x'"),
        ("a.jpg -1\n", r"list\.txt:1: the label .* got '-1'"),
        ("a.jpg 1.0\n", r"list\.txt:1: the label .* got '1\.0'"),
        ("a.jpg ٣\n", r"list\.txt:1: the label"),
        ("a.jpg 1_0\n", r"list\.txt:1: the label"),
        (f"a.jpg {'9' * 5000}\n", r"list\.txt:1: the label .* got '9{40}'"),
        ("a.jpg 0\n\n/etc/passwd 1\n", r"list\.txt:3: '/etc/passwd' leaves the data set's folder"),
        ("a/../../b.jpg 0\n", r"list\.txt:1: .* leaves the data set's folder"),
        ("a\0b.jpg 0\n", r"list\.txt:1: .* has characters that no file name should have"),
        ("\x1b[31mred.jpg 0\n", r"list\.txt:1: .* has characters that no file name"),
        (f"{'a' * 2**20}.jpg 0\n", rf"list\.txt:1: a path of .* characters; the most is {LONGEST_PATH}"),
        ("\n \n", r"list\.txt: no image in this list"),
        (b"a.jpg 0\n\xff\xfe 1\n", r"list\.txt:2: not UTF-8 text"),
    ],
)
def test_a_mistake_is_reported_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(BenchError, match=message) as error:
        read_list(listed(tmp_path, text))
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_a_missing_list_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"list\.txt: No such file or directory"):
        read_list(tmp_path / "list.txt")


@FUZZ
@given(st.one_of(st.binary(max_size=200), st.text("ab/. ,0\n\r\t9-\0", max_size=80).map(str.encode)))
def test_anything_is_a_listing_or_one_line_of_complaint(tmp_path: Path, content: bytes) -> None:
    for name in ("list.txt", "list.csv"):
        listing, complaint = None, ""
        try:
            listing = read_list(listed(tmp_path, content, name))
        except BenchError as error:
            complaint = str(error)
        if listing is None:
            assert complaint.startswith(f"{tmp_path / name}:")
            assert "\n" not in complaint
            continue
        assert len(listing.paths) == len(listing.labels) == len(listing.lines) > 0
        lines = content.decode("utf-8-sig").split("\n")
        for i in range(len(listing)):
            inside = (tmp_path / listing.path(i)).resolve()
            assert inside.is_relative_to(tmp_path.resolve())
            assert lines[listing.lines[i] - 1].strip().startswith(listing.path(i))
            assert int(lines[listing.lines[i] - 1].strip()[-1]) == listing.labels[i] % 10


NAMES = st.text(st.characters(categories=("Ll", "Nd"), include_characters="_-é本"), min_size=1, max_size=9)


@FUZZ
@given(st.lists(st.tuples(NAMES, st.integers(0, 999_999)), min_size=1, max_size=20), st.booleans())
def test_what_is_written_is_read(tmp_path: Path, rows: list[tuple[str, int]], csv: bool) -> None:
    file = tmp_path / ("list.csv" if csv else "list.txt")
    photo_trees.list_file(file, [f"a/{name}.jpg" for name, _ in rows], [label for _, label in rows])
    listing = read_list(file)
    assert [(listing.path(i), int(listing.labels[i])) for i in range(len(listing))] == [
        (f"a/{name}.jpg", label) for name, label in rows
    ]


# -- data sets ----------------------------------------------------------------------------------------
def a_set(data: Path, train: str, test: str = "x/t.jpg 0\n", **lists: str) -> DataSet:
    root = data / "set"
    root.mkdir(exist_ok=True)
    listed(root, train, "train.txt")
    listed(root, test, "test.txt")
    files = ListFiles(train="train.txt", test="test.txt", **lists)
    return DataSet(name="mine", source="list", folder="set", lists=files, image_size=32, profile="natural")


@pytest.mark.parametrize(
    ("train", "names"),
    [
        ("t/n1/a.jpg 0\nt/n2/b.jpg 1\nt/n2/c.jpg 1\n", ("n1", "n2")),
        ("t/Aves/7/a.jpg 0\nt/Fungi/7/b.jpg 1\n", ("Aves/7", "Fungi/7")),
        ("all/a.jpg 0\nall/b.jpg 1\n", ("0", "1")),
        ("t/n1/a.jpg 0\nt/n2/b.jpg 1\nt/n3/c.jpg 1\n", ("0", "1")),
        ("a.jpg 0\nn/b.jpg 1\n", ("0", "1")),
    ],
)
def test_classes_are_named_after_their_folders(tmp_path: Path, train: str, names: tuple[str, ...]) -> None:
    assert read_lists(a_set(tmp_path, train), tmp_path).class_names == names


def test_a_file_may_name_the_classes(tmp_path: Path) -> None:
    dataset = a_set(tmp_path, "a.jpg 0\nb.jpg 1\n", classes="names.txt")
    listed(tmp_path / "set", "tench\ngreat white shark\n", "names.txt")
    assert read_lists(dataset, tmp_path).class_names == ("tench", "great white shark")
    for text, message in (
        ("tench\n", r"names\.txt: 1 names for 2 classes"),
        ("tench\ntench\n", r"names\.txt:2: 'tench' is not a name, or is listed twice"),
        ("tench\n\nshark\n", r"names\.txt:2: '' is not a name"),
        (b"\xff", r"names\.txt: not readable \(UnicodeDecodeError\)"),
    ):
        listed(tmp_path / "set", text, "names.txt")
        with pytest.raises(BenchError, match=message):
            read_lists(dataset, tmp_path)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("a.jpg 0\nb.jpg 2\n", "t.jpg 0\n", r"train\.txt: no image of class 1, though labels go up to 2"),
        ("a.jpg 0\nb.jpg 0\n", "t.jpg 0\n", r"train\.txt: one class only"),
        ("a.jpg 0\nb.jpg 1\n", "t.jpg 0\n\nu.jpg 2\n", r"test\.txt:3: label 2, but train\.txt has 2 classes"),
    ],
)
def test_labels_have_to_fit(tmp_path: Path, train: str, test: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        read_lists(a_set(tmp_path, train, test), tmp_path)


def test_lists_and_folder_stay_below_the_data_directory(tmp_path: Path) -> None:
    dataset = a_set(tmp_path, "a.jpg 0\nb.jpg 1\n")
    lists = ListFiles(train="train.txt", test="../../elsewhere.txt")
    for change in ({"folder": "../set"}, {"lists": lists}):
        with pytest.raises(BenchError, match="leaves the data directory"):
            read_lists(dataset.model_copy(update=change), tmp_path)
    with pytest.raises(BenchError, match=r"no such folder for 'mine'.*data check mine"):
        read_lists(dataset, tmp_path / "nowhere")


@pytest.mark.parametrize("lies", ["sorted", "flat"])
@pytest.mark.parametrize("says", ["sorted", "flat"])
def test_imagenet_s_two_path_styles_are_found_on_either_disk(tmp_path: Path, lies: str, says: str) -> None:
    root = photo_trees.imagenet(tmp_path)
    files = sorted((root / "val").rglob("*.JPEG"))
    if lies == "flat":
        files = [Path(shutil.move(file, root / "val" / file.name)) for file in files]
    if says == "flat":
        text = (root / "ImageNet_LT_test.txt").read_text()
        for wnid in photo_trees.WNIDS:
            text = text.replace(f"val/{wnid}/", "val/")
        listed(root, text, "ImageNet_LT_test.txt")
    lists = read_lists(DATASETS["imagenet_lt"], tmp_path)
    assert {root / lists.test.path(i) for i in range(len(lists.test))} == set(files)
    assert len(lists.test) == len(files) == 8
    by_label = dict(zip(map(lists.test.path, range(8)), lists.test.labels.tolist(), strict=True))
    assert all(f"ILSVRC2012_val_{label:04}" in path for path, label in by_label.items())


def test_counts_are_known_without_an_image(tmp_path: Path) -> None:
    root = photo_trees.places(tmp_path)
    shutil.rmtree(root / "train")
    cell = photo_trees.cell(DATASETS["places_lt"], find("ce").choose())
    assert training_images(cell, tmp_path) == sum(photo_trees.COUNTS)


# -- recipes and identity -----------------------------------------------------------------------------
RECIPE = """
methods: {ce: {}}
grid: {dataset: mine, imbalance_factor: 1, backbone: resnet8_cifar}
protocol: {augmentation: %s}
datasets:
  mine:
    source: %s
    folder: mine
    image_size: 32
    profile: natural
    %s
"""


def recipe(folder: Path, lists: str, source: str = "list", augmentation: str = "resized_crop_flip") -> Any:
    (folder / "r.yaml").write_text(RECIPE % (augmentation, source, lists))
    return load_recipe(folder / "r.yaml").points[0].cell


def test_a_recipe_writes_down_list_files(tmp_path: Path) -> None:
    lists = "lists: {train: a.txt, test: b.csv}"
    cell = recipe(tmp_path, lists)
    assert cell.dataset.lists == ListFiles(train="a.txt", test="b.csv")
    assert recipe(tmp_path, "lists: {train: a2.txt, test: b.csv}").id != cell.id
    assert recipe(tmp_path, lists + "\n    short_side: 256").id != cell.id
    assert (
        recipe(tmp_path, lists, augmentation="timm_randaugment").protocol.augmentation == "timm_randaugment"
    )
    elsewhere = cell.model_copy(update={"dataset": cell.dataset.model_copy(update={"folder": "other"})})
    assert elsewhere.id == cell.id, "where the images lie changes no result"


@pytest.mark.parametrize(
    ("lists", "source", "augmentation", "message"),
    [
        ("title: x", "list", "none", r"r\.yaml:\d+: .*needs lists: \{train, test\}"),
        ("lists: {train: a.txt, test: b.txt}", "folder", "none", "only it has them"),
        ("lists: {train: a.txt}", "list", "none", r"lists.*needs 'test'"),
        ("lists: {train: a.txt, tset: b.txt}", "list", "none", r"unknown key 'tset'; did you mean 'test'"),
        ("short_side: 64", "folder", "none", "short_side is for"),
        ("title: x", "folder", "timm_randaugment", "unknown augmentation 'timm_randaugment'"),
    ],
)
def test_mistakes_are_reported_where_they_stand(
    tmp_path: Path, lists: str, source: str, augmentation: str, message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        recipe(tmp_path, lists, source, augmentation)


# -- the published lists ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SPLITS.exists():
        pytest.skip("needs the published list files, which do not come with the code")
    folder = tmp_path_factory.mktemp("official")
    with lzma.open(SPLITS) as file, tarfile.open(fileobj=file) as tar:
        tar.extractall(folder, filter="data")
    return folder / "splits"


@pytest.mark.parametrize(
    ("name", "part", "file"),
    [
        ("imagenet_lt", "val", "ImageNet_LT_val.txt"),
        ("imagenet_lt", "test", "ImageNet_LT_test.txt"),
        ("inaturalist2018", "test", "iNaturalist18_val.txt"),
        *[("places_lt", part, f"Places_LT_{part}.txt") for part in ("train", "val", "test")],
        *[("places_lt", part, f"v2/Places_LT_v2_{part}.txt") for part in ("train", "val", "test")],
        *[
            ("mini_imagenet_lt", part, f"mini_imagenet_lt_kitsch231/{part}.csv")
            for part in ("train", "val", "test")
        ],
    ],
)
def test_the_published_lists_are_as_known(splits: Path, name: str, part: str, file: str) -> None:
    listing, known = read_list(splits / file), KNOWN[name].lists[part]
    counts = np.bincount(listing.labels)
    assert (len(listing), len(counts)) == (known.images, KNOWN[name].classes)
    assert (counts.max(), counts.min()) == (known.most, known.least)
    assert git_blob((splits / file).read_bytes()) in known.blobs
    if known.shots:
        groups = shot_groups(counts, DATASETS[name].shots)
        assert tuple(map(len, groups.values())) == known.shots
    assert len(listing.path(len(listing) - 1)) > 10, "the last line may lack its newline"


def test_the_published_class_counts_of_imagenet_lt_are_as_known(splits: Path) -> None:
    counts = np.array(
        list(json.loads((splits / "ImageNet_LT_train_class_number_DSCL.json").read_text()).values())
    )
    known = KNOWN["imagenet_lt"].lists["train"]
    assert (counts.sum(), len(counts), counts.max(), counts.min()) == (
        known.images,
        1000,
        known.most,
        known.least,
    )
    assert tuple(map(len, shot_groups(counts, DATASETS["imagenet_lt"].shots).values())) == known.shots


def test_what_is_known_agrees_with_itself() -> None:
    for name, known in KNOWN.items():
        lists = DATASETS[name].lists
        assert lists is not None
        assert set(known.lists) == {part for part in ("train", "val", "test") if getattr(lists, part)}
        for part, one in known.lists.items():
            assert all(len(blob) == 40 for blob in one.blobs)
            assert one.blobs
            assert one.shots is None or sum(one.shots) == known.classes
            if part != "train":
                assert one.images == one.most * known.classes == one.least * known.classes


# -- the recipes --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    [
        "imagenet_lt_decoupling",
        "imagenet_lt_contrastive",
        "imagenet_lt_bccl",
        "imagenet_lt_dscl",
        "inaturalist2018",
        "places_lt",
        "mini_imagenet_lt",
        "mini_imagenet_lt_generated",
    ],
)
def test_the_recipes_for_large_sets_are_whole(name: str) -> None:
    recipe = load_recipe(ROOT / f"recipes/imagenet/{name}.yaml")
    for point in recipe.points:
        dataset = point.cell.dataset
        assert dataset.name in KNOWN
        assert dataset == DATASETS[dataset.name].model_copy(update={"extra_train": dataset.extra_train})
        assert (dataset.extra_train is not None) == name.endswith("_generated")
    for said in ("Published", "GPU hour", f"run {name}"):
        assert said in recipe.notes
