"""`data check` says what is wrong with a copy of a data set and where to get it; `data prepare` packs it."""

from __future__ import annotations

import lzma
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import photo_trees
import pytest
from PIL import Image
from project import SHARED

from bench.cli import main
from bench.data.read import shards
from bench.data.sets.catalogue import DATASETS
from bench.data.sets.check import check
from bench.data.sets.findings import AS_PUBLISHED, COUNTS_AGREE, DIFFERS, UNKNOWN, Findings
from bench.data.sets.known import KNOWN, Known, KnownList, git_blob
from bench.data.split import load as split
from bench.errors import BenchError
from bench.recipe import load

SPLITS = SHARED / "data/splits.tar.xz"
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def bench(capfd: pytest.CaptureFixture[str]) -> Command:
    """The command line: its exit code, and all it prints."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out + err

    return call


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return photo_trees.imagenet(tmp_path)


@pytest.fixture
def as_known(root: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    """What is known of ImageNet-LT is replaced by what the small tree is."""
    lists = DATASETS["imagenet_lt"].lists
    assert lists is not None
    blobs = {part: git_blob((root / name).read_bytes()) for part, name in lists.model_dump().items() if name}
    known = Known(
        classes=4,
        lists={
            "train": KnownList(19, 9, 2, (0, 0, 4), (blobs["train"],)),
            "val": KnownList(4, 1, 1, None, (blobs["val"],)),
            "test": KnownList(8, 2, 2, None, (blobs["test"],)),
        },
        images_from="the image shop",
        lists_from="the list shop",
    )
    monkeypatch.setitem(KNOWN, "imagenet_lt", known)
    return known


def checked(root: Path, **options: bool) -> Findings:
    return check(DATASETS["imagenet_lt"], root, **options)


def verdicts(findings: Findings) -> dict[str, str]:
    return {part.part: part.verdict for part in findings.parts}


def test_git_names_content_so() -> None:
    assert git_blob(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.usefixtures("as_known")
def test_a_whole_copy_has_no_fault(root: Path) -> None:
    looked: list[int] = []
    findings = check(DATASETS["imagenet_lt"], root, decode=True, report=looked.append)
    assert verdicts(findings) == dict.fromkeys(("train", "val", "test"), AS_PUBLISHED)
    assert findings.present == {"train": 19, "val": 4, "test": 8}
    assert not findings.faults + findings.remarks + findings.remedies
    assert sum(looked) == 31
    train = findings.parts[0]
    assert (train.images, train.classes, train.most, train.least, train.shots) == (19, 4, 9, 2, (0, 0, 4))


@pytest.mark.usefixtures("as_known")
def test_another_order_is_a_remark_and_other_counts_are_a_fault(root: Path) -> None:
    file = root / "ImageNet_LT_train.txt"
    lines = file.read_text().split("\n")
    file.write_text("\n".join(reversed(lines)))
    findings = checked(root)
    assert verdicts(findings)["train"] == COUNTS_AGREE
    assert not findings.faults
    assert "not byte for byte a list we know" in findings.remarks[0]
    file.write_text("\n".join(sorted(lines)[1:]))
    findings = checked(root)
    assert verdicts(findings)["train"] == DIFFERS
    assert "18 images instead of 19, 8 images in the largest class instead of 9" in findings.faults[0]
    assert findings.remedies == ["lists: the list shop"]


@pytest.mark.usefixtures("as_known")
def test_images_that_are_missing_empty_or_broken_are_listed(root: Path) -> None:
    images = sorted((root / "train/n01440764").glob("*_[0-8].JPEG"))
    for image in images[:7]:
        image.unlink()
    images[7].write_bytes(b"")
    images[8].write_bytes(images[8].read_bytes()[:300])
    Image.new("RGB", (8, 8)).save(root / "val/n01443537/ILSVRC2012_val_00010000.JPEG")
    findings = checked(root)
    empty, missing = findings.faults
    assert empty == "train: 1 of 19 images empty: train/n01440764/n01440764_7.JPEG"
    assert missing.startswith("train: 7 of 19 images missing: train/n01440764/n01440764_")
    assert missing.endswith(".JPEG and 2 more")
    assert missing.count(".JPEG") == 5
    assert findings.remedies == ["images: the image shop"]
    assert findings.present == {"train": 12, "val": 4, "test": 8}
    findings = checked(root, decode=True)
    assert f"images broken: train/n01440764/{images[8].name}" in "".join(findings.faults)
    assert findings.remarks == [
        "test: 1 of 8 images of one colour: val/n01443537/ILSVRC2012_val_00010000.JPEG"
    ]


@pytest.mark.usefixtures("as_known")
def test_an_image_in_two_lists_is_a_leak(root: Path) -> None:
    train, test = root / "ImageNet_LT_train.txt", root / "ImageNet_LT_test.txt"
    lines = test.read_text().split("\n")
    first = train.read_text().split("\n")[0]
    test.write_text("\n".join([first, *lines[1:]]))
    findings = checked(root)
    assert "test: 1 images are in train too: ImageNet_LT_train.txt:1 = ImageNet_LT_test.txt:1" in (
        findings.faults
    )
    test.write_text("\n".join([lines[1], *lines[1:]]))
    assert "test: 1 lines repeat an image: ImageNet_LT_test.txt:1 = ImageNet_LT_test.txt:2" in (
        checked(root).faults
    )


@pytest.mark.usefixtures("as_known")
def test_all_lists_are_judged_though_one_is_missing(root: Path) -> None:
    (root / "ImageNet_LT_train.txt").unlink()
    (root / "ImageNet_LT_val.txt").write_text("nonsense\n")
    findings = checked(root)
    assert verdicts(findings) == {"test": AS_PUBLISHED}
    assert len(findings.faults) == 2
    assert "train list:" in findings.faults[0]
    assert "ImageNet_LT_val.txt:1: should be an image's path and its label" in findings.faults[1]
    assert findings.remedies == ["lists: the list shop"]
    assert not findings.present


def test_of_other_data_sets_nothing_is_known(root: Path) -> None:
    dataset = DATASETS["imagenet_lt"].model_copy(update={"name": "mine"})
    findings = check(dataset, root)
    assert set(verdicts(findings).values()) == {UNKNOWN}
    assert not findings.faults + findings.remarks + findings.remedies
    copy = dataset.model_copy(update={"copy_of": "imagenet_lt"})
    assert set(verdicts(check(copy, root)).values()) == {DIFFERS}, "a copy is held against its original"


@pytest.mark.parametrize(
    ("name", "files", "judged"),
    [
        ("imagenet_lt", "ImageNet_LT_*.txt", {"val", "test"}),
        ("inaturalist2018", "iNaturalist18_*.txt", {"test"}),
        ("places_lt", "Places_LT_*.txt", {"train", "val", "test"}),
        ("mini_imagenet_lt", "mini_imagenet_lt_kitsch231/*.csv", {"train", "val", "test"}),
    ],
)
def test_the_published_lists_pass_and_their_images_are_missed(
    tmp_path: Path, name: str, files: str, judged: set[str]
) -> None:
    if not SPLITS.exists():
        pytest.skip("needs the published list files, which do not come with the code")
    with lzma.open(SPLITS) as file, tarfile.open(fileobj=file) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "set").mkdir()
    for file in (tmp_path / "splits").glob(files):
        shutil.copy(file, tmp_path / "set")
    findings = check(DATASETS[name], tmp_path / "set")
    assert verdicts(findings) == dict.fromkeys(judged, AS_PUBLISHED)
    assert findings.faults
    assert findings.remedies


# -- the command line ---------------------------------------------------------------------------------
@pytest.mark.usefixtures("as_known")
def test_the_command_tells_all_of_it(root: Path, bench: Command) -> None:
    code, out = bench("data", "check", "imagenet_lt", "--data", root.parent)
    assert code == 0
    assert "ImageNet_LT_train.txt" in out
    assert out.count(AS_PUBLISHED) == 3
    next((root / "train").rglob("*_0.JPEG")).unlink()
    code, out = bench("data", "check", "imagenet_lt", "--root", root)
    assert code == 1
    assert "1 of 19 images missing: train/n" in out
    assert "images: the image shop" in out


def test_the_command_says_of_an_empty_folder_where_to_look(tmp_path: Path, bench: Command) -> None:
    code, out = bench("data", "check", "places_lt", "--root", tmp_path)
    assert code == 1
    assert out.count("No such file or directory; put the list file there") == 3
    assert "classifier-balancing" in out


def test_a_name_alone_still_shows_the_images(bench: Command, tmp_path: Path) -> None:
    for words in (("digits",), ("show", "digits"), ("check", "digits")):
        code, out = bench("data", *words, "--data", tmp_path)
        assert code == 0
        assert "1,297" in out
    for words, message in (
        (("digist",), "did you mean 'digits'?"),
        (("imagenet_lt",), "`run_bench.py data check imagenet_lt` shows where"),
        (("prepare", "digits"), "digits is not streamed but read into memory"),
        (("prepare", "imagenet_lt"), "no such folder for 'imagenet_lt'"),
    ):
        code, out = bench("data", *words, "--data", tmp_path)
        assert code == 2
        assert message in out


def test_a_recipe_s_own_data_set_is_checked_and_packed(tmp_path: Path, bench: Command) -> None:
    photo_trees.places(tmp_path)
    (tmp_path / "places_lt").rename(tmp_path / "mine")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "methods: {ce: {}}\n"
        "grid: {dataset: mine, imbalance_factor: 1, backbone: resnet8_cifar}\n"
        "datasets: {mine: {base: places_lt, folder: mine}}\n"
    )
    code, out = bench("data", "check", "mine", "--recipe", recipe, "--data", tmp_path)
    assert (code, out.count(UNKNOWN)) == (0, 3)
    code, out = bench("data", "prepare", "mine", "--recipe", recipe, "--data", tmp_path, "--short-side", "40")
    assert code == 0
    assert "train  19 images" in out
    assert "short_side: 40" in out
    assert len(list((tmp_path / ".shards/mine").rglob(shards.NAME))) == 3


def test_what_packs_the_images_of_a_recipe_is_reported(tmp_path: Path, bench: Command) -> None:
    photo_trees.imagenet(tmp_path)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "methods: {ce: {}}\n"
        "grid: {dataset: shrunk, imbalance_factor: 1, backbone: resnet8_cifar}\n"
        "datasets: {shrunk: {base: imagenet_lt, short_side: 40, copy_of: imagenet_lt}}\n"
    )
    dataset = load(recipe).points[0].cell.dataset
    with pytest.raises(BenchError, match="not packed") as error:
        split.load(dataset, 1.0, tmp_path)
    commands = re.findall(r"`run_bench\.py (.*)`", str(error.value))
    (command,) = (words.replace("FILE", str(recipe)).split() for words in commands)
    code, out = bench(*command, "--data", tmp_path)
    assert code == 0, out
    assert "base: shrunk" not in out, "there is a recipe already"
    assert split.load(dataset, 1.0, tmp_path).class_counts.tolist() == list(photo_trees.COUNTS)


def test_shrinking_never_enlarges_and_keeps_what_is_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 90, 3), np.uint8)
    for name, image in (("a.png", noise), ("b.png", noise[:12, :20])):
        Image.fromarray(image).save(tmp_path / name)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    shards.pack(files, tmp_path / "packed", 15, lambda n: None, 1)
    found = shards.Shards(tmp_path / "packed", 2)
    assert found.content(1) == files[1].read_bytes()
    (tmp_path / "a.jpg").write_bytes(found.content(0))
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (45, 15))
