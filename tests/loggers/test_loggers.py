"""Loggers: what each real package has in the end, offline, and that none of them can harm a run."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fault_fakes import fake_logger as fake
from fault_fakes import make, telling_run

from bench import loggers
from bench.cell import Cell
from bench.errors import BenchError
from bench.launch.local import Listen, run_grid
from bench.loggers import Wanted, chosen, describe, parse
from bench.loggers.relay import noted
from bench.recipe import load
from bench.rundir import RunDir

Lines = list[str]
ONE, TWO, SHORT, BLOCKED = (make(name) for name in ("ce", "ldam", "posthoc", "blocked"))


@contextmanager
def listening(tmp_path: Path, wanted: Wanted, limit: float = 60.0) -> Iterator[tuple[Listen, Lines]]:
    """Give what a launcher tells, and the warnings."""
    reported: Lines = []
    with noted([wanted], tmp_path, {ONE.run_id: "plain"}, lambda *_: None, reported.append, limit) as listen:
        yield listen, reported


def line(epoch: int, loss: float) -> dict[str, Any]:
    return {"epoch": epoch, "epochs": 2, "loss": loss, "lr": 0.1, "accuracy": None if epoch else 50.0}


RECORD = {
    "metrics": {"accuracy": 60.5, "few": None, "selection": "last_epoch"},
    "best_on_test": {"accuracy": 61.0},
}


def tell_two_runs(listen: Listen) -> None:
    """Two runs side by side, of which one ends and one fails, and one without an epoch."""
    for cell in (ONE, TWO):
        listen(cell, "planned", {})
        listen(cell, "started", {})
    for epoch in range(2):
        listen(ONE, "epoch", line(epoch, 2.0 - epoch))
        listen(TWO, "epoch", line(epoch, 3.0 - epoch))
    listen(ONE, "done", RECORD)
    listen(TWO, "failed", {"reason": "it had to"})
    listen(SHORT, "started", {})  # as post-hoc adjustment, which trains nothing
    listen(SHORT, "done", RECORD)
    listen(BLOCKED, "blocked", {"reason": "its parent failed"})


def tell_a_run_in_two_parts(listen: Listen, end: str, first: int, *losses: float) -> None:
    listen(ONE, "started", {})
    for epoch, loss in enumerate(losses, start=first):
        listen(ONE, "epoch", line(epoch, loss))
    listen(ONE, end, RECORD if end == "done" else {})


# -- the real packages -----------------------------------------------------------------------------
#: Of each logger: its options, and what it has of a run: values by name and epoch, and how it ended.
Read = Callable[[Path, Cell], tuple[dict[str, dict[int, float]], str]]


def of_tensorboard(results: Path, cell: Cell) -> tuple[dict[str, dict[int, float]], str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(results / "loggers" / "tensorboard" / cell.run_id)).Reload()
    found = {name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}
    return found, ""


def records_of(file: Path) -> Iterator[bytes]:
    """Read the records of a .wandb file: a head of 7 bytes, then LevelDB's log format."""
    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield whole
            whole = b""


def of_wandb(results: Path, cell: Cell) -> tuple[dict[str, dict[int, float]], str]:
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, dict[int, float]] = {}
    summary: dict[str, Any] = {}
    for file in sorted(results.glob(f"loggers/wandb/offline-run-*/run-{cell.run_id}.wandb")):
        for record in map(Record.FromString, records_of(file)):
            items = {(i.key or i.nested_key[0]): json.loads(i.value_json) for i in record.history.item}
            for name, value in items.items():
                if not name.startswith("_"):
                    found.setdefault(name, {})[int(items["epoch"])] = value
            summary |= {(i.key or i.nested_key[0]): json.loads(i.value_json) for i in record.summary.update}
    found |= {name: {1: value} for name, value in summary.items() if name.startswith("final/")}
    return found, summary.get("status", "")


