"""Two ranks do what one process does: the same batches, steps and scores, and one record."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import photo_trees
import pytest
import torch
import torch.distributed as dist
from project import ROOT
from torch import Tensor

from bench import backbones, ranks, recipe, registry
from bench.cell import BackboneChoice, Cell, Optimizer, Protocol, Schedule
from bench.data.feed.streaming import Batches, loader_for
from bench.data.sets.catalogue import DATASETS
from bench.data.split.load import load
from bench.errors import BenchError
from bench.launch.together import run_together
from bench.method import View
from bench.rundir import RunDir
from bench.train.build import build
from bench.train.checkpoint import read_checkpoint
from bench.train.loop import Training
from bench.train.run import run_cell

torch.set_num_threads(1)

METHODS = registry.methods()
#: One of every family, and those that meet ranks in a way of their own: stages taken one by one, experts as
#: a first dimension, queues and momentum encoders, mixed and second batches, frozen backbones, a ViT.
CHOSEN = dict.fromkeys(
    [
        *{entry.family: name for name, entry in METHODS.items() if entry.build.trains}.values(),
        *("rsg", "reslt", "shike", "dscl_pbsd_ensemble", "paco", "kcl", "bcl", "mixup", "bbn", "crt", "lift"),
    ]
)
Results = dict[str, Tensor]
#: Seconds after which a process is stuck, also on a busy machine; a rank does not wait for a dead one.
LIMIT = 3600


# -- what is done by one process and by two ----------------------------------------------------------
def trained(name: str, where: Path) -> Results:
    """A short run: the last batch of an epoch is smaller, and neither divides by two."""
    entry = METHODS[name]
    vit = {"img_size": 8, "patch_size": 2, "depth": 2, "embed_dim": 48, "num_heads": 3}
    backbone = (
        BackboneChoice(name="vit_tiny_patch16_224", options=vit)
        if entry.build.needs_backbone
        else BackboneChoice(name="resnet8_cifar")
    )
    split = load(DATASETS["digits"].model_copy(update={"n_max": 16, "test_per_class": 3}), 8.0, where)
    protocol = Protocol(
        epochs=2,
        batch_size=35,
        optimizer=Optimizer(lr=0.02),
        schedule=Schedule(per="step"),
        evaluate_every=2,
    )

    def cell_of(method: str, **params: Any) -> Cell:
        chosen = registry.find(method)
        queue = {"queue": 64} if "queue" in chosen.hyperparameters.model_fields else {}
        parent = cell_of(chosen.build.usual_parent) if chosen.build.needs_parent else None
        return Cell(
            method=chosen.choose(**queue | params),
            dataset=split.dataset,
            imbalance_factor=8.0,
            backbone=backbone,
            protocol=protocol,
            mode="exact",
            parent=parent,
        )

    cell = cell_of(name)
    method = build(cell, split.epoch_counts)
    loader = loader_for(split, method.views, cell, "cpu", extra_sampler=method.extra_sampler)
    method.before_training(loader.train_eval())
    run = RunDir(where / f"rank {ranks.rank()} of {ranks.world()}", cell.run_id)
    training = Training(cell, method, loader, run, "cpu", 1e9)
    losses, start = [], {key: tensor.clone() for key, tensor in method.state_dict().items()}
    list(training.steps(lambda line: losses.append(line["loss"])))
    assert training.logits is not None
    return {
        **{f"start {key}": tensor for key, tensor in start.items()},
        **{f"end {key}": tensor.clone() for key, tensor in method.state_dict().items()},
        "end losses": torch.tensor(losses),
        "end scores": torch.from_numpy(training.logits).float(),
    }


def normalised(count: int, kind: str, where: Path) -> Results:
    """Batch norm in training, within a backbone of one layer, and its gradients; 1 row is too few for two."""
    torch.manual_seed(count)
    norm: torch.nn.Module = {
        "plain": torch.nn.BatchNorm2d(3),
        "bare": torch.nn.BatchNorm2d(3, affine=False, track_running_stats=False),
        "cumulative": torch.nn.BatchNorm2d(3, momentum=None),
    }[kind]
    net = backbones.Backbone({"norm": norm, "more": torch.nn.Conv2d(3, 4, 3)}, torch.nn.Flatten(), 4)
    images = (torch.randn(count, 3, 5, 5) * 3 + 7).requires_grad_()
    results: Results = {}
    for step in range(2):
        net.zero_grad()
        images.grad = None
        made = net(images)
        (made.softmax(1).square().sum() + (made @ made.T).tanh().sum()).backward()
        ranks.average_gradients(net.parameters())
        assert images.grad is not None
        gradients = {f"{step} {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
        results |= {f"{step} made": made.detach(), f"{step} images": images.grad.clone(), **gradients}
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.1 * p.grad  # type: ignore[operator]
    results |= {"maps": net.feature_map(images.detach()), **net.state_dict()}
    net.eval()
    return {key: t.clone().detach() for key, t in results.items()} | {"eval": net(images).detach()}


def streamed(name: str, where: Path) -> Results:
    """Two epochs of batches from disk, and how many pictures were opened for them by this rank."""
    views, extra = {
        "plain": ((View(),), None),
        "pairs": ((View(), View("simclr")), None),
        "patches": ((View(), View("simclr", patch_of=0, boxes="b", size=16)), None),
        "second": ((View(),), "reverse"),
    }[name]
    loader = photo_trees.loader_of(where / "photos", *views, extra=extra)
    opened, own_open = [], Batches._open
    rows = torch.rand(19, 2, generator=torch.Generator().manual_seed(0)).numpy() / 2
    draws = {"b": np.concatenate([rows, rows + 0.5], axis=1)}
    Batches._open = lambda self, *which: opened.append(which) or own_open(self, *which)  # type: ignore[method-assign, func-returns-value]
    try:
        batches = [batch for epoch in range(2) for batch in loader.epoch(epoch, 2, "shuffle", draws)]
        some = [*batches, *(batch.extra for batch in batches if batch.extra)]
        images = photo_trees.everything(some)
        tested = [
            t for part in (loader.test(), loader.val(), loader.train_eval()) for pair in part for t in pair
        ]
    finally:
        Batches._open = own_open  # type: ignore[method-assign]
    positions = torch.cat([batch.positions for batch in batches])
    every = {str(i): t for i, t in enumerate([positions, *images, *tested])}
    return {**every, "opened": torch.tensor(len(opened))}


def refused(where: Path) -> Results:
    """A backbone that does not say where its rows are."""

    class Wrong(backbones.Backbone):
        def feature_map(self, images: Tensor) -> Tensor:
            return torch.stack([images, images, images])

    with pytest.raises(BenchError, match="rows_dim") if ranks.world() > 1 else nullcontext():
        Wrong({}, torch.nn.Identity(), 3)(torch.randn(8, 3, 2, 2))
    return {}


Case = Callable[[Path], Results]
CASES: dict[str, Case] = {
    **{f"trained {name}": partial(trained, name) for name in CHOSEN},
    **{f"normalised {n} {kind}": partial(normalised, n, kind) for n, kind in [(8, "plain"), (5, "plain")]},
    **{f"normalised {n} {kind}": partial(normalised, n, kind) for n, kind in [(1, "plain"), (7, "bare")]},
    "normalised 3 cumulative": partial(normalised, 3, "cumulative"),
    **{f"streamed {name}": partial(streamed, name) for name in ("plain", "pairs", "patches", "second")},
    "refused": refused,
}


def attempt(case: Case, where: Path) -> Results | str:
    try:
        return case(where)
    except Exception:
        return traceback.format_exc()


def work(rank: int, where: Path) -> None:
    """Go through the cases as one of two ranks."""
    store = dist.FileStore(str(where / "store"), 2)
    with ranks.join(store, rank, 2, "cpu"):
        results = {name: attempt(case, where) for name, case in CASES.items()}
    torch.save(results, where / f"results {rank}.pt")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What two ranks return for each case, in one process each."""
    where = tmp_path_factory.mktemp("ranks")
    photo_trees.imagenet(where / "photos")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(where)], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(LIMIT) for process in both] == [0, 0]
    return where, [torch.load(where / f"results {rank}.pt") for rank in range(2)]


