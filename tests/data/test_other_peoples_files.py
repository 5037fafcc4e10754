"""Images and folders as other people have them: no image changes or vanishes without a word."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import photo_trees
import pytest
from commands import Bench
from PIL import Image

from bench.cell import DataSet
from bench.data.read import decoding, folder, shards, sources
from bench.data.sets.check import before_training, check
from bench.data.split import load as split
from bench.errors import BenchError

SET = DataSet(name="mine", source="folder", folder="mine", image_size=8, profile="natural")
RAMP = np.arange(64).reshape(8, 8)


def grey(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes of grey images, no two alike."""
    root = tmp_path / "mine"
    for number, (part, name, i) in enumerate(
        (part, name, i) for part in ("train", "test") for name in ("cat", "dog") for i in range(3)
    ):
        grey(root / part / name / f"{i}.png", 10 * number)
    return root


def decoded(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    """Save an image and decode it, as a set in memory and as one on disk do."""
    image.save(path, **options)
    pixels = np.asarray(decoding.decode(path))
    assert np.array_equal(pixels, np.asarray(decoding.decode(path.read_bytes())))
    in_memory = folder.decode({"only": [path]}, 8)[0]
    assert image.size != (8, 8) or np.array_equal(in_memory, pixels)
    assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)
    return pixels


# -- modes -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        ((RAMP * 1000).astype(np.uint16), "png"),
        ((RAMP * 1000).astype(np.uint16), "tif"),
        ((RAMP * 1000).astype(">u2"), "tif"),
        ((RAMP * 1000).astype(np.int32), "tif"),
        ((RAMP * 1000).astype(np.uint16), "pgm"),
        ((RAMP * 1000).astype(np.float32), "tif"),
        (RAMP.astype(np.int32) * 2**24, "tif"),
        ((RAMP / 63).astype(np.float32), "tif"),
    ],
    ids=["16-bit PNG", "16-bit TIFF", "big-endian", "whole", "PGM", "floating", "32 bits", "0 to 1"],
)
def test_grey_of_many_bits_keeps_its_shades(values: np.ndarray, suffix: str, tmp_path: Path) -> None:
    pixels = decoded(Image.fromarray(values), tmp_path / f"a.{suffix}")[..., 0].astype(int)
    most = 1 if values.max() <= 1 else 2**16 if values.max() < 2**16 else 2**32
    assert np.abs(pixels - values.astype(float) * (255 if most == 1 else 256) / most).max() <= 1
    assert len(np.unique(pixels)) == 64


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_of_32_bits_that_holds_8_is_what_it_was(kind: type, tmp_path: Path) -> None:
    pixels = decoded(Image.fromarray((RAMP * 4).astype(kind)), tmp_path / "a.tif")
    assert np.array_equal(pixels[..., 1], RAMP * 4)


def test_dark_16_bit_images_are_dark_and_not_stretched(tmp_path: Path) -> None:
    assert decoded(Image.fromarray(RAMP.astype(np.uint16)), tmp_path / "a.png").max() == 0


@pytest.mark.parametrize("values", [RAMP - 5.0, RAMP * np.nan, RAMP * 1e12])
def test_values_that_have_no_place_in_8_bits_are_refused_by_name(values: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(values.astype(np.float32)).save(path)
    with pytest.raises(BenchError, match=r"a\.tif: not a readable image .*mode F with values"):
        folder.decode({"only": [path]}, 8)


def test_transparency_lies_over_white_and_what_is_opaque_keeps_its_colour(tmp_path: Path) -> None:
    half = Image.new("RGBA", (8, 8), (100, 0, 0, 255))
    half.paste((100, 0, 0, 0), (4, 0, 8, 8))
    grey = half.convert("LA")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([100, 0, 0, 0, 0, 200])
    palette.paste(0, (0, 0, 4, 8))
    for image, name, options in (
        (half, "a.png", {}),
        (half, "a.webp", {"lossless": True}),
        (grey, "b.png", {}),
        (palette, "c.png", {"transparency": 1}),
        (palette, "d.gif", {"transparency": 1}),
        (Image.merge("RGB", half.split()[:3]), "e.png", {"transparency": (100, 0, 0)}),
    ):
        pixels = decoded(image, tmp_path / name, **options)
        assert pixels[0, 7].tolist() == [255, 255, 255], name
        if name != "e.png":
            left = [30, 30, 30] if name == "b.png" else [100, 0, 0]
            assert np.abs(pixels[0, 0].astype(int) - left).max() <= 1, name


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "La", "PA", "RGBa"])
def test_every_mode_becomes_what_pillow_converts_it_to(mode: str) -> None:
    image = Image.new("RGB", (8, 8), (200, 100, 50)).convert("L" if mode in ("La", "PA") else "RGB")
    steps = {"La": ("LA", "La"), "RGBa": ("RGBA", "RGBa"), "PA": ("P", "PA"), "LAB": ()}
    for step in steps.get(mode, (mode,)):
        image = image.convert(step)
    if mode == "LAB":
        image = Image.new("LAB", (8, 8), (128, 0, 0))
    pixels = np.asarray(decoding.to_rgb(image))
    if mode not in ("La", "PA", "RGBa"):
        assert np.array_equal(pixels, np.asarray(image.convert("RGB")))
    assert pixels.shape == (8, 8, 3)


