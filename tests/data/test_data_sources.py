"""Reading data sets: what is there comes in its order, what is damaged is named with its remedy."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from cifar_files import write_cifar
from PIL import Image

from bench.cell import DataSet
from bench.data.read import cifar as cifar_files
from bench.data.read import folder, sources
from bench.data.sets.catalogue import DATASETS
from bench.errors import BenchError
from bench.vision import torchvision

DIGITS = DATASETS["digits"]


def one_line(error: pytest.ExceptionInfo[BenchError], *wanted: object) -> None:
    """The message is one line and says all that is wanted."""
    message = str(error.value)
    assert "\n" not in message
    for text in wanted:
        assert str(text) in message


def renamed(dataset: DataSet, **fields) -> DataSet:
    return dataset.model_copy(update=fields)


# -- the catalogue and the digits ----------------------------------------------------------------
def test_the_catalogue_names_its_sets_as_it_lists_them():
    large = ["imagenet_lt", "inaturalist2018", "places_lt", "mini_imagenet_lt"]
    assert list(DATASETS) == ["digits", "cifar10", "cifar100", "cifar100_rebuilt", *large]
    assert all(dataset.name == name and dataset.title for name, dataset in DATASETS.items())


def test_digits_are_images_of_digits(tmp_path):
    images = sources.read(DIGITS, tmp_path / "nowhere")
    assert images.train_images.shape == (1797 - 500, 8, 8, 3)
    assert images.test_images.shape == (500, 8, 8, 3)
    assert images.train_images.dtype == np.uint8
    assert images.class_names == tuple("0123456789")
    assert np.bincount(images.test_labels).tolist() == [50] * 10
    everything = np.concatenate([images.train_images, images.test_images])
    assert (everything == everything[..., :1]).all()
    assert (everything.min(), everything.max()) == (0, 255)
    shares = images.train_images / 255
    np.testing.assert_allclose(shares.mean((0, 1, 2)), DIGITS.mean, atol=0.005)
    np.testing.assert_allclose(shares.std((0, 1, 2)), DIGITS.std, atol=0.005)
    assert not (tmp_path / "nowhere").exists()


def test_the_last_digits_of_each_class_are_held_out():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = sources.read(DIGITS, Path("nowhere"))
    for c in range(10):
        mine = digits.images[digits.target == c]
        test = images.test_images[images.test_labels == c][..., 0]
        train = images.train_images[images.train_labels == c][..., 0]
        np.testing.assert_array_equal(np.concatenate([train, test]), np.rint(mine * 15.9375))


def test_what_digits_cannot_be_is_said():
    with pytest.raises(BenchError, match=r"digits: image_size is 32.*set image_size: 8") as error:
        sources.read(renamed(DIGITS, image_size=32), Path())
    one_line(error)
    for held_out in (None, 174):
        with pytest.raises(BenchError, match=r"set test_per_class to .* hold out, below 174"):
            sources.read(renamed(DIGITS, test_per_class=held_out), Path())


def test_labels_out_of_range_are_refused():
    pixels = np.zeros((3, 2, 2, 3), np.uint8)
    for label in (2, -1):
        with pytest.raises(BenchError, match=rf"toy: test image 1 has label {label}, out of range") as error:
            sources.Images(pixels, np.array([0, 1, 1]), pixels, np.array([0, label, 1]), ("a", "b"), "toy")
        one_line(error, "there are 2 classes")


# -- CIFAR's official files ----------------------------------------------------------------------
@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch) -> DataSet:
    """Small files in the official format, whose md5 torchvision takes for the official ones."""
    dataset = DATASETS[request.param]
    class_name, folder_name = cifar_files.CIFAR[request.param]
    kind = getattr(torchvision.datasets, class_name)
    classes, key = (10, "labels") if request.param == "cifar10" else (100, "fine_labels")
    names_key = "label_names" if request.param == "cifar10" else "fine_label_names"
    root = tmp_path / folder_name
    root.mkdir()
    rng = np.random.default_rng(0)

    def write(name, content):
        payload = pickle.dumps(content)
        (root / name).write_bytes(payload)
        return [name, hashlib.md5(payload).hexdigest()]

    def batch(name):
        pixels = rng.integers(0, 256, (classes, 3072), dtype=np.uint8)
        return write(name, {"data": pixels, key: rng.permutation(classes).tolist()})

    monkeypatch.setattr(kind, "train_list", [batch(name) for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [batch(name) for name, _ in kind.test_list])
    names = [f"class {c}" for c in range(classes)]
    name, md5 = write(kind.meta["filename"], {names_key: names})
    monkeypatch.setattr(kind, "meta", {**kind.meta, "filename": name, "md5": md5})
    return dataset


def first_file(dataset: DataSet, data_dir: Path) -> Path:
    class_name, folder_name = cifar_files.CIFAR[dataset.name]
    return data_dir / folder_name / getattr(torchvision.datasets, class_name).train_list[0][0]


def test_cifar_comes_in_the_official_order(cifar, tmp_path):
    images = sources.read(cifar, tmp_path)
    batch = pickle.loads(first_file(cifar, tmp_path).read_bytes())
    pixels = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(images.train_images[: len(pixels)], pixels)
    labels = batch.get("labels") or batch["fine_labels"]
    assert images.train_labels[: len(labels)].tolist() == labels
    assert images.class_names[3] == "class 3"
    assert len(images.train_images) == (50 if cifar.name == "cifar10" else 100)


def test_cifar_is_decoded_once(cifar, tmp_path, monkeypatch):
    first = sources.read(cifar, tmp_path)
    monkeypatch.setattr(cifar_files, "_torchvision", lambda name: pytest.fail("decoded again"))
    second = sources.read(cifar, tmp_path)
    assert second.key == first.key
    assert second.class_names == first.class_names
    for name in sources.ARRAYS[:4]:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert isinstance(getattr(second, name), np.memmap)  # shared with other processes


def test_cifar_that_is_not_there_says_how_to_get_it(tmp_path):
    with pytest.raises(BenchError) as error:
        sources.read(DATASETS["cifar10"], tmp_path / "nowhere")
    one_line(error, tmp_path / "nowhere", "run_bench.py data cifar10", "--data", "cs.toronto.edu")
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_cifar_file_is_named(cifar, tmp_path):
    path = first_file(cifar, tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BenchError) as error:
        sources.read(cifar, tmp_path)
    one_line(error, path, "md5", f"run_bench.py data {cifar.name}")


def test_a_missing_cifar_file_is_named(cifar, tmp_path):
    first_file(cifar, tmp_path).unlink()
    with pytest.raises(BenchError) as error:
        sources.read(cifar, tmp_path)
    one_line(error, first_file(cifar, tmp_path), "missing")


def test_a_failed_download_says_what_to_do_by_hand(tmp_path, monkeypatch):
    def fail(self):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", fail)
    with pytest.raises(BenchError) as error:
        sources.read(DATASETS["cifar10"], tmp_path, download=True)
    one_line(error, "no route to host", "unpack it in", tmp_path)


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", lambda self: pytest.fail("network"))
    with pytest.raises(BenchError, match="no such folder"):
        sources.read(DATASETS["cifar10"], tmp_path)


def test_cifar_is_neither_resized_nor_held_out_from(cifar, tmp_path):
    with pytest.raises(BenchError, match="set image_size: 32"):
        sources.read(renamed(cifar, image_size=64), tmp_path)
    with pytest.raises(BenchError, match="leave out test_per_class"):
        sources.read(renamed(cifar, test_per_class=5), tmp_path)


# -- folder trees --------------------------------------------------------------------------------
TREE = DataSet(name="toy", source="folder", folder="sets/toy", image_size=6)


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two classes of small images of many formats, listed out of order, among other files."""
    root = tmp_path / "sets" / "toy"
    value = 0
    for part, count in (("train", 4), ("test", 2)):
        for name in ("b dog", "a cat"):
            (root / part / name).mkdir(parents=True)
            for i in reversed(range(count)):
                suffix = ("png", "BMP", "webp", "png")[i]
                image = Image.new("RGB", (6, 6), (value, 2 * value, 255 - value))
                image.save(root / part / name / f"{i:03}.{suffix}", lossless=True)
                value += 10
    (root / "train" / "a cat" / ".hidden.png").write_text("not an image")
    (root / "train" / "a cat" / "notes.txt").write_text("not an image")
    (root / "train" / ".hidden").mkdir()
    (root / "names.tsv").write_text("")
    return root


