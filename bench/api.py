"""The suite from Python: each function is an attribute of `bench`, and imports what it needs when called."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from bench.method import Method
    from bench.metrics import FullScore
    from bench.recipe import Recipe
    from bench.records import Results

#: A backbone as in a recipe: a name, or {"name": ..., "options": {...}}.
BackboneLike = str | Mapping[str, Any]


def methods(*files: str | Path) -> pd.DataFrame:
    """Return what is published of each method, indexed by its name in recipes.

    >>> import bench
    >>> table = bench.methods()
    >>> table.loc["ldam_drw", ["title", "family", "venue", "paper"]].tolist()
    ['LDAM-DRW', 'margin', 'NeurIPS', 'https://arxiv.org/abs/1906.07413']
    >>> table[table.venue == "ICLR"].index.tolist()[:3]
    ['balanced_softmax_cuda', 'ce_cuda', 'ce_drw_cuda']

    Args:
        files: Python files with methods of your own, which are registered and listed too.
    """
    import pandas as pd

    from bench import registry
    from bench.facts import Facts

    fields = list(Facts.__dataclass_fields__)
    known = registry.described([Path(file) for file in files])
    rows = {name: [getattr(facts, field) for field in fields] for name, facts in known.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=fields).rename_axis("method")
    return table.astype(dict.fromkeys(fields, "string") | {"year": "Int64"})


def load_recipe(path: str | Path, sets: Sequence[str] = ()) -> Recipe:
    """Read a recipe, by its file or its name; `sets` changes values of it, as `--set` does.

    >>> import bench
    >>> recipe = bench.load_recipe("quick", ["protocol.epochs=1", "protocol.schedule.warmup_epochs=0"])
    >>> recipe.name, len(recipe.points), recipe.points[0].cell.protocol.epochs
    ('quick-set', 33, 1)
    >>> len(recipe.only(["label=ce,ldam_drw", "seed=0"]).points)
    2

    Raises:
        BenchError: what is wrong, each mistake in a line of its own.
    """
    from bench.recipe import load

    recipe = load(Path(path), sets)
    if sets:  # other cells than the recipe's own must not take the place of its report
        recipe = replace(recipe, name=f"{recipe.name}-set", title=f"{recipe.title} ({', '.join(sets)})")
    return recipe


def run(
    recipe: str | Path | Recipe,
    *,
    only: Sequence[str] = (),
    results: str | Path = "results",
    data: str | Path | None = None,
    jobs: int | None = None,
    gpus: Sequence[str] | None = None,
    per_gpu: int | None = None,
    force: bool = False,
    retry_failed: bool = False,
    retrain_stale: bool = False,
    methods: Sequence[str | Path] = (),
    log: Sequence[str] = (),
    progress: bool = True,
) -> pd.DataFrame:
    """Train the cells of a recipe that are not trained yet; return their rows of `load_results`, in order.

    Of a recipe with a search the first call trains the trials, the next one what won. Runs are processes of
    their own, so in a script the call stands below ``if __name__ == "__main__":``.
    Stop it with Ctrl-C, or the notebook's stop button; the same call goes on.

    >>> import bench
    >>> recipe = bench.load_recipe("quick", ["protocol.epochs=1", "protocol.schedule.warmup_epochs=0"])
    >>> table = bench.run(recipe, only=["label=ce,posthoc_la", "seed=0"], gpus=(), progress=False)
    >>> table[["label", "method", "seed", "status"]].values.tolist()
    [['ce', 'ce', 0, 'done'], ['posthoc_la', 'posthoc_logit_adjustment', 0, 'done']]

    Args:
        only: cells to train, as "label=ce,crt" and "seed=0"; all filters must hold.
        data: where the images are; default: the environment variable LONGTAIL_DATA, else ``data``.
        jobs: how many at once; default: one per core, or what the GPUs have room for.
        gpus: as CUDA_VISIBLE_DEVICES names them; default: all; none: the runs are on the CPU.
        per_gpu: how many runs share a GPU; default: as many as pay.
        force: train once more, done or not: beside what is there, whose place it takes when it is done.
        retry_failed: train once more what failed or cannot be read, likewise.
        retrain_stale: train once more what was done on other data or code than those here now, likewise.
        methods: Python files with methods of your own.
        log: loggers, as "tensorboard" and "wandb:project=lt"; default: the recipe's.
        progress: print how the runs go: a line for each that ends, on a terminal bars.

    Raises:
        BenchError: the recipe is wrong, images are missing, or runs of a data set's name have other content.
    """
    from rich.console import Console

    from bench import registry
    from bench.cell import families
    from bench.cli.estimate import training_images
    from bench.cli.grids import gpus_of
    from bench.launch.local import run_grid
    from bench.launch.progress import watch
    from bench.launch.rerun import pending
    from bench.loggers import chosen
    from bench.loggers.relay import noted
    from bench.recipe import Recipe, grid_file
    from bench.records import Results, write_grid
    from bench.search.resolve import resolve
    from bench.stale import Now, refuse_other_content, to_train

    files = [Path(file) for file in methods]
    registry.load_files(files)
    root, images = Path(results), Path(data or os.environ.get("LONGTAIL_DATA") or "data")
    now = Now(images, registry.sources())
    runs = Results(root, now)
    whole = resolve(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), runs)
    loggers = chosen(log, whole.log)
    cells = [point.cell for point in whole.only(only).points]
    for cell in {(cell.dataset, cell.imbalance_factor): cell for cell in cells}.values():
        training_images(cell, images)  # better one error now than one in each run
    refuse_other_content(cells, runs, now)
    known = runs.states(families(cells).values())
    begun = pending(root, known)
    wanted, over = to_train(cells, known, retrain_stale=retrain_stale, force=force, begun=begun)
    write_grid(root, whole.name, grid_file(whole))
    labels = {point.cell.run_id: point.label for point in whole.points}
    console = Console(quiet=not progress)
    with (
        watch(labels, console, root) as shown,
        noted(loggers, root, labels, shown, warnings.warn) as listen,
    ):
        run_grid(
            wanted,
            root,
            images,
            jobs=jobs,
            gpus=gpus_of(None) if gpus is None else gpus,
            per_gpu=per_gpu,
            retry_failed=retry_failed,
            rerun=over,
            methods=files,
            listen=listen,
        )
    table = _with_recipes(Results(root, Now(images, registry.sources())))
    there = table[table["recipe"] == whole.name].set_index("run_id", drop=False)
    return there.reindex([cell.run_id for cell in cells if cell.run_id in there.index]).reset_index(drop=True)


def long_tail(
    labels: npt.ArrayLike,
    imbalance_factor: float,
    *,
    profile: Literal["exponential", "step", "pareto"] = "exponential",
    n_max: int | None = None,
    split_seed: int = 0,
    class_order: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a long tail from a balanced set, as the field does since LDAM-DRW: image by image the same subset.

    >>> import bench
    >>> import numpy as np
    >>> labels = np.repeat(np.arange(10), 5000)  # CIFAR-10's, in their own order for the papers' subset
    >>> indices, counts = bench.long_tail(labels, imbalance_factor=100)
    >>> counts.tolist()
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    >>> len(indices), np.bincount(labels[indices]).tolist() == counts.tolist()
    (12406, True)

    Args:
        labels: (N,) the classes of all images, from 0.
        imbalance_factor: images of the largest class over those of the smallest.
        profile: counts fall exponentially with the class, by a step at half of the classes, or as a Pareto
            distribution with power 6.
        n_max: images of the largest class; default: all.
        split_seed: draws the subset; 0 is the papers'.
        class_order: seed of a permutation that says which class gets which count; 0 is the labels' order.

    Returns:
        The positions of the chosen images, class after class, and the class counts (C,), both int64.

    Raises:
        BenchError: a class would be empty, or has too few images.
    """
    import numpy as np

    from bench.cell import DataSet
    from bench.data.split import longtail

    known = np.asarray(labels)
    if known.ndim != 1 or not len(known) or known.dtype.kind not in "iu" or known.min() < 0:
        raise BenchError(
            f"labels should be whole numbers from 0, one per image; got {known.dtype} {known.shape}"
        )
    available = np.bincount(known)
    tail = DataSet(
        name="labels",
        source="folder",
        profile=profile,
        n_max=n_max,
        split_seed=split_seed,
        class_order=class_order,
    )
    names = [str(c) for c in range(len(available))]
    counts = longtail.class_counts(tail, imbalance_factor, available, names)
    return longtail.select(known, counts, split_seed), counts