def test_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (50, 150, 250)]
    for name in ("a.gif", "a.tif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert np.asarray(decoding.decode(tmp_path / name))[0, 0].tolist() == [50, 50, 50]


# -- orientation -------------------------------------------------------------------------------------
def turned(path: Path) -> np.ndarray:
    """Save an image that EXIF says is upside down, and return its pixels as stored."""
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 3
    Image.fromarray((RAMP * 4).astype(np.uint8)).save(path, exif=exif)
    return RAMP * 4


def test_orientation_is_ignored_unless_the_data_set_asks_for_it(tree: Path, tmp_path: Path) -> None:
    stored = turned(tree / "train" / "cat" / "0.png")
    as_stored = sources.read(SET, tmp_path).train_images
    assert np.array_equal(as_stored[0, ..., 0], stored)
    exif = SET.model_copy(update={"orientation": "exif"})
    upright = sources.read(exif, tmp_path).train_images
    assert np.array_equal(upright[0, ..., 0], stored[::-1, ::-1])
    assert np.array_equal(upright[1:], as_stored[1:])
    assert "turned by EXIF" in " ".join(check(SET, tree, decode=True).remarks)
    assert "turned by EXIF" not in " ".join(check(exif, tree, decode=True).remarks)


def test_orientation_of_images_on_disk_packed_or_not(tmp_path: Path) -> None:
    root = photo_trees.imagenet(tmp_path)
    victim = root / "train/n01440764/n01440764_0.JPEG"
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    with Image.open(victim) as image:
        image.save(victim, exif=exif, quality=90)
    asked = photo_trees.small("imagenet_lt").model_copy(update={"orientation": "exif"})
    place = None
    for dataset in (photo_trees.small("imagenet_lt"), asked):
        data = photo_trees.split_of(tmp_path, dataset)
        names = [data.pictures.file(i).name for i in range(len(data.pictures))]
        place = names.index(victim.name)
        size = data.pictures.open(place).size
        assert size == (image.size if dataset is not asked else image.size[::-1])
    plain = photo_trees.split_of(tmp_path).fingerprint["train"]
    assert photo_trees.split_of(tmp_path, asked).fingerprint["train"] != plain
    shards.pack([victim], tmp_path / "packed", 20, lambda n: None, 1, upright=True)
    shrunk = decoding.decode(shards.Shards(tmp_path / "packed", 1).content(0))
    assert (shrunk.width > shrunk.height) == (image.height > image.width)


def test_a_data_set_s_id_is_as_before_without_the_new_fields() -> None:
    assert "orientation" not in SET.identity()
    assert "allow_leak" not in SET.model_copy(update={"allow_leak": True}).identity()
    assert SET.model_copy(update={"orientation": "exif"}).identity()["orientation"] == "exif"


# -- files -------------------------------------------------------------------------------------------
def test_every_format_sub_folders_and_files_without_suffix_are_read(tree: Path, tmp_path: Path) -> None:
    cat = tree / "train" / "cat"
    image = Image.new("L", (8, 8), 240)
    for name in ("3.tif", "4.gif", "5.tiff", "6.ppm", "sub/7.jpg", "sub/deeper/8.PNG"):
        (cat / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(cat / name)
    if ".avif" in decoding.suffixes():
        image.save(cat / "9.avif")
        (cat / "9.avif").rename(cat / "3a.avif")
    (cat / "sub/7.jpg").rename(cat / "without")
    (cat / "back").symlink_to(cat)  # a link to where it came from ends
    train = folder.list_tree(tree)["train"]
    more = 6 + (".avif" in decoding.suffixes())
    assert {name: len(files) for name, files in train.classes.items()} == {"cat": 3 + more, "dog": 3}
    assert not train.passed_over
    images = sources.read(SET, tmp_path)
    assert np.bincount(images.train_labels).tolist() == [3 + more, 3]
    assert (images.train_images[:, 0, 0, 0] > 230).sum() == more


def test_what_is_not_read_is_counted_and_named(tree: Path, tmp_path: Path, bench: Bench) -> None:
    (tree / "train" / "cat" / "notes.txt").write_text("no image")
    (tree / "train" / "cat" / "sub").mkdir()
    (tree / "train" / "cat" / "sub" / "mask").write_bytes(b"\0\1")
    grey(tree / "test" / "loose.png", 1)
    remarks = before_training(SET, tmp_path, np.array([3, 3]))
    (line,) = (remark for remark in remarks if "not read" in remark)
    assert line.startswith("3 files are no images of a class and are not read")
    assert all(name in line for name in ("notes.txt", "mask", "loose.png", "1 .txt"))
    assert "notes.txt" in " ".join(check(SET, tree).remarks)


def test_an_image_of_a_kind_that_pillow_does_not_read_is_refused_by_name(tree: Path, tmp_path: Path) -> None:
    (tree / "train" / "cat" / "scan.dcm").write_bytes(b"\0" * 200)
    with pytest.raises(BenchError, match=r"scan\.dcm: Pillow does not read \.dcm here; convert it"):
        sources.read(SET, tmp_path)


def test_names_that_are_not_utf_8_are_read_and_those_of_classes_refused(tree: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        grey(tree / "train" / "cat" / name, 200)
    except OSError:
        pytest.skip("needs a file system that takes any bytes as a name")
    images = sources.read(SET, tmp_path)
    assert np.bincount(images.train_labels).tolist() == [4, 3]
    before_training(SET, tmp_path, np.array([4, 3]))
    (tree / "train" / "cat" / name).write_bytes(b"broken")
    with pytest.raises(BenchError, match="not a readable image") as error:
        sources.read(SET, tmp_path)
    print(str(error.value).encode())  # can be written anywhere
    (tree / "train" / "cat" / name).unlink()
    grey(tree / "train" / name / "0.png", 9)
    with pytest.raises(BenchError, match="the name of this class is not UTF-8 text"):
        sources.read(SET, tmp_path)


def test_generated_images_are_read_by_the_same_rules(tree: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra" / "dog"
    (extra / "sub").mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(extra / "sub" / "a.tif")
    grey(extra / os.fsdecode(b"caf\xe9.png"), 128)
    (extra / "notes.txt").write_text("no image")
    dataset = DataSet.model_validate(
        SET.model_dump() | {"extra_train": {"name": "made", "folder": "extra"}}, strict=False
    )
    made = split.load(dataset, 1.0, tmp_path)
    assert made.extra is not None
    assert made.extra.counts.tolist() == [0, 2]
    assert sorted(made.extra.images[:, 0, 0, 0].tolist()) == [128, 255]
    assert [path.name for path in made.extra.passed_over] == ["notes.txt"]


# -- what run checks ---------------------------------------------------------------------------------
def twice_in_a_class(tree: Path) -> None:
    grey(tree / "train" / "cat" / "again.png", 0)


def with_two_labels(tree: Path) -> None:
    grey(tree / "train" / "dog" / "again.png", 0)


def leaked(tree: Path) -> None:
    grey(tree / "test" / "cat" / "again.png", 0)


def untested(tree: Path) -> None:
    for path in (tree / "test" / "dog").iterdir():
        path.unlink()
    (tree / "test" / "dog").rmdir()


@pytest.mark.parametrize(
    ("change", "remark", "fault"),
    [
        (twice_in_a_class, "train: 1 images repeat an image: ", None),
        (with_two_labels, None, "train: 1 images have two labels: "),
        (leaked, None, "test: 1 images are in train too: "),
        (untested, "test: 1 classes have no image, so their metrics are n/a: dog", None),
    ],
)
def test_what_is_wrong_with_a_tree_is_reported_before_training(
    tree: Path, tmp_path: Path, change: Callable[[Path], None], remark: str | None, fault: str | None
) -> None:
    assert before_training(SET, tmp_path, np.array([3, 3])) == []
    change(tree)
    found = check(SET, tree)
    if fault:
        assert fault in " ".join(found.faults)
        with pytest.raises(BenchError, match=fault):
            before_training(SET, tmp_path, np.array([3, 3]))
    else:
        assert remark in " ".join(before_training(SET, tmp_path, np.array([3, 3])))
        assert remark in " ".join(found.remarks)
        assert not found.faults


def test_only_a_leak_can_be_allowed(tree: Path, tmp_path: Path) -> None:
    allowing = SET.model_copy(update={"allow_leak": True})
    leaked(tree)
    assert "test: 1 images are in train too" in " ".join(
        before_training(allowing, tmp_path, np.array([3, 3]))
    )
    assert not check(allowing, tree).faults
    with_two_labels(tree)
    with pytest.raises(BenchError, match="two labels"):
        before_training(allowing, tmp_path, np.array([3, 3]))


def test_a_copy_of_a_published_set_keeps_the_labels_that_it_gives_twice(tree: Path, tmp_path: Path) -> None:
    with_two_labels(tree)
    copy = SET.model_copy(update={"copy_of": "cifar10", "copy_kind": "PNG"})
    assert "two labels" in " ".join(before_training(copy, tmp_path, np.array([3, 4])))


RECIPE = """\
methods: {{ce: {{}}}}
grid: {{dataset: mine, imbalance_factor: 1, backbone: resnet8_cifar}}
protocol: {{epochs: 1, batch_size: 4}}
datasets:
  mine: {{source: {source}, folder: mine, image_size: 8, profile: natural{more}}}
"""


def commands(tmp_path: Path, source: str = "folder", more: str = "") -> list[object]:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.format(source=source, more=more))
    places = [word for at in ("results", "data", "reports") for word in (f"--{at}", tmp_path / at)]
    places[3] = tmp_path
    return [recipe, *places]


def test_a_set_whose_test_lacks_a_class_trains_and_says_n_a(tree: Path, tmp_path: Path, bench: Bench) -> None:
    untested(tree)
    code, out = bench("run", *commands(tmp_path), "--gpus", "none")
    assert code == 0, out
    assert "1 classes have no image" in out
    assert "1 done" in out


def test_run_and_plan_tell_a_leak_and_the_recipe_may_allow_it(
    tree: Path, tmp_path: Path, bench: Bench
) -> None:
    leaked(tree)
    code, out = bench("run", *commands(tmp_path), "--gpus", "none")
    assert code == 2
    assert "error: mine: test: 1 images are in train too" in out
    assert "allow_leak: true" in out
    recipe, *places = commands(tmp_path)
    assert "test: 1 images are in train too" in bench("plan", recipe, *places[:4], "--gpus", "none")[1]
    code, out = bench("run", *commands(tmp_path, more=", allow_leak: true"), "--gpus", "none")
    assert code == 0, out
    assert "test: 1 images are in train too" in out


LISTS = ", lists: {train: train.txt, test: test.txt}"


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            "a/0 0\na/0 0\nb/1 1\n",
            "a/2 0\nb/3 1\n",
            "train: 1 lines repeat an image: train.txt:1 = train.txt:2",
        ),
        (
            "a/0 0\n./a/0 1\nb/1 1\n",
            "a/2 0\nb/3 1\n",
            "1 images have two labels: train.txt:1 (class 0) = train.txt:2",
        ),
        ("a/0 0\nb/1 1\n", "a/0 0\nb/3 1\n", "test: 1 images are in train too: train.txt:1 = test.txt:1"),
    ],
)
def test_bad_lists_are_reported_before_training(
    tmp_path: Path, bench: Bench, train: str, test: str, message: str
) -> None:
    for name, value in (("a/0", 0), ("b/1", 50), ("a/2", 100), ("b/3", 150)):
        grey(tmp_path / "mine" / f"{name}.png", value)
        (tmp_path / "mine" / f"{name}.png").rename(tmp_path / "mine" / name)
    (tmp_path / "mine" / "train.txt").write_text(train)
    (tmp_path / "mine" / "test.txt").write_text(test)
    code, out = bench("run", *commands(tmp_path, "list", LISTS), "--gpus", "none")
    assert code == 2, out
    assert message in out
    code, out = bench("data", "check", "mine", "--recipe", tmp_path / "r.yaml", "--data", tmp_path)
    assert code == 1
    assert message in out