def test_a_tree_is_read_by_class_then_file_name(tree, tmp_path):
    images = sources.read(TREE, tmp_path)
    assert images.class_names == ("a cat", "b dog")
    assert images.train_labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert images.test_labels.tolist() == [0, 0, 1, 1]
    assert images.train_images.shape == (8, 6, 6, 3)
    assert images.train_images[:, 2, 3, 0].tolist() == [70, 60, 50, 40, 30, 20, 10, 0]
    assert images.test_images[0, 0, 0].tolist() == [110, 220, 145]


def test_a_tree_is_decoded_once_until_it_changes(tree, tmp_path, monkeypatch):
    first = sources.read(TREE, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "decode", lambda *_: pytest.fail("decoded again"))
        second = sources.read(TREE, tmp_path)
    np.testing.assert_array_equal(first.train_images, second.train_images)
    assert first.key == second.key

    path = tree / "train" / "a cat" / "000.png"
    Image.new("RGB", (6, 6), (99, 99, 99)).save(path)
    os.utime(path, ns=(1, 1))
    third = sources.read(TREE, tmp_path)
    assert third.key != first.key
    assert third.train_images[0, 0, 0].tolist() == [99, 99, 99]
    assert sources.read(renamed(TREE, image_size=3), tmp_path).train_images.shape == (8, 3, 3, 3)


