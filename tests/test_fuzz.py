"""Files that nobody meant: whatever stands in them, a result or one clear line comes of it, and soon."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leaderboard_fakes import literature
from project import ROOT
from records_factory import finish, make_cell, make_grid

from bench import published
from bench.cell import DataSet, ListFiles
from bench.data.read.lists import read_lists
from bench.errors import BenchError
from bench.json_text import hash_of, pretty
from bench.leaderboard import external
from bench.recipe import load
from bench.records import Results
from bench.rundir import ENDS, RunDir

#: What one example may take, in seconds: far above what it does, far below what a bomb would.
SOON = 20

SAME_FOLDER = [HealthCheck.function_scoped_fixture]  # each example writes the same files anew


def fuzz(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=SAME_FOLDER,
    )


#: Values that stand where others are expected.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**63, 10**400, 1e308, float("inf"), float("nan"), 0.1]),
    st.sampled_from(["", "ce", "../../x", "\ud800", "\x00", "x" * 2000, "<script>", "=1+1", "[/x]", "1e5"]),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([1, "a", None]),
    st.just({"a": {"b": [1]}}),
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the path of every value of a tree."""
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in items:
        yield from places(child, (*path, key))


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> Any:
    """A copy of a tree in which one to three values are other ones, gone, or under another key."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(list(places(tree)) or [("",)]))
        parent = tree
        for key in way:
            parent = parent[key]
        how = draw(st.sampled_from(["put", "put", "put", "drop", "rename"]))
        if how == "put" or not isinstance(parent, dict):
            parent[last] = copy.deepcopy(draw(ODD))  # what is drawn is shared between examples
        else:
            value = parent.pop(last, None)
            if how == "rename":
                parent[draw(st.sampled_from([f"{last}s", "", "<b>", "a.b"]))] = value
    return tree


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with some of its bytes changed, cut out, or put in."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        cut = draw(st.integers(0, 8))
        content = content[:at] + draw(st.binary(max_size=6)) + content[at + cut :]
    return content


def one_line_about(error: BenchError, *names: str) -> None:
    """Check that an error is in lines that each name a file, none of them long."""
    for line in str(error).split("\n"):
        assert any(name in line for name in names) or line.startswith("... and"), line
        assert len(line) < 2000
        assert not re.search(r"[\x00-\x1f]", line)


# -- recipes ---------------------------------------------------------------------------------------
RECIPES = {
    name: (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    for name in ("digits/quick", "digits/core_digits", "imagenet/imagenet_lt_dscl")
}


def reads_or_says_why(folder: Path, content: bytes) -> None:
    started = time.monotonic()
    file = folder / "recipes" / "mine.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    try:
        assert load(file).points
    except BenchError as error:
        one_line_about(error, "mine.yaml", "_base.yaml")  # which a recipe includes
    assert time.monotonic() - started < SOON


@pytest.mark.parametrize("name", RECIPES)
@fuzz(60)
@given(data=st.data())
def test_a_real_recipe_with_odd_values_reads_or_says_why(
    tmp_path: Path, name: str, data: st.DataObject
) -> None:
    tree = data.draw(changed(yaml.safe_load(RECIPES[name])))
    try:
        text = json.dumps(tree) if data.draw(st.booleans()) else yaml.safe_dump(tree, allow_unicode=True)
    except yaml.YAMLError:
        text = json.dumps(tree)
    reads_or_says_why(tmp_path, text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", RECIPES)
@fuzz(40)
@given(data=st.data())
def test_a_real_recipe_with_damaged_bytes_reads_or_says_why(
    tmp_path: Path, name: str, data: st.DataObject
) -> None:
    reads_or_says_why(tmp_path, data.draw(damaged(RECIPES[name].encode())))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1, 1]\nb: &b [*a, *a]\n" + "".join(f"c{i}: &c{i} [{'*b, ' * 500}]\n" for i in range(50)),
        "{" * 200_000,
        "a: '" + "x" * 250_000,
        "a: " + "?" * 250_000,
        "- " * 120_000,
        "&a " * 80_000,
        "title: " + "[bold]" * 40_000,
        "\n" * 250_000 + "a",
        "a: |\n" + " \n" * 100_000,
        "methods: {" + ", ".join(f"m{i}: {{}}" for i in range(15_000)) + "}",
    ],
)
def test_a_bomb_is_refused_soon(tmp_path: Path, text: str) -> None:
    reads_or_says_why(tmp_path, text.encode())


# -- list files ------------------------------------------------------------------------------------
LISTED = DataSet(
    name="mine",
    source="list",
    folder="images",
    lists=ListFiles(train="train.txt", test="test.csv", val="val.txt", classes="classes.txt"),
)
LISTS = {
    "train.txt": b"train/cat/1.jpg 0\ntrain/cat/2.jpg 0\ntrain/dog/3.jpg 1\ntrain/emu/4.jpg 2\n",
    "test.csv": b"path,label\ntest/5.jpg,0\ntest/6.jpg,1\ntest/7.jpg,2\n",
    "val.txt": b"val/8.jpg\t2\nval/9.jpg 0\n",
    "classes.txt": b"cat\ndog\nemu\n",
}


@fuzz(150)
@given(data=st.data())
def test_lists_that_are_damaged_are_read_or_reported(tmp_path: Path, data: st.DataObject) -> None:
    root = tmp_path / "images"
    root.mkdir(exist_ok=True)
    name = data.draw(st.sampled_from(list(LISTS)))
    for file, content in LISTS.items():
        (root / file).write_bytes(data.draw(damaged(content)) if file == name else content)
    try:
        lists = read_lists(LISTED, tmp_path)
    except BenchError as error:
        one_line_about(error, *LISTS)
        return
    for listing in lists.parts.values():
        assert listing.labels.max() < len(lists.class_names)
        for place in range(len(listing)):
            assert (root / listing.path(place)).resolve().is_relative_to(root.resolve())


# -- run directories -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run, of which the tests spoil copies."""
    return finish(tmp_path_factory.mktemp("whole"), make_cell())


