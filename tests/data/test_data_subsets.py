"""Images are recognised by what they are: in another order, another format, as the papers' subset or not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cifar_files import FACTOR, recognised, write_cifar
from commands import Bench
from hypothesis import given
from hypothesis import strategies as st
from leaderboard_fakes import entries, literature, run
from PIL import Image
from project import ROOT

from bench.cell import DataSet
from bench.data.read.sources import read
from bench.data.sets import subsets
from bench.data.sets.catalogue import DATASETS
from bench.data.split.load import load
from bench.data.split.longtail import exponential, select

DATA = ROOT / "data"


# -- the hash ------------------------------------------------------------------------------------
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_the_order_of_images_is_nothing_to_the_hash_and_every_pixel_is(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, pixels = rng.integers(0, 3, n), rng.integers(0, 256, (n, 2, 3, 3), np.uint8)
    code, order = subsets.order_free(subsets.digests(labels, pixels)), rng.permutation(n)
    assert subsets.order_free(subsets.digests(labels[order], pixels[order])) == code
    other = pixels.copy()
    other[rng.integers(n), 1, 2, 0] ^= 1
    assert subsets.order_free(subsets.digests(labels, other)) != code
    relabelled = labels.copy()
    relabelled[rng.integers(n)] += 1
    assert subsets.order_free(subsets.digests(relabelled, pixels)) != code
    turned = pixels.reshape(n, 3, 2, 3)
    assert subsets.order_free(subsets.digests(labels, turned)) != code
    twice = np.append(labels, labels[0]), np.append(pixels, pixels[:1], axis=0)
    assert subsets.order_free(subsets.digests(*twice)) != code


def test_an_image_is_hashed_once_for_all_subsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_cifar(tmp_path)
    first = load(dataset, FACTOR, tmp_path).image_hashes
    monkeypatch.setattr(subsets, "digests", lambda *_: pytest.fail("hashed again"))
    again, other = (load(dataset, factor, tmp_path).image_hashes for factor in (FACTOR, 4.0))
    assert again == first
    assert other["train"] != first["train"]
    assert (other["set"], other["test"]) == (first["set"], first["test"])


def test_held_out_images_are_no_test_set_to_be_recognised() -> None:
    held_out = DATASETS["digits"].model_copy(update={"held_out": 2, "n_max": 40})
    assert load(held_out, FACTOR, Path("nowhere")).image_hashes == {}


# -- a published data set of ten classes, and what people make of it -------------------------------


def as_tree(official: DataSet, data: Path, chosen: np.ndarray | None = None, names: str = "{:05}") -> DataSet:
    """Save the images, or the chosen ones of the training set, as PNG files in a folder of each class."""
    source = read(official, data)
    for part in ("train", "test"):
        images, labels = getattr(source, f"{part}_images"), getattr(source, f"{part}_labels")
        places = np.arange(len(labels)) if part == "test" or chosen is None else chosen
        for place in places.tolist():
            file = data / "tree" / part / str(labels[place]) / f"{names.format(place)}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[place]).save(file)
    return DataSet(name="tree", source="folder", folder="tree", n_max=40)


def test_the_official_files_are_recognised(official: DataSet, tmp_path: Path) -> None:
    found = recognised(load(official, FACTOR, tmp_path))
    assert found is not None
    assert (found.published, found.imbalance_factor, found.draw) == ("mine", FACTOR, "original")
    assert found.copy == "original"
    assert found.describe() == "Toys-LT, imbalance factor 10, RandomState(0), as in LDAM-DRW and followers"


def test_a_tree_in_the_official_order_has_the_papers_subset(official: DataSet, tmp_path: Path) -> None:
    split = load(as_tree(official, tmp_path), FACTOR, tmp_path)
    assert split.fingerprint["train"] != load(official, FACTOR, tmp_path).fingerprint["train"]  # of positions
    found = recognised(split)
    assert found is not None
    assert found.draw == "original"


def test_a_tree_in_another_order_has_another_draw(official: DataSet, tmp_path: Path) -> None:
    backwards = as_tree(official, tmp_path, names="{:05}")
    for file in sorted((tmp_path / "tree" / "train").glob("*/*.png")):
        file.rename(file.with_name(f"{9999 - int(file.stem):05}.png"))
    found = recognised(load(backwards, FACTOR, tmp_path))
    assert found is not None
    assert (found.published, found.draw, found.copy) == ("mine", "another", "same images, another draw")
    assert "compared with no published number" in found.describe()


def test_a_tree_of_the_papers_subset_alone_is_recognised(official: DataSet, tmp_path: Path) -> None:
    labels = read(official, tmp_path).train_labels
    tree = as_tree(official, tmp_path, select(labels, exponential(40, FACTOR, 10)))
    natural = tree.model_copy(update={"profile": "natural", "n_max": None})
    found = recognised(load(natural, 1.0, tmp_path), factor=1.0)
    assert found is not None
    assert (found.published, found.imbalance_factor, found.draw) == ("mine", FACTOR, "original")


def test_a_factor_that_no_paper_drew_is_not_judged_as_another_draw(official: DataSet, tmp_path: Path) -> None:
    found = recognised(load(as_tree(official, tmp_path), 4.0, tmp_path), factor=4.0)
    assert found is not None
    assert (found.imbalance_factor, found.draw) == (4.0, "unknown")


def test_another_test_set_or_tail_is_nothing_published(official: DataSet, tmp_path: Path) -> None:
    tree = as_tree(official, tmp_path)
    smaller = load(tree.model_copy(update={"n_max": 30}), FACTOR, tmp_path)
    assert recognised(smaller) is None
    Image.new("RGB", (32, 32), "red").save(next((tmp_path / "tree" / "test").glob("3/*.png")))
    assert recognised(load(tree, FACTOR, tmp_path)) is None


def test_show_says_which_published_subset_it_is(official: DataSet, tmp_path: Path, bench: Bench) -> None:
    tree = as_tree(official, tmp_path)
    recipe = tmp_path / "toys.yaml"
    recipe.write_text(
        "title: Toys\nmethods: [ce]\n"
        "datasets: {tree: {source: folder, folder: tree, image_size: 32, n_max: 40}}\n"
        "grid: {dataset: [tree], imbalance_factor: [10, 8], backbone: [resnet8_cifar]}\n"
    )
    code, out = bench("data", "show", "tree", "--recipe", recipe, "--data", tmp_path)
    assert code == 0, out
    assert "imbalance factor 8" in out
    ten = out.split("imbalance factor 10\n")[1].splitlines()
    assert ten[0].strip() == "159 training images, 40 to 4 of a class"
    assert ten[1].strip() == "many 0, medium 3, few 7 classes"
    prints = load(tree, FACTOR, tmp_path).fingerprint
    assert ten[2].strip() == f"fingerprint train {prints['train']}, test {prints['test']}"
    assert ten[3].strip() == "Toys-LT, imbalance factor 10, RandomState(0), as in LDAM-DRW and followers"
    code, out = bench("data", "show", "digits", "--imbalance-factor", 20, "--data", tmp_path)
    assert "not the images of a published long tail" in out


# -- the papers' subsets -------------------------------------------------------------------------
@pytest.mark.parametrize("name", subsets.RECOGNISABLE)
def test_the_hashes_that_are_shipped_are_those_of_the_files(name: str) -> None:
    folder = DATA / ("cifar-10-batches-py" if name == "cifar10" else str(DATASETS[name].folder))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    with subsets.FILE.open(encoding="utf-8", newline="") as file:
        shipped = [tuple(row.values()) for row in csv.DictReader(file) if row["dataset"] == name]
    assert list(subsets.rows(DATA, [name])) == shipped


def test_the_subsets_have_the_papers_sizes() -> None:
    with subsets.FILE.open(encoding="utf-8", newline="") as file:
        sizes = {
            (row["dataset"], row["imbalance_factor"]): int(row["images"]) for row in csv.DictReader(file)
        }
    assert (sizes["cifar10", "100"], sizes["cifar10", "10"]) == (12_406, 20_431)
    assert (sizes["cifar100_rebuilt", "100"], sizes["cifar100_rebuilt", "10"]) == (10_847, 19_573)


def known_hashes(name: str, factor: float) -> dict[str, str]:
    known = subsets._known()[name]
    return {"set": known["set", None], "test": known["test", None], "train": known["subset", factor]}


def test_the_rebuilt_files_are_marked_as_such() -> None:
    hashes = known_hashes("cifar100_rebuilt", 100.0)
    found = subsets.recognise(hashes, exponential(500, 100, 100).tolist(), 100.0)
    assert found is not None
    assert (found.published, found.copy) == ("cifar100", "original")
    assert "113 of 60,000" in str(found.footnote)
    elsewhere = subsets.recognise(hashes | {"train": "0"}, exponential(500, 100, 100).tolist(), 100.0)
    assert elsewhere is not None
    assert elsewhere.draw == "unknown"  # the official draw has another hash, which nobody here knows


# -- on the leaderboard --------------------------------------------------------------------------
def on_board(
    tmp_path: Path,
    hashes: dict[str, str] | None,
    source: str = "folder",
    split_seed: int = 0,
    **changes: object,
) -> pd.Series:
    """Return the entry of a run whose record has these hashes, of CIFAR-10's counts at factor 100."""
    cell = run(dataset="my_pngs", **changes).cell
    made = run(dataset="my_pngs", **changes)
    drawn = {"source": source, "folder": "x", "split_seed": split_seed}
    data_set = cell.dataset.model_copy(update=drawn)
    made.cell = cell.model_copy(update={"dataset": data_set})
    made.record["data"]["class_counts"] = exponential(5000, 100, 10).tolist()
    if hashes is not None:
        made.record["image_hashes"] = hashes
    found = entries([made], literature(tmp_path, {"dataset": "cifar10"}))
    return found[found["kind"] == "measured"].iloc[0]