def test_a_test_list_that_lacks_a_class_is_a_remark(tmp_path: Path) -> None:
    root = photo_trees.imagenet(tmp_path)
    file = root / "ImageNet_LT_test.txt"
    kept = [line for line in file.read_text().split("\n") if not line.endswith(" 2")]
    file.write_text("\n".join(kept))
    dataset = photo_trees.small("imagenet_lt")
    assert "1 classes have no image" in " ".join(before_training(dataset, tmp_path, np.array([9, 5, 3, 2])))


def test_a_recipe_s_own_set_is_shown_and_checked_before_anything_trains(
    tree: Path, tmp_path: Path, bench: Bench
) -> None:
    recipe = commands(tmp_path)[0]
    (tree / "train" / "cat" / "notes.txt").write_text("no image")
    code, out = bench("data", "mine", "--recipe", recipe, "--data", tmp_path)
    assert code == 0, out
    assert "cat, dog" in out
    code, out = bench("data", "check", "mine", "--recipe", recipe, "--data", tmp_path, "--decode")
    assert code == 0, out
    assert "notes.txt" in out
    code, out = bench("data", "mine", "--data", tmp_path)
    assert code == 2
    assert "add --recipe FILE" in out
    (tree / "train" / "cat" / "0.png").write_bytes(b"")
    code, out = bench("data", "check", "mine", "--recipe", recipe, "--data", tmp_path)
    assert code == 1
    assert "1 of 3 images empty: train/cat/0.png" in out.replace("of 6", "of 3")