def spoilt(whole: RunDir, results: Path, file: str, content: bytes) -> RunDir:
    """Lay a run down beside `whole` whose `file` has another content."""
    run = RunDir(results, whole.run_id)
    run.path.mkdir(parents=True, exist_ok=True)
    for name in ("cell.yaml", "epochs.jsonl", "record.json"):
        (run.path / name).write_bytes(content if name == file else (whole.path / name).read_bytes())
    return run


@fuzz(200)
@given(data=st.data())
def test_a_record_with_damaged_bytes_is_never_trusted(
    whole: RunDir, tmp_path: Path, data: st.DataObject
) -> None:
    content = data.draw(damaged(whole.record.read_bytes()))
    run = spoilt(whole, tmp_path, "record.json", content)
    try:
        assert run.read_record() == whole.read_record()  # other spaces say nothing else
    except BenchError as error:
        one_line_about(error, "record.json")
        assert run.look()[0].status == "unreadable"


@fuzz(80)
@given(data=st.data())
def test_a_forged_record_is_a_row_and_no_traceback(
    whole: RunDir, tmp_path: Path, data: st.DataObject
) -> None:
    record = data.draw(changed(whole.read_record()))
    try:
        record["checksum"] = hash_of({key: value for key, value in record.items() if key != "checksum"})
        text = pretty(record)
    except ValueError:  # JSON has no infinity
        text = json.dumps(record)
    run = spoilt(whole, tmp_path, "record.json", text.encode("utf-8", "surrogatepass"))
    table = Results(tmp_path).table()
    assert table["run_id"].tolist() == [run.run_id]
    assert table["status"][0] in (*ENDS, "unreadable")


@fuzz(80)
@given(data=st.data())
def test_a_cell_with_odd_values_is_refused_or_the_same(
    whole: RunDir, tmp_path: Path, data: st.DataObject
) -> None:
    tree = yaml.safe_load(whole.cell.read_bytes())
    content = data.draw(
        st.one_of(
            damaged(whole.cell.read_bytes()),
            changed(tree).map(lambda tree: json.dumps(tree).encode()),
            st.sampled_from(
                [b"seed: 2020-01-01", b"? [1]\n: 2", b"[" * 100_000, b"!!int ''", b"a: !!set {b}"]
            ),
        )
    )
    run = spoilt(whole, tmp_path, "cell.yaml", content)
    try:
        cell = run.read_cell()
    except BenchError as error:
        one_line_about(error, "cell.yaml")
    else:
        assert cell.id == whole.read_cell().id


