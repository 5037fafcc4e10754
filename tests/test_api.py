"""The suite from Python: its examples run, and what is wrong is reported."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from project import ROOT
from torch.nn import functional as F

import bench
from bench import api, published, registry
from bench.errors import BenchError
from bench.method import Batch, Clock

METHOD = '''\
from bench.registry import register
from methods.cross_entropy import CrossEntropy


@register("gentle", title="Gentle CE", family="own", year=2024)
class Gentle(CrossEntropy):
    """Nothing new."""
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the example of `bench.run` was run."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert check(bench.run)
    return folder


def check(function: object) -> int:
    """Run the examples of a docstring in this folder; return how many there are."""
    (found,) = doctest.DocTestFinder(recurse=False).find(function, globs={})
    report: list[str] = []
    failed, tried = doctest.DocTestRunner().run(found, out=report.append)
    assert not failed, "".join(report)
    return tried


@pytest.mark.parametrize("name", [name for name in bench.__all__ if name != "run"])
def test_the_example_of_each_function_runs(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert check(getattr(bench, name))


def test_everything_public_is_listed() -> None:
    own = {
        name for name, value in vars(api).items() if getattr(value, "__module__", "").startswith(api.__name__)
    }
    assert {name for name in own if not name.startswith("_")} == set(bench.__all__) <= set(dir(bench))


def test_importing_bench_imports_nothing_heavy() -> None:
    code = "import sys, bench; from bench import api; bench.methods; bench.load_recipe\n"
    code += "assert not {'torch', 'timm', 'pandas', 'numpy'} & set(sys.modules)\n"
    code += (
        "bench.methods(), bench.long_tail([0, 0, 0, 0, 1, 1, 1, 1], 2), bench.score([[1, 0]], [0], [9, 9])\n"
    )
    code += "assert not {'torch', 'timm'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_methods_are_those_of_the_project_and_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_specs", dict(registry.methods()))
    assert {"ce", "ldam_drw", "bccl"} <= set(bench.methods().index)
    (tmp_path / "gentle.py").write_text(METHOD)
    table = bench.methods(tmp_path / "gentle.py")
    assert table.loc["gentle", "title"] == "Gentle CE"
    assert table.loc["gentle", "year"] == 2024
    assert bench.build_method("gentle", "resnet8_cifar", [3, 1]).num_classes == 2


def test_rows_of_a_recipe_are_not_mixed_with_those_of_another(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (grid,) = Path("results/grids").glob("*.json")
    try:
        other = grid.with_name("other.json")
        content = json.loads(grid.read_text())
        content["cells"] = [cell | {"label": "mine"} for cell in content["cells"] if cell["label"] == "ce"]
        other.write_text(json.dumps(content))
        table = bench.load_results()
        done = table[table["status"] == "done"]
        assert done.groupby(["recipe", "label"]).size().to_dict() == {
            ("other", "mine"): 1,
            ("quick-set", "ce"): 1,
            ("quick-set", "posthoc_la"): 1,
        }
        for row in done.itertuples():  # the metrics of the row, from its own classes
            assert len(row.per_class) == 10
            assert np.mean(row.per_class) == pytest.approx(row.balanced)
        other.write_text("{}")
        with pytest.raises(BenchError, match=r"other.json: not a grid file"):
            bench.load_results()
    finally:
        other.unlink()
        grid.rename(grid.with_suffix(".away"))
    try:
        assert bench.load_results()["recipe"].isna().all()
    finally:
        grid.with_suffix(".away").rename(grid)


def test_what_is_done_is_not_trained_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    recipe = bench.load_recipe("quick", ["protocol.epochs=1", "protocol.schedule.warmup_epochs=0"])
    before = Path("results/runs").stat().st_mtime
    table = bench.run(recipe, only=["label=ce", "seed=0"], gpus=())
    assert table["label"].tolist() == ["ce"]  # the row of what was asked for alone
    assert Path("results/runs").stat().st_mtime == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("gpus", [[3, 5], ("3", "5"), "3,5"])
def test_gpus_are_named_by_numbers_or_text_and_remarks_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: object
) -> None:
    given = []
    monkeypatch.setattr("bench.launch.local.run_grid", lambda *args, **options: given.append(options["gpus"]))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 6)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("bench.launch.checks.CHECKS", (lambda cells, data: [f"{len(cells)} checked"],))
    with pytest.warns(UserWarning, match="1 checked"):
        bench.run("quick", only=["label=ce", "seed=0"], results=tmp_path, gpus=gpus, progress=False)
    assert given == [["3", "5"]]


def test_gpus_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"--gpus 70: there are \d+ GPUs here"):
        bench.run("quick", results=tmp_path, gpus=[70])


def test_images_that_are_missing_are_reported_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cifar-10-batches-py"):
        bench.run("cifar_lt_plain", results=tmp_path / "results", data=tmp_path)
    assert not (tmp_path / "results").exists()


def test_a_model_is_the_one_that_was_scored(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.cell import Cell
    from bench.data.split.load import load

    monkeypatch.chdir(place)
    model = bench.load_model("digits-if20-ce-s0")
    (record,) = (json.loads(file.read_text()) for file in Path("results/runs").glob("*-ce-s0-*/record.json"))
    cell = Cell.model_validate_json(json.dumps(record["cell"]))
    split = load(cell.dataset, cell.imbalance_factor, Path("data"))
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (cell.dataset.mean, cell.dataset.std))
    images = (split.test_images / 255 - mean) / std
    with torch.inference_mode():
        found = bench.score(model(images), split.test_labels, split.class_counts)
    assert found["accuracy"] == pytest.approx(record["metrics"]["accuracy"], abs=0.5)


def test_a_model_that_is_not_there_is_reported(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(BenchError, match="no run 'nothing'"):
        bench.load_model("nothing")
    (weights,) = Path("results/runs").glob("*-ce-s0-*/weights.safetensors")
    away = weights.rename(weights.with_name("away"))
    try:
        with pytest.raises(BenchError, match=r"its weights are not here; `rerun"):
            bench.load_model("digits-if20-ce-s0")
    finally:
        away.rename(weights)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0.5, 1.0], {}, "labels should be whole numbers"),
        ([-1, 0], {}, "labels should be whole numbers .* the lowest -1"),
        ([0, 1], {"imbalance_factor": 0.01}, "imbalance_factor is 0.01; .* at least 1"),
        ([[0], [1]], {}, "labels should be whole numbers"),
        ([], {}, "labels should be whole numbers"),
        ([0, 0, 0], {}, "one class only"),
        ([0, 0, 1, 1], {"n_max": 3}, "class 0 '0' has 2 images"),
        ([0, 0, 1, 1], {"imbalance_factor": 50}, "without an image"),
    ],
)
def test_labels_that_give_no_long_tail_are_refused(
    labels: list[object], options: dict[str, float], message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        bench.long_tail(labels, **{"imbalance_factor": 1.0, **options})


def test_a_long_tail_may_be_a_step() -> None:
    indices, counts = bench.long_tail(np.arange(40) % 4, 5, profile="step")
    assert counts.tolist() == [10, 10, 2, 2]
    assert sorted(np.bincount(indices % 4).tolist()) == [2, 2, 10, 10]


def test_a_method_in_ones_own_loop_has_the_loss_of_its_paper() -> None:
    counts = np.array([100, 30, 10])
    method = bench.build_method("balanced_softmax", "resnet8_cifar", counts)
    method.before_epoch(Clock(0, 1, 0, 1))
    images, labels = torch.randn(6, 3, 16, 16), torch.tensor([0, 0, 0, 1, 1, 2])
    expected = F.cross_entropy(method(images) + torch.tensor(counts).log(), labels)
    torch.testing.assert_close(method.loss(Batch((images,), labels, torch.arange(6))), expected)


def test_a_second_stage_starts_from_a_method_that_is_given() -> None:
    wide = {"name": "resnet8_cifar", "options": {"width": 0.5}}
    first = bench.build_method("ce", wide, [5, 2], seed=3)
    second = bench.build_method("crt", wide, [5, 2], parent=first)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(first.backbone(images), second.backbone(images))
    with pytest.raises(BenchError, match="'crt' starts from a trained method; give it as parent="):
        bench.build_method("crt", "resnet8_cifar", [5, 2])
    with pytest.raises(BenchError, match="'ce' does not start from another method; leave parent= out"):
        bench.build_method("ce", wide, [5, 2], parent=first)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("ldam_dwr", {}, "did you mean 'ldam_drw'"),
        ("ldam", {"margin": 1.0}, "'ldam' has no hyper-parameter 'margin'; did you mean 'max_margin'"),
        ("ce", {"seed": -1}, "ce: seed: Input should be greater than or equal to 0"),
        ("ldam_drw", {"reweight_from": 160}, "reweight_from is 160; it is a share of the epochs"),
        ("ldam", {"max_margin": "wide"}, "ldam: max_margin: Input should be a valid number"),
    ],
)
def test_a_method_that_cannot_be_built_is_reported(
    name: str, params: dict[str, object], message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        bench.build_method(name, "resnet8_cifar", [5, 2], **params)


@pytest.mark.parametrize("counts", [[], 10, [10, -1], [10.5, 2]])
def test_class_counts_that_are_none_are_refused(counts: object) -> None:
    with pytest.raises(BenchError, match="class_counts should be a whole number for each class"):
        bench.build_method("balanced_softmax", "resnet8_cifar", counts)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_outputs_of_a_loop_are_scored_as_they_are(kind: torch.dtype) -> None:
    logits = torch.eye(3, dtype=kind, requires_grad=True)
    assert bench.score(logits, torch.arange(3), [9, 5, 2])["accuracy"] == 100.0


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([1, 0], [1, 0], "do not fit"),
        ([[1, 0], [0, 1]], [0.0, 1.0], "labels should be whole numbers"),
        ([[1, 0], [0, 1]], [0, 2], r"labels must lie in 0\.\.1"),
    ],
)
def test_what_cannot_be_scored_is_reported(logits: list[object], labels: list[float], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        bench.score(logits, labels, [9, 5])


def test_one_filter_or_change_needs_no_list() -> None:
    recipe = bench.load_recipe("quick", "protocol.epochs=7")
    assert recipe.points[0].cell.protocol.epochs == 7
    with pytest.raises(BenchError, match="no cell of quick has label 'cf'"):
        bench.run("quick", only="label=cf")
    with pytest.raises(BenchError, match="names of two runs"):
        bench.compare(["a"], ["b"])


def test_the_leaderboard_without_results_is_the_literature(tmp_path: Path) -> None:
    board = bench.load_leaderboard(tmp_path / "results")
    assert set(board["kind"]) == {"published"}
    assert pd.notna(board["accuracy"]).sum() > len(published.load()) / 3


# -- the notebook ----------------------------------------------------------------------------------
def test_the_notebook_makes_a_table_and_a_figure_in_ten_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = json.loads((ROOT / "docs" / "paper.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) <= 10
    assert not any(cell["outputs"] for cell in cells)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    code = ["".join(cell["source"]) for cell in cells]
    assert sum("epochs=10" in source for source in code) == 1
    names: dict[str, object] = {}
    for source in code:
        exec(source.replace("epochs=10", "epochs=1"), names)  # as it is, but in less time
    assert r"\begin{tabular}" in (tmp_path / "table.tex").read_text()
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