def test_a_missing_image_of_a_list_is_reported_once_before_training(tmp_path: Path, bench: Bench) -> None:
    root = photo_trees.imagenet(tmp_path)
    next((root / "train").rglob("*_0.JPEG")).unlink()
    dataset = photo_trees.small("imagenet_lt")
    with pytest.raises(BenchError, match=r"_0\.JPEG: No such file or directory"):
        before_training(dataset, tmp_path, np.array([9, 5, 3, 2]))


def test_packing_does_not_take_the_shards_of_other_files_for_these(tmp_path: Path) -> None:
    for name, value in (("v1", 10), ("v2", 200)):
        grey(tmp_path / name / "0.png", value)
        grey(tmp_path / name / "1.png", value + 1)
    first, second = ([tmp_path / name / f"{i}.png" for i in range(2)] for name in ("v1", "v2"))
    (tmp_path / "v2" / "1.png").write_bytes((tmp_path / "v2" / "1.png").read_bytes() + b" ")
    packed = tmp_path / "packed"
    shards.pack(first, packed, None, lambda n: None, 1)
    before = shards.Shards(packed, 2).content(0)
    with pytest.raises(BenchError, match="packed from other files than these"):
        shards.pack(second, packed, None, lambda n: None, 1)
    shards.pack(first, packed, None, lambda n: None, 1)
    for path in first:
        path.unlink()
    shards.pack(first, packed, None, lambda n: None, 1)
    assert shards.Shards(packed, 2).content(0) == before


def test_images_of_lists_with_equal_bytes_are_remarked_on_where_all_are_read(tmp_path: Path) -> None:
    root = photo_trees.imagenet(tmp_path)
    first = sorted((root / "train").rglob("*.JPEG"))[0]
    leak = sorted((root / "val").rglob("*.JPEG"))[0]
    leak.write_bytes(first.read_bytes())
    dataset = photo_trees.small("imagenet_lt").model_copy(update={"name": "mine"})
    assert not check(dataset, root).remarks
    found = check(dataset, root, decode=True)
    assert "test: 1 images are in train too" in " ".join(found.remarks)
    assert leak.name in " ".join(found.remarks)
    assert not found.faults