def test_the_papers_images_are_judged_under_the_papers_name(tmp_path: Path) -> None:
    entry = on_board(tmp_path, known_hashes("cifar10", 100.0))
    assert (entry["dataset"], entry["imbalance_factor"], entry["data_copy"]) == ("cifar10", 100, "original")


def test_the_papers_subset_brings_its_imbalance_factor_along(tmp_path: Path) -> None:
    hashes = known_hashes("cifar10", 100.0) | {"set": "0"}  # a folder of the subset alone
    entry = on_board(tmp_path, hashes, imbalance_factor=1.0)
    assert (entry["dataset"], entry["imbalance_factor"], entry["data_copy"]) == ("cifar10", 100, "original")


def test_another_draw_is_said_and_not_judged(tmp_path: Path) -> None:
    hashes = known_hashes("cifar10", 100.0) | {"train": "0"}
    entry = on_board(tmp_path, hashes)
    assert (entry["dataset"], entry["data_copy"]) == ("cifar10", "same images, another draw")
    entry = on_board(tmp_path, hashes, source="cifar10")
    assert (entry["dataset"], entry["data_copy"]) == ("my_pngs", "original")  # checksums say what it is


def test_a_draw_that_was_asked_for_is_a_field_of_its_own(tmp_path: Path) -> None:
    entry = on_board(tmp_path, known_hashes("cifar10", 100.0) | {"train": "0"}, split_seed=3)
    assert (entry["dataset"], entry["data_copy"], entry["tail"]) == ("cifar10", "original", "split 3")


def test_records_without_hashes_stay_what_they_were(tmp_path: Path) -> None:
    for hashes in (None, {}, {"set": "0", "train": "0", "test": "0"}):
        entry = on_board(tmp_path, hashes)
        assert (entry["dataset"], entry["data_copy"]) == ("my_pngs", "original")


def test_the_footnote_of_rebuilt_files_stands_beside_the_number(tmp_path: Path) -> None:
    assert "113 of 60,000" in on_board(tmp_path, known_hashes("cifar100_rebuilt", 50.0))["note"]
    assert pd.isna(on_board(tmp_path, None)["note"])
