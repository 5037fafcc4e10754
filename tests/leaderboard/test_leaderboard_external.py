"""A user's own predictions: scored like ours, marked as external, and refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from leaderboard_fakes import entries, literature, run, table

from bench.cell import DataSet, ShotRule
from bench.errors import BenchError
from bench.leaderboard import external
from bench.metrics import full_score

DIGITS = DataSet(name="digits", source="digits", n_max=120)
LABELS = np.repeat(np.arange(4), 5)
COUNTS = np.array([200, 120, 60, 6])
SCORES = np.random.default_rng(0).normal(size=(20, 4)) + np.eye(4)[LABELS]


def scored(file: Path, **changes: Any) -> external.External:
    arguments: dict[str, Any] = {"name": "mine", "dataset": DIGITS, "imbalance_factor": 20.0}
    return external.scored(file, labels=LABELS, class_counts=COUNTS, **(arguments | changes))


def npz(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


def lines(folder: Path, rows: Any) -> Path:
    np.savetxt(folder / "mine.csv", rows, delimiter=",", fmt="%.17g")
    return folder / "mine.csv"


@pytest.mark.parametrize("name", ["scores", "logits"])
def test_scores_have_our_metrics(tmp_path: Path, name: str) -> None:
    expected = full_score(SCORES, LABELS, COUNTS, ShotRule())
    assert scored(npz(tmp_path, **{name: SCORES})).metrics == expected
    assert scored(lines(tmp_path, SCORES)).metrics == expected


def test_labels_have_all_metrics_but_calibration(tmp_path: Path) -> None:
    predicted = SCORES.argmax(axis=1)
    expected = full_score(SCORES, LABELS, COUNTS, ShotRule())
    expected |= dict.fromkeys(("ece", "adaptive_ece", "classwise_ece", "nll", "brier"))
    for file in (npz(tmp_path, predictions=predicted), lines(tmp_path, predicted)):
        found = scored(file)
        assert found.given == "labels"
        assert found.metrics == expected


def test_predictions_for_a_comparable_copy_count_as_the_original_with_a_footnote(tmp_path: Path) -> None:
    about = {"copy_of": "cifar100", "copy_kind": "three images differ", "comparable": True}
    copy = DIGITS.model_copy(update=about)
    external.save(tmp_path, scored(npz(tmp_path, scores=SCORES), dataset=copy))
    (entry,) = external.load(tmp_path)
    assert (entry["data_copy"], entry["note"]) == ("original", "three images differ")
    other = copy.model_copy(update={"split_seed": 2})
    external.save(tmp_path, scored(npz(tmp_path, scores=SCORES), dataset=other), replace=True)
    assert external.load(tmp_path)[0]["tail"] == "split 2"


def test_they_become_a_line_of_the_board_and_are_marked(tmp_path: Path) -> None:
    copy = DIGITS.model_copy(update={"copy_of": "cifar100", "copy_kind": "JPEG quality 75"})
    stated = {"epochs": "200", "augmentation": "std", "experts": "3"}
    file = external.save(tmp_path, scored(npz(tmp_path, scores=SCORES), dataset=copy, protocol=stated))
    assert file == tmp_path / "external" / "mine.json"
    board = entries(table(run()), literature(tmp_path, {}), external.load(tmp_path))
    assert board["kind"].tolist() == ["measured", "published", "external"]
    entry = board.iloc[-1]
    assert (entry["key"], entry["n"], entry["dataset"]) == ("external/mine", 1, "cifar100")
    assert (entry["data_copy"], entry["epochs"], entry["epochs_class"]) == ("JPEG quality 75", 200, "150-249")
    assert pd.isna(entry["backbone"])
    assert pd.isna(entry["accuracy_std"])
    assert board["rank"].tolist() == [1, 1, 1]


def test_no_external_folder_is_no_row(tmp_path: Path) -> None:
    assert external.load(tmp_path) == []


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"scores": SCORES[:19]},
            r"has the shape \(19, 4\); this split wants scores \(20, 4\) or labels \(20,\)",
        ),
        ({"scores": SCORES[:, :3]}, r"has the shape \(20, 3\)"),
        ({"scores": np.where(np.arange(80).reshape(20, 4) == 9, np.nan, SCORES)}, "image 2 has a score"),
        ({"scores": np.where(np.arange(80).reshape(20, 4) == 9, np.inf, SCORES)}, "image 2 has a score"),
        ({"predictions": np.where(LABELS == 3, 4, LABELS)}, r"image 15 is given class 4; classes are 0\.\.3"),
        ({"predictions": LABELS - 1}, "image 0 is given class -1"),
        ({"predictions": LABELS + 0.5}, "image 0 is given class 0.5"),
        ({"predictions": np.full(20, np.nan)}, "image 0 is given class nan"),
        ({"predictions": LABELS.astype(str)}, "not numbers"),
        ({"predictions": LABELS.astype(object)}, "not a readable npz file of plain numbers"),
        ({"probabilities": SCORES}, "has no array named scores or logits or predictions"),
        ({"scores": SCORES, "labels": LABELS[::-1]}, "its labels are not this test set's"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        scored(npz(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4\n" * 19 + "1,2,x,4\n", "mine.csv:20: could not convert"),
        ("1,2,3,4\n1,2,3\n", "mine.csv:2: 3 numbers, the first line has 4"),
        ("0\n" * 19, r"has the shape \(19, 1\)"),
        ("", "has the shape"),
        ('"', "not a readable CSV file"),
    ],
)
def test_wrong_lines_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(BenchError, match=message):
        scored(tmp_path / "mine.csv")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(BenchError, match="not a readable npz file"):
        scored(tmp_path / "mine.npz")
    with pytest.raises(BenchError, match="no such file"):
        scored(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../../evil"}, "name: method: '../../evil' is not a name"),
        ({"protocol": {"epoch": "200"}}, "protocol: epoch: no such field; did you mean 'epochs'?"),
        ({"protocol": {"epochs": "many"}}, "protocol: epochs: 'many' is not a whole number"),
    ],
)
def test_wrong_statements_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError) as error:
        scored(npz(tmp_path, scores=SCORES), **changes)
    assert str(error.value).startswith(message)


def test_a_spoilt_file_is_reported_and_the_rest_stays(tmp_path: Path) -> None:
    good = external.save(tmp_path, scored(npz(tmp_path, scores=SCORES)))
    (good.parent / "bad.json").write_text('{"name": "bad"}')
    spoilt = good.read_text().replace('"protocol": {}', '"protocol": {"epochs": "x"}')
    (good.parent / "worse.json").write_text(spoilt)
    problems: list[str] = []
    assert [row["title"] for row in external.load(tmp_path, problems)] == ["mine"]
    assert [Path(problem.split(":")[0]).name for problem in problems] == ["bad.json", "worse.json"]
    with pytest.raises(BenchError, match=r"bad.json: not scored predictions"):
        external.load(tmp_path)