def assert_close_run(key: str, result: Tensor, alone: Tensor, start: Tensor | None) -> None:
    """What a run moved it moved alike; where a ReLU opens at another's rounding, by some thousandths off."""
    if not alone.is_floating_point():
        assert torch.equal(result, alone), key
        return
    moved = (alone - (0 if start is None else start)).norm()
    apart = (result - alone).norm()
    assert apart <= 0.05 * moved + 1e-5 * alone.numel() ** 0.5, f"{key}: {apart:.2g} apart, {moved:.2g} moved"


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_do_as_one_process(pair: tuple[Path, list[dict[str, Any]]], name: str) -> None:
    where, found = pair
    alone = CASES[name](where)
    for result in (found[0][name], found[1][name]):
        assert not isinstance(result, str), result
        assert result.keys() == alone.keys()
        for key, tensor in alone.items():
            if key.startswith("end "):
                assert_close_run(key, result[key], tensor, alone.get(key.replace("end ", "start ", 1)))
            elif key != "opened":
                torch.testing.assert_close(
                    result[key],
                    tensor,
                    rtol=1e-3,
                    atol=1e-4,
                    msg=lambda reported, key=key: f"{key}: {reported}",
                )
    for key, tensor in found[0][name].items():
        if key != "opened":
            assert torch.equal(tensor, found[1][name][key]), f"{key}: the ranks came apart"
    if "opened" in alone:
        shares = [int(found[rank][name]["opened"]) for rank in range(2)]
        assert sum(shares) == int(alone["opened"])
        assert max(shares) < 0.6 * sum(shares), "each rank reads its own rows only"