@fuzz(100)
@given(data=st.data())
def test_epoch_lines_end_where_they_are_spoilt(whole: RunDir, tmp_path: Path, data: st.DataObject) -> None:
    text = whole.epoch_lines.read_bytes()
    content = data.draw(
        damaged(text) | st.sampled_from([b"[]\n", b"[" * 100_000, b'{"epoch": "1"}\n', b"1\n"])
    )
    run = spoilt(whole, tmp_path, "epochs.jsonl", content)
    assert all(type(line["epoch"]) is int for line in run.epochs())
    run.keep_epochs(2)
    assert all(line["epoch"] < 2 for line in run.epochs())
    run.append_epoch({"epoch": 2})
    assert run.epochs()[-1] == {"epoch": 2}


@fuzz(120)
@given(data=st.data())
def test_a_grid_file_is_read_or_named(tmp_path: Path, data: st.DataObject) -> None:
    grid = make_grid(tmp_path, "small", [("ce", make_cell()), ("crt", make_cell("crt", parent=make_cell()))])
    file = tmp_path / "grids" / "small.json"
    text = data.draw(
        damaged(file.read_bytes())
        | changed(grid).map(lambda g: json.dumps(g).encode())
        | st.just(b"[" * 10**5)
    )
    file.write_bytes(text)
    try:
        found = Results(tmp_path).grids["small"]
    except BenchError as error:
        one_line_about(error, "small.json")
        return
    assert all(isinstance(reported, str) for reported in (found.title, found.notes))


# -- published numbers -----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small literature with three numbers."""
    folder = tmp_path_factory.mktemp("literature")
    literature(folder, {"method": "ce"}, {"method": "bcl", "value": "50"}, {"method": "crt", "note": "a, b"})
    return folder


@fuzz(150)
@given(data=st.data(), name=st.sampled_from(["published.csv", "methods.csv"]))
def test_a_damaged_table_is_read_as_far_as_it_is_whole(
    known: Path, tmp_path: Path, data: st.DataObject, name: str
) -> None:
    for file in known.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(data.draw(damaged(content)) if file.name == name else content)
    problems: list[str] = []
    rows = published.load(folder=tmp_path, problems=problems)
    assert len(rows) <= 3 + 3  # a newline put in can make a row of a row
    assert rows["value"].between(0, 100).all()
    for problem in problems:
        one_line_about(BenchError(problem), "published.csv", "methods.csv")
    if problems:
        with pytest.raises(BenchError):
            published.load(folder=tmp_path)


SPREADSHEET = "=1+1,@x,-,nan,inf,1e5,1_0,٣,yes,all,https://x,javascript:0,../..,<b>,100,200.0,top1,text,a|b"
CELLS = st.sampled_from([*next(csv.reader([SPREADSHEET])), "", "ce", "CE", '"', "\x00", "x" * 140_000])


@fuzz(150)
@given(data=st.data())
def test_odd_cells_of_a_user_s_rows_are_reported_by_line(
    known: Path, tmp_path: Path, data: st.DataObject
) -> None:
    with (known / "published.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    for _ in range(data.draw(st.integers(1, 4))):
        line = data.draw(st.sampled_from([header, *lines]))
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(CELLS)
    out = io.StringIO()
    csv.writer(out).writerows([header, *lines])
    (tmp_path / "mine.csv").write_text(out.getvalue())
    problems: list[str] = []
    published.load(tmp_path / "mine.csv", folder=known, problems=problems)
    for problem in problems:
        one_line_about(BenchError(problem), "mine.csv")


@fuzz(100)
@given(data=st.data())
def test_predictions_kept_by_a_stranger_are_a_row_or_reported(tmp_path: Path, data: st.DataObject) -> None:
    kept = {
        "schema_version": 1,
        "name": "mine",
        "dataset": "cifar10",
        "data_copy": "original",
        "imbalance_factor": 100.0,
        "protocol": {"epochs": 200, "backbone": "resnet32_cifar"},
        "given": "labels",
        "images": 10,
        "sha256": "0" * 64,
        "metrics": {"accuracy": 50.0, "many": 60.0, "few": None, "per_class": [1.0, None]},
    }
    file = tmp_path / "external" / "mine.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(data.draw(changed(kept))), encoding="utf-8")
    problems: list[str] = []
    rows = external.load(tmp_path, problems)
    assert len(rows) + len(problems) == 1
    for problem in problems:
        one_line_about(BenchError(problem), "mine.json")