def score(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    many_above: int = 100,
    few_below: int = 20,
) -> FullScore:
    """Score logits: accuracy, many / medium / few-shot accuracy, calibration and more, in percent.

    >>> import bench
    >>> import numpy as np
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.5, 1.0, 0.0], [3.0, 1.0, 2.0]])
    >>> found = bench.score(logits, labels=[0, 1, 2], class_counts=[500, 50, 5])
    >>> found["many"], found["medium"], found["few"], round(found["accuracy"], 2)
    (100.0, 100.0, 0.0, 66.67)

    Args:
        logits: (N, C) of the test images, or any scores of which the largest is the prediction.
        labels: (N,) their classes.
        class_counts: (C,) training images per class, which decide the shot groups.
        many_above: many-shot classes have more training images.
        few_below: few-shot classes have fewer.

    Returns:
        The keys of `bench.metrics.FullScore`; a group without classes is None.
    """
    import numpy as np

    from bench import metrics
    from bench.cell import ShotRule

    shots = ShotRule(many_above=many_above, few_below=few_below)
    return metrics.full_score(np.asarray(logits), np.asarray(labels), np.asarray(class_counts), shots)


def build_method(
    name: str,
    backbone: BackboneLike,
    class_counts: npt.ArrayLike,
    *,
    parent: Method | None = None,
    seed: int = 0,
    **params: Any,
) -> Method:
    """Build a method to use in your own loop: a module with a `loss` of batches and scores of images.

    >>> import bench
    >>> import torch
    >>> from bench.method import Batch, Clock
    >>> method = bench.build_method("ldam_drw", "resnet8_cifar", [100, 30, 10], max_margin=0.3)
    >>> images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 0, 1, 2])
    >>> method.before_epoch(Clock(epoch=0, epochs=200, step=0, steps=200))
    >>> loss = method.loss(Batch(views=(images,), labels=labels, positions=torch.arange(4)))
    >>> loss.backward()
    >>> method.eval()(images).shape
    torch.Size([4, 3])

    `bench.method.Method` says what else a loop gives to a method: its views, draws, samplers and hooks.

    Args:
        class_counts: (C,) training images per class.
        parent: a trained method that it starts from, as cRT does from cross-entropy.
        seed: of the initial weights, which are those of a run with this seed.
        params: hyper-parameters, as `list methods NAME` shows them.

    Raises:
        BenchError: an unknown method, backbone or hyper-parameter, or no parent where one is needed.
    """
    import numpy as np
    from pydantic import ValidationError

    from bench import registry
    from bench.cell import BackboneChoice, Cell, DataSet, Protocol
    from bench.train.build import build

    entry = registry.find(name)
    if entry.build.needs_parent and parent is None:
        raise BenchError(f"{name!r} starts from a trained method; give it as parent=")
    try:
        choice = entry.choose(**params)
    except ValidationError as error:
        first = error.errors()[0]
        raise BenchError(f"{name!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    cell = Cell(
        method=choice,
        dataset=DataSet(name="own", source="folder"),
        imbalance_factor=1,
        backbone=BackboneChoice(**({"name": backbone} if isinstance(backbone, str) else backbone)),
        protocol=Protocol(),
        seed=seed,
    )
    method = build(cell, np.asarray(class_counts))
    if parent is not None:
        method.start_from(parent)
    return method