# -- whole runs by torchrun ---------------------------------------------------------------------------
RECIPE = """\
title: A small story
grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar}
protocol: {epochs: 4, batch_size: 60, optimizer: {lr: 0.02}}
mode: exact
methods:
  ce: {}
  crt: {from: ce}
  bad_everywhere: {}
  bad_somewhere: {}
"""

BAD = '''\
"""Methods that go wrong: on all ranks, and on one while the others wait for it."""

import os

from bench.registry import register
from methods.cross_entropy import CrossEntropy


@register("bad_everywhere", title="Bad", family="own", venue="here", year=2026, paper="")
class BadEverywhere(CrossEntropy):
    def loss(self, batch):
        raise ValueError("in a bad mood")


@register("bad_somewhere", title="Bad", family="own", venue="here", year=2026, paper="")
class BadSomewhere(CrossEntropy):
    def before_step(self, clock, batch):
        if clock.step == 2 and os.environ.get("RANK") == "1":
            raise ValueError("in a bad mood")
'''

KILLED = """\
import os, signal, sys
from pathlib import Path
from bench.launch.together import is_first, run_together
from bench.registry import load_files
from bench.recipe import load

load_files([Path("bad.py")])

def listen(cell, event, detail):
    if event == "epoch" and detail["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)

cells = [point.cell for point in load(Path("story.yaml")).points][:1]
run_together(cells, Path("two"), Path("data"), listen=listen, checkpoint_seconds=0)
"""