def of_mlflow(results: Path, cell: Cell) -> tuple[dict[str, dict[int, float]], str]:
    from mlflow import MlflowClient

    client = MlflowClient((results / "loggers" / "mlruns").as_uri())
    (home,) = client.search_experiments(filter_string="name = 'longtail-bench'")
    run, *older = client.search_runs([home.experiment_id], f"tags.`longtail.run_id` = '{cell.run_id}'")
    assert not older
    assert run.data.params["protocol.epochs"] == "2"
    names = run.data.metrics
    history = {n: {m.step: m.value for m in client.get_metric_history(run.info.run_id, n)} for n in names}
    return history, run.info.status


def of_trackio(results: Path, cell: Cell) -> tuple[dict[str, dict[int, float]], str]:
    from trackio.sqlite_storage import SQLiteStorage

    found: dict[str, dict[int, float]] = {}
    for entry in SQLiteStorage.get_logs("longtail-bench", cell.run_id):
        for name, value in entry.items():
            if isinstance(value, float | int) and name != "step":
                found.setdefault(name, {})[entry["step"]] = value
    return found, ""


REAL: dict[str, tuple[str, Read, dict[str, str]]] = {
    "tensorboard": ("tensorboard", of_tensorboard, {}),
    "wandb": ("wandb:project=lt,mode=offline", of_wandb, {"done": "done", "failed": "failed"}),
    "mlflow": ("mlflow", of_mlflow, {"done": "FINISHED", "failed": "FAILED"}),
    "trackio": ("trackio", of_trackio, {}),
}


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    name = str(request.param)
    pytest.importorskip(parse(name).kind.package, reason=f"{name} is not installed here")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setattr(
        "trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio"
    ) if name == "trackio" else None
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # for reading
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return name


def test_two_runs_side_by_side_are_noted_each_by_itself(real: str, tmp_path: Path) -> None:
    asked, read, ends = REAL[real]
    with listening(tmp_path, parse(asked)) as (listen, reported):
        tell_two_runs(listen)
    assert reported == []
    one, end = read(tmp_path, ONE)
    assert one["loss"] == pytest.approx({0: 2.0, 1: 1.0})
    assert one["accuracy"] == pytest.approx({0: 50.0}), "what was not measured is not there"
    assert list(one["final/accuracy"].values()) == pytest.approx([60.5])
    assert list(one["final/best_on_test"].values()) == pytest.approx([61.0])
    assert "final/few" not in one
    assert end == ends.get("done", "")
    two, end = read(tmp_path, TWO)
    assert two["loss"] == pytest.approx({0: 3.0, 1: 2.0})
    assert end == ends.get("failed", "")
    short, _ = read(tmp_path, SHORT)
    assert list(short["final/accuracy"].values()) == pytest.approx([60.5])


def test_a_run_that_goes_on_is_one_run(real: str, tmp_path: Path) -> None:
    asked, read, _ = REAL[real]
    parts = ("interrupted", 0, (2.0,)), ("interrupted", 1, ()), ("done", 1, (1.0, 0.5))
    for end, first, losses in parts:
        with listening(tmp_path, parse(asked)) as (listen, reported):
            tell_a_run_in_two_parts(listen, end, first, *losses)
        for epoch, loss in enumerate(losses, start=first):
            RunDir(tmp_path, ONE.run_id).append_epoch(line(epoch, loss))
        assert reported == []
    assert read(tmp_path, ONE)[0]["loss"] == pytest.approx({0: 2.0, 1: 1.0, 2: 0.5})