def load_results(results: str | Path = "results") -> pd.DataFrame:
    """Return all runs of a results folder: one row per run and recipe that asks for it, done or not.

    `recipe` and `label` say which; they are NA for a run that no recipe asks for. Rows of one recipe and
    label may still differ in data set, imbalance factor or backbone, where its grid does.

    >>> import bench
    >>> table = bench.load_results("results")
    >>> table.groupby(["recipe", "label"]).accuracy.agg(["mean", "std", "count"])["count"].to_dict()
    {('quick-set', 'ce'): 1, ('quick-set', 'posthoc_la'): 1}

    Raises:
        BenchError: there is no such folder, or a grid file in it cannot be read.
    """
    from bench.records import Results, results_folder

    return _with_recipes(Results(results_folder(Path(results))))


def _with_recipes(runs: Results) -> pd.DataFrame:
    import pandas as pd

    table = runs.table()
    asked = []
    for file in sorted(runs.root.glob("grids/*.json")):
        try:
            cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
            asked += [(file.stem, cell["label"], cell["run_id"]) for cell in cells]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BenchError(f"{file}: not a grid file: {error}; run the recipe again") from error
    grids = pd.DataFrame(asked, columns=["recipe", "label", "run_id"], dtype="string")
    joined = table.merge(grids, on="run_id", how="left")
    return joined[["recipe", "label", *table.columns]]