def test_every_kind_of_image_becomes_rgb_of_the_size(tree, tmp_path):
    train = tree / "train" / "a cat"
    Image.new("L", (6, 6), 77).save(train / "000.png")
    Image.new("RGBA", (6, 6), (1, 2, 3, 200)).save(train / "003.png")
    wide = Image.new("RGB", (24, 12), (255, 0, 0))
    wide.paste((0, 0, 255), (6, 0, 18, 12))  # the centre square
    wide.save(train / "004.png")
    halves = Image.new("RGB", (12, 12), (0, 0, 0))
    halves.paste((200, 200, 200), (6, 0, 12, 12))
    halves.save(train / "005.png")
    images = sources.read(TREE, tmp_path).train_images
    assert images[0, 0, 0].tolist() == [77, 77, 77]
    assert images[3, 0, 0].tolist() == [56, 57, 57]  # over white
    assert (images[4, :, 1:-1] == (0, 0, 255)).all()  # the filter weighs neighbours at its border
    row = images[5, 0, :, 0].astype(int)
    assert row[:2].tolist() == [0, 0]
    assert row[-2:].tolist() == [200, 200]
    assert 0 < row[2] < row[3] < 200  # every source pixel is weighed


def broken_image(tree: Path) -> Path:
    path = tree / "train" / "b dog" / "001.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:900])
    return path


def dangling_link(tree: Path) -> Path:
    path = tree / "train" / "b dog" / "001.jpg"
    path.symlink_to(tree / "nowhere.jpg")
    return path


def empty_class(tree: Path) -> Path:
    path = tree / "train" / "a cat"
    for file in path.iterdir():
        file.unlink()
    return path


def odd_class(tree: Path) -> Path:
    (tree / "train" / "b dog").rename(tree / "train" / "a fox")
    return tree / "train"


def one_class(tree: Path) -> Path:
    (tree / "train" / "b dog").rename(tree / "elsewhere")
    return tree / "train"


def no_test(tree: Path) -> Path:
    (tree / "test").rename(tree / "exam")
    return tree / "test"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (broken_image, "not a readable image .*truncated.*replace or remove it"),
        (dangling_link, "No such file or directory; replace or remove it"),
        (empty_class, "no image in this class folder.*fill it or remove it"),
        (odd_class, "no class folder 'b dog', which test has"),
        (one_class, r"1 class folders \(a cat\); at least two are needed"),
        (no_test, "no such folder; it should hold a folder of images per class"),
    ],
)
def test_what_is_wrong_with_a_tree_is_named(tree, tmp_path, damage, complaint):
    path = damage(tree)
    with pytest.raises(BenchError, match=complaint) as error:
        sources.read(TREE, tmp_path)
    one_line(error, f"{path}: ")
    assert not list(tmp_path.glob(".cache/*/class_names.npy"))


