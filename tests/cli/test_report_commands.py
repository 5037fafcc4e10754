"""The leaderboard's commands, as their users meet them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import photo_trees
import pytest
from commands import Bench
from records_factory import CIFAR10_JPEG, finish, make_cell, make_grid

from bench.cell import BackboneChoice
from bench.data.read.sources import read
from bench.data.sets.catalogue import DATASETS

RESNET32 = BackboneChoice(name="resnet32_cifar")


@pytest.fixture(autouse=True)
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real images these made-up runs would be stale."""
    monkeypatch.setenv("LONGTAIL_DATA", str(tmp_path))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Cross-entropy on CIFAR-10-LT by the usual protocol, far below what is published, and on a copy."""
    results, cells = tmp_path / "results", [make_cell("ce", seed, backbone=RESNET32) for seed in range(3)]
    for cell in cells:
        finish(results, cell)
    finish(results, make_cell("ce", dataset=CIFAR10_JPEG, backbone=RESNET32))
    make_grid(results, "small", [("ce", cell) for cell in cells])
    return results


def test_check_fails_on_below(results: Path, bench: Bench) -> None:
    code, out = bench("check", "--results", results)
    assert code == 1
    (judged,) = re.findall(r"(\w{10}) +Cross-entropy +3 +5\d\.\d\d +\d\d\.\d+ +−1\d\.\d\d +below", out)
    assert re.search(r"Cross-entropy +1 +63\.00 +data copy", out), "no gap where protocols differ"
    assert max(map(len, out.splitlines())) <= 80
    assert bench("explain", judged, "--results", results)[0] == 0
    out = bench("check", "--results", results, "--wide")[1]
    assert re.search(r"Cross-entropy +│ cifar10 100 +│ 3 .*−1\d\.\d\d │ below", out)
    assert "protocol differs: data copy" in out
    code, out = bench("check", "--results", results, "--json")
    assert code == 1
    assert {row["verdict"] for row in json.loads(out)} == {"below", "protocol differs"}


def test_check_passes_where_nothing_is_below(tmp_path: Path, bench: Bench) -> None:
    finish(tmp_path, make_cell("ce", dataset=CIFAR10_JPEG, backbone=RESNET32))
    code, out = bench("check", "--results", tmp_path)
    assert code == 0
    assert "1 measured cells: 1 protocol differs" in out
    (tmp_path / "empty").mkdir()
    assert "nothing is measured yet" in bench("check", "--results", tmp_path / "empty")[1]
    code, out = bench("check", "--results", tmp_path / "absent")
    assert code == 2
    assert "no such results folder" in out


def test_check_tells_what_it_left_out(results: Path, bench: Bench) -> None:
    (results / "published").mkdir()
    (results / "published" / "mine.csv").write_text("dataset\n")
    assert (
        "left out: mine.csv:1: imbalance_factor: this column is missing"
        in bench("check", "--results", results)[1]
    )


def test_explain_sets_protocols_side_by_side(results: Path, bench: Bench) -> None:
    code, out = bench("explain", "cifar10_jpeg-if100-ce-s0", "--results", results)
    assert code == 0
    assert re.search(r"data_copy +│ JPEG quality 75 +│ cui +│ differs", out)
    assert "protocol differs" in out
    code, out = bench("explain", "nonesuch", "--results", results)
    assert code == 2
    assert "no run 'nonesuch'" in out


def test_scored_predictions_reach_the_leaderboard(tmp_path: Path, bench: Bench) -> None:
    data, results, reports = tmp_path / "data", tmp_path / "results", tmp_path / "reports"
    labels = np.asarray(read(DATASETS["digits"], data).test_labels)
    np.savez(tmp_path / "mine.npz", predictions=np.where(np.arange(len(labels)) % 4, labels, 0))
    where = ("--results", results, "--data", data)
    score = ("score", tmp_path / "mine.npz", "--dataset", "digits", "--imbalance-factor", 20, *where)
    code, out = bench(*score, "--protocol", "epochs=200")
    assert code == 0
    assert re.search(r" +77\.60 ", out)
    assert bench("report", "--results", results, "--reports", reports)[0] == 0
    page = (reports / "index.html").read_text()
    assert '<span class="note origin">external</span>' in page


def test_predictions_for_list_files_are_scored_without_the_images(tmp_path: Path, bench: Bench) -> None:
    root = photo_trees.imagenet(tmp_path / "data")
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "val")
    labels = [int(line.split()[1]) for line in (root / "ImageNet_LT_test.txt").read_text().splitlines()]
    np.savez(tmp_path / "mine.npz", predictions=np.where(np.arange(8) < 6, labels, 3 - np.array(labels)))
    where = ("--results", tmp_path / "results", "--data", tmp_path / "data")
    score = ("score", tmp_path / "mine.npz", "--dataset", "imagenet_lt", "--imbalance-factor", 1, *where)
    code, out = bench(*score)
    assert code == 0, out
    assert re.search(r" +75\.00 ", out)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (np.zeros((5, 10)), (), "this split wants scores (500, 10) or labels (500,)"),
        (np.full((500, 10), np.nan), (), "image 0 has a score that is not finite"),
        (np.zeros((500, 10)), ("--dataset", "digit"), "unknown data set 'digit'; did you mean 'digits'?"),
        (np.zeros((500, 10)), ("--protocol", "epochs"), "write it as FIELD=VALUE"),
        (np.zeros((500, 10)), ("--protocol", "epoch=3"), "did you mean 'epochs'?"),
        (np.zeros((500, 10)), ("--name", "Not a name"), "'Not a name' is not a name of small letters"),
    ],
)
def test_bad_predictions_are_refused_in_one_line(
    tmp_path: Path, bench: Bench, scores: np.ndarray, options: tuple[str, ...], message: str
) -> None:
    np.savez(tmp_path / "mine.npz", scores=scores)
    where = ("--results", tmp_path / "results", "--data", tmp_path / "data")
    dataset = ("--dataset", "digits", "--imbalance-factor", 20)
    code, out = bench("score", tmp_path / "mine.npz", *dataset, *where, *options)
    assert code == 2
    assert message in out
    assert len(out.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_report_writes_all_pages_or_those_of_a_recipe(results: Path, tmp_path: Path, bench: Bench) -> None:
    code, out = bench("report", "small", "--results", results, "--reports", tmp_path / "one")
    assert code == 0
    assert not (tmp_path / "one" / "index.html").exists()
    code, out = bench("report", "--results", results, "--reports", tmp_path / "all", "--data", tmp_path)
    assert code == 0
    assert "2 pages" in out
    for name in ("index.html", "index.md", "index.tex", "index.bib", "index.csv", "index.json", "small.html"):
        assert (tmp_path / "all" / name).exists()


def test_report_without_a_run_shows_the_literature(tmp_path: Path, bench: Bench) -> None:
    code, _ = bench("report", "--results", tmp_path / "none", "--reports", tmp_path / "reports")
    assert code == 0
    assert "3,446 published numbers" in (tmp_path / "reports" / "index.html").read_text()