def load_leaderboard(results: str | Path = "results") -> pd.DataFrame:
    """Return the leaderboard: measured, published and external rows, with rank, league and verdict.

    >>> import bench
    >>> board = bench.load_leaderboard("results")
    >>> board[board.dataset == "digits"].sort_values("title")[["title", "kind", "n"]].values.tolist()
    [['Cross-entropy', 'measured', 1], ['Logit adjustment (post hoc)', 'measured', 1]]
    """
    from bench.leaderboard import gather
    from bench.records import Results
    from bench.report.exports import table

    return table(gather(Results(Path(results))))


def compare(ours: str, theirs: str, results: str | Path = "results") -> pd.DataFrame:
    """Compare two methods by the seeds that both were trained with; a run names all seeds of its series.

    >>> import bench
    >>> found = bench.compare("digits-if20-posthoc", "digits-if20-ce")
    >>> found[["vary", "seeds", "images"]].values.tolist()[1]
    ['images', 1, 500]

    Args:
        ours, theirs: names of runs, which may be shortened while they are clear.

    Returns:
        The difference of the accuracies and its 95 % intervals, see `bench.leaderboard.bootstrap.compared`.

    Raises:
        BenchError: there is no such run, the two have no seed in common, or other test images.
    """
    from bench.cli.common import find_run
    from bench.leaderboard.bootstrap import compared
    from bench.records import Results

    every = Results(Path(results))
    found = [find_run(Path(results), name) for name in (ours, theirs)]
    for run in found:
        if run.state.status != "done":
            raise BenchError(f"{run.run_id}: is {run.state.status}, and has no accuracy to compare")
    done = [run for run in every if run.state.status == "done"]
    return compared(*([run for run in done if run.series == one.series] for one in found))


def load_model(run_id: str | Path, results: str | Path = "results") -> Method:
    """Load the trained model of a run, ready to score images.

    Its name may be shortened while it is clear; or it is a folder that `push` wrote.

    >>> import bench
    >>> import torch
    >>> model = bench.load_model("digits-if20-ce-s0")
    >>> model(torch.zeros(1, 3, 8, 8)).shape  # normalised images, as the run's data set has them
    torch.Size([1, 10])

    Raises:
        BenchError: no run or several are called so, it is not done, or its weights are not here.
    """
    import numpy as np

    from bench.cli.common import find_run
    from bench.hub import opened, with_weights
    from bench.train.build import build
    from bench.train.checkpoint import read_weights

    if (Path(run_id) / "record.json").is_file():
        run = opened(Path(run_id))
        cell, record = run.read_cell(), run.read_record()
    else:
        found = find_run(Path(results), str(run_id))
        run, cell, record = with_weights(found), found.cell, found.record
    counts = record["data"].get("epoch_counts", record["data"]["class_counts"])
    method = build(cell, np.array(counts))
    read_weights(run.weights, method, record["files"][run.weights.name])
    return method.eval()