# -- what goes wrong -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("does", "problem"),
    [
        ("raise", "RuntimeError: no such server"),
        ("die", "its process ended with exit code 7"),
        ("hang", "was not done after 3 seconds, and is given up"),
    ],
)
def test_a_logger_that_misbehaves_costs_one_line(does: str, problem: str, tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    cells = [make("ce", seed=seed) for seed in range(3)]
    reported: Lines = []
    heard: list[str] = []
    before = time.monotonic()
    with noted([fake(does)], results, {}, lambda c, e, d: heard.append(e), reported.append, 3.0) as listen:
        ends = run_grid(cells, results, data, jobs=2, listen=listen, worker=telling_run)
        trained = time.monotonic() - before
    assert [state.status for state in ends.values()] == ["done"] * 3
    assert heard.count("epoch") == 6
    assert len(reported) == 1
    prints = results / "loggers" / "tensorboard.txt"
    assert reported == [
        f"--log tensorboard: {problem}; the runs are not touched by it; all of it is in {prints}"
    ]
    assert "a noise that belongs to no terminal" in prints.read_text()
    assert time.monotonic() - before - trained < 20


def test_curves_that_cannot_be_written_are_reported(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "loggers").mkdir()
    (tmp_path / "loggers" / "tensorboard").touch()  # where a folder should be
    with listening(tmp_path, parse("tensorboard")) as (listen, reported):
        tell_two_runs(listen)
    assert len(reported) == 1
    assert "Error" in reported[0]


def test_a_logger_hears_all_that_runs_in_processes_tell(tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    cells = [make("ce", seed=seed) for seed in range(3)]
    reported: Lines = []
    with noted([fake("well")], results, {}, lambda *_: None, reported.append) as listen:
        run_grid(cells, results, data, jobs=2, listen=listen, worker=telling_run)
    assert reported == []
    for cell in cells:
        assert (results / f"{cell.run_id}.txt").read_text() == "0 1.0\n1 1.0\ndone"


def test_runs_that_are_stopped_are_ended_for_the_logger_too(tmp_path: Path) -> None:
    def stopped() -> None:
        with listening(tmp_path, fake("well")) as (listen, reported):
            listen(ONE, "started", {})
            listen(ONE, "epoch", line(0, 2.0))
            warnings.append(reported)
            raise KeyboardInterrupt

    warnings: list[Lines] = []
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert warnings == [[]]
    assert (tmp_path / f"{ONE.run_id}.txt").read_text() == "0 2.0\ninterrupted"


def test_nothing_is_started_where_nothing_runs(tmp_path: Path) -> None:
    with listening(tmp_path, fake("well")) as (listen, reported):
        listen(ONE, "planned", {})
    assert reported == []
    assert not list(tmp_path.iterdir())


# -- how it is asked for ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wandbb", "--log: unknown logger 'wandbb'; did you mean 'wandb'?"),
        ("wandb:projct=lt", "--log: wandb has no option 'projct'; did you mean 'project'?"),
        ("wandb:lt", "--log: 'lt': write wandb:key=value, with a comma between two"),
        ("none,tensorboard", "--log: unknown logger 'none,tensorboard'"),
    ],
)
def test_a_logger_that_is_asked_for_wrongly_is_reported(text: str, message: str) -> None:
    with pytest.raises(BenchError) as reported:
        chosen([text])
    assert str(reported.value).startswith(message)


def test_a_package_that_is_missing_is_reported_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        BenchError, match=r"--log mlflow: mlflow is not installed; pip install -e \"\.\[mlflow\]\""
    ):
        chosen(["mlflow:experiment=a"])


def test_the_command_goes_before_the_recipe() -> None:
    assert [wanted.name for wanted in chosen(None, ["tensorboard"])] == ["tensorboard"]
    assert chosen(["none"], ["tensorboard"]) == []
    assert chosen([], []) == []


RECIPE = """\
# One cell.
grid: {dataset: digits, imbalance_factor: 10, backbone: resnet8_cifar, seed: 0}
methods: {ce: {}}
protocol: {epochs: 1}
"""


def test_a_recipe_may_name_loggers_and_its_cells_stay_the_same(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(RECIPE)
    plain = load(path)
    path.write_text(RECIPE + "log: [tensorboard, 'wandb:project=lt']\n")
    logged = load(path)
    assert logged.log == ("tensorboard", "wandb:project=lt")
    assert [point.cell.id for point in logged.points] == [point.cell.id for point in plain.points]
    path.write_text(RECIPE + "log: tensorbord\n")
    with pytest.raises(BenchError, match=r"own.yaml:5: log: unknown logger 'tensorbord'; did you mean"):
        load(path)


def test_a_cell_is_described_by_flat_values() -> None:
    reported = describe(make("ce", parent=ONE))
    assert reported["protocol.optimizer.lr"] == 0.1
    assert reported["params.does"] == "well"
    assert reported["parent"] == ONE.run_id
    assert all(isinstance(value, str | int | float | bool) for value in reported.values())