def test_a_broken_image_is_found_before_the_cache_is_used(tree, tmp_path):
    sources.read(TREE, tmp_path)
    path = broken_image(tree)
    with pytest.raises(BenchError, match=re.escape(path.name)):
        sources.read(TREE, tmp_path)


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/etc"])
def test_a_folder_stays_below_the_data_directory(path, tmp_path):
    with pytest.raises(BenchError, match=r"toy: folder .* leaves the data directory") as error:
        sources.read(renamed(TREE, folder=path), tmp_path / "data")
    one_line(error, path)


def test_a_link_below_the_data_directory_may_lead_elsewhere(tree, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "toy").symlink_to(tree)
    assert len(sources.read(renamed(TREE, folder="toy"), tmp_path / "data").train_images) == 8


def test_a_folder_that_is_not_there_or_not_named_says_so(tmp_path):
    with pytest.raises(BenchError) as error:
        sources.read(TREE, tmp_path)
    one_line(error, tmp_path / "sets" / "toy", "toy", "train/<class>/*.jpg", "--data")
    with pytest.raises(BenchError, match="needs `folder`"):
        sources.read(renamed(TREE, folder=None), tmp_path)
    with pytest.raises(BenchError, match="leave out test_per_class"):
        sources.read(renamed(TREE, test_per_class=3), tmp_path)


# -- the cache -----------------------------------------------------------------------------------
def test_a_data_directory_that_cannot_be_written_to_is_read_all_the_same(tree, tmp_path):
    (tmp_path / ".cache").write_text("in the way")
    assert len(sources.read(TREE, tmp_path).train_images) == 8


def test_a_half_written_cache_is_not_used(tree, tmp_path):
    images = sources.read(TREE, tmp_path)
    cache = tmp_path / ".cache" / images.key
    (cache / "class_names.npy").unlink()  # written last
    (cache / "train_images.npy").unlink()
    (cache / "train_images.npy").write_bytes(b"half")
    np.testing.assert_array_equal(sources.read(TREE, tmp_path).train_images, images.train_images)


def test_a_damaged_cache_is_named(tree, tmp_path):
    cache = tmp_path / ".cache" / sources.read(TREE, tmp_path).key
    (cache / "train_images.npy").unlink()
    (cache / "train_images.npy").write_bytes(b"")
    with pytest.raises(BenchError, match=r"damaged cache .*delete this folder") as error:
        sources.read(TREE, tmp_path)
    one_line(error, cache)


def test_a_writer_into_what_was_read_changes_no_file(tree, tmp_path):
    images = sources.read(TREE, tmp_path)
    images.train_images[:] = 1
    assert sources.read(TREE, tmp_path).train_images[0, 0, 0, 0] == 70


# -- official format, files of one's own -----------------------------------------------------------
def test_files_in_cifars_format_are_held_against_their_own_checksums(tmp_path):
    own = write_cifar(tmp_path)
    images = sources.read(own, tmp_path)
    assert images.train_images.shape == (400, 32, 32, 3)
    assert images.class_names[3] == "class 3"
    with (tmp_path / "mine" / "test").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BenchError) as error:
        sources.read(own, tmp_path)
    one_line(error, "mine/test", "damaged", own.md5[1][:32])


def test_a_file_without_a_checksum_is_named(tmp_path):
    own = renamed(write_cifar(tmp_path), md5=write_cifar(tmp_path / "b").md5[:2])
    with pytest.raises(BenchError) as error:
        sources.read(own, tmp_path)
    one_line(error, "md5 lacks 'meta'")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"md5": ("0 train",), "source": "cifar10"}, "md5 is for files in the format of CIFAR"),
        ({"md5": ("train",), "copy_of": "x", "folder": "y", "source": "cifar10"}, "lines as md5sum prints"),
        ({"comparable": True, "source": "digits"}, "comparable needs copy_of, and copy_kind"),
    ],
)
def test_what_a_data_set_of_ones_own_files_lacks_is_reported(fields, message):
    with pytest.raises(ValueError, match=message):
        DataSet(name="own", **fields)