def bench(where: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without a terminal."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
RUN = (
    *(str(ROOT / "run_bench.py"), "run", "story.yaml", "--methods", "bad.py", "--gpus", "none"),
    *("--results", "two", "--reports", "two/reports"),
)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """One recipe done by one process, and by two ranks: killed, resumed, and ended by one of them."""
    where = tmp_path_factory.mktemp("story")
    for name, text in {"story.yaml": RECIPE, "bad.py": BAD, "killed.py": KILLED}.items():
        (where / name).write_text(text)
    reported = [bench(where, *TORCHRUN, "killed.py")]
    (run,) = (where / "two/runs").iterdir()
    assert RunDir(where / "two", run.name).look()[0].status == "interrupted"
    assert read_checkpoint(run / "checkpoint.pt", run.name.rpartition("-")[2], "cpu")
    reported += [bench(where, *TORCHRUN, *RUN)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_specs", dict(registry._specs))
        registry.load_files([where / "bad.py"])
        for point in recipe.load(where / "story.yaml").points:
            run_cell(point.cell, where / "one", where / "data")
    return where, reported


def records(results: Path) -> dict[str, dict[str, Any]]:
    found = [RunDir(results, path.name).read_record() for path in (results / "runs").iterdir()]
    return {record["cell"]["method"]["name"]: record for record in found}


def test_the_record_of_two_ranks_is_that_of_one_process(story: tuple[Path, list[Any]]) -> None:
    where, reported = story
    one, two = records(where / "one"), records(where / "two")
    for name in ("ce", "crt"):
        assert two[name]["status"] == "done", reported[-1].stderr
        assert two[name].keys() == one[name].keys()
        assert two[name]["run_id"] == one[name]["run_id"], "the id does not know how many ranks there are"
        assert two[name]["metrics"]["accuracy"] == pytest.approx(one[name]["metrics"]["accuracy"], abs=1)
        for part in ("cell", "method", "data", "model"):
            assert two[name][part] == one[name][part]
        assert (one[name]["environment"]["ranks"], two[name]["environment"]["ranks"]) == (1, 2)
        lines = [RunDir(where / r, one[name]["run_id"]).epochs() for r in ("one", "two")]
        assert [line["epoch"] for line in lines[1]] == [0, 1, 2, 3]
        for ours, theirs in zip(*lines, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_a_killed_rank_leaves_a_run_to_go_on_with(story: tuple[Path, list[Any]]) -> None:
    _, reported = story
    assert reported[0].returncode
    lines = reported[1].stdout.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["done", "ce"], ["done", "crt"]]


def test_what_fails_alike_is_reported_and_the_next_goes_on(story: tuple[Path, list[Any]]) -> None:
    where, _ = story
    one, two = records(where / "one")["bad_everywhere"], records(where / "two")["bad_everywhere"]
    assert two["status"] == one["status"] == "failed"
    assert two["reason"] == one["reason"] == "ValueError: in a bad mood"
    assert "bad_somewhere" in records(where / "two"), "it went on"


def test_a_rank_that_fails_alone_ends_all_and_says_why(story: tuple[Path, list[Any]]) -> None:
    where, reported = story
    record = records(where / "two")["bad_somewhere"]
    assert record["reason"] == "rank 1 of 2: ValueError: in a bad mood"
    assert "before_step" in record["traceback"]
    assert reported[1].returncode
    assert "ranks came apart" in reported[1].stderr
    assert reported[1].stdout.count("failed ") == 2, "each reported once, by the first rank"
    assert records(where / "one")["bad_somewhere"]["status"] == "done", "it has no rank 1"


def test_ranks_train_once_more_beside_the_old_run(story: tuple[Path, list[Any]]) -> None:
    where, _ = story
    before = records(where / "two")["crt"]
    reported = bench(where, *TORCHRUN, *RUN, "--only", "label=crt", "--force")
    assert reported.returncode == 0, reported.stderr
    after = records(where / "two")["crt"]
    assert after["timing"]["finished"] > before["timing"]["finished"]
    assert after["metrics"]["accuracy"] == pytest.approx(before["metrics"]["accuracy"], abs=1)
    assert not list((where / "two" / "rerun").glob("*-crt-*"))


def test_without_torchrun_there_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.launch import together

    assert not together.under_torchrun()
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert not together.under_torchrun(), "a cluster may set that too"
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    assert together.under_torchrun()
    assert not together.is_first()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    own = tmp_path / "known_to_ranks.py"
    own.write_text("import os\nos.environ['LOADED'] = 'yes'\n")
    monkeypatch.setenv("LOADED", "no")
    with pytest.raises(BenchError, match="nproc-per-node 4, for 2 GPUs"):
        run_together([], tmp_path, tmp_path, gpus=("0", "1"), methods=(own,))
    assert os.environ["LOADED"] == "yes"  # on a cluster no command has loaded a user's methods before


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
