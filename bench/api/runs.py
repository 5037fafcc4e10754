"""Recipes, runs and results, from Python."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd

    from bench.method import Method
    from bench.recipe import Recipe
    from bench.records import Results


def load_recipe(path: str | Path, sets: str | Sequence[str] = ()) -> Recipe:
    """Read a recipe, by its file or its name, and change values of it as `--set` does.

    >>> import bench
    >>> recipe = bench.load_recipe("quick", ["protocol.epochs=1", "protocol.schedule.warmup_epochs=0"])
    >>> recipe.name, len(recipe.points), recipe.points[0].cell.protocol.epochs
    ('quick-set', 33, 1)
    >>> len(recipe.only(["label=ce,ldam_drw", "seed=0"]).points)
    2

    Raises:
        BenchError: the recipe is wrong; one line for each mistake.
    """
    from bench.recipe import load

    sets = _several(sets)
    recipe = load(Path(path), sets)
    if sets:  # these cells must not replace the recipe's own report
        recipe = replace(recipe, name=f"{recipe.name}-set", title=f"{recipe.title} ({', '.join(sets)})")
    return recipe


def run(
    recipe: str | Path | Recipe,
    *,
    only: str | Sequence[str] = (),
    results: str | Path = "results",
    data: str | Path | None = None,
    jobs: int | None = None,
    gpus: str | Sequence[str | int] | None = None,
    per_gpu: int | None = None,
    force: bool = False,
    retry_failed: bool = False,
    retrain_stale: bool = False,
    methods: Sequence[str | Path] = (),
    log: str | Sequence[str] = (),
    progress: bool = True,
) -> pd.DataFrame:
    """Train the cells of a recipe that are not trained yet, and return their rows, in order, done or not.

    The columns are those of `load_results`. Of a recipe with a search the first call trains the trials, the
    next one the winners. Runs are separate processes, so in a script put the call below
    ``if __name__ == "__main__":``.
    Stop it with Ctrl-C, or the notebook's stop button; the same call continues.

    >>> import bench
    >>> recipe = bench.load_recipe("quick", ["protocol.epochs=1", "protocol.schedule.warmup_epochs=0"])
    >>> table = bench.run(recipe, only=["label=ce,posthoc_la", "seed=0"], gpus=(), progress=False)
    >>> table[["label", "method", "seed", "status"]].values.tolist()
    [['ce', 'ce', 0, 'done'], ['posthoc_la', 'posthoc_logit_adjustment', 0, 'done']]

    Args:
        only: cells to train, as "label=ce,crt" and "seed=0"; all filters must hold.
        data: the folder of the images; default: the environment variable LONGTAIL_DATA, else ``data``.
        jobs: simultaneous runs; default: one per core, or what the GPUs have room for.
        gpus: numbers of the GPUs, [0, 1] or "0,1"; default: all; an empty list: the CPU.
        per_gpu: runs that share a GPU; default: as many as are faster together.
        force: train all of them again; a new run replaces the old one when it is done.
        retry_failed: train failed and unreadable runs again, likewise.
        retrain_stale: train again, likewise, what was trained with other data or code than now.
        methods: Python files with your own methods.
        log: loggers, as "tensorboard" and "wandb:project=lt"; default: the recipe's.
        progress: print a line for each run that ends, on a terminal progress bars.

    Raises:
        BenchError: the recipe is wrong, its data are missing or have faults, or earlier runs had other images
            of this name.
    """
    import pandas as pd
    from rich.console import Console

    from bench.gridfile import write_grid
    from bench.launch.local import run_grid
    from bench.launch.progress import watch
    from bench.launch.todo import as_now, gpus_of, todo
    from bench.loggers import chosen
    from bench.loggers.relay import noted
    from bench.recipe import Recipe, grid_file
    from bench.records import Results
    from bench.search.resolve import resolve

    names = gpus_of(gpus)
    files = [Path(file) for file in methods]
    root, images = Path(results), Path(data or os.environ.get("LONGTAIL_DATA") or "data")
    runs = Results(root, as_now(images, files))
    whole = resolve(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), runs)
    loggers = chosen(_several(log), whole.log)
    cells = [point.cell for point in whole.only(_several(only)).points]
    work = todo(cells, runs, images, retrain_stale=retrain_stale, force=force)
    write_grid(root, whole.name, grid_file(whole))
    console = Console(quiet=not progress)
    for remark in work.remarks:
        warnings.warn(remark, stacklevel=2)
    with (
        watch(whole.labels, console, root) as shown,
        noted(loggers, root, whole.labels, shown, warnings.warn) as listen,
    ):
        run_grid(
            work.cells,
            root,
            images,
            jobs=jobs,
            gpus=names,
            per_gpu=per_gpu,
            retry_failed=retry_failed,
            rerun=work.over,
            methods=files,
            listen=listen,
        )
    after = Results(root, as_now(images))
    table = after.grid_table(after.grids[whole.name])  # with the runs that were never begun
    table.insert(0, "recipe", pd.Series([whole.name] * len(table), dtype="string"))
    table["per_class"] = pd.Series([after[run_id].per_class for run_id in table["run_id"]], dtype=object)
    return table.set_index("run_id", drop=False).loc[[cell.run_id for cell in cells]].reset_index(drop=True)


def _several(texts: str | Sequence[str]) -> Sequence[str]:
    return [texts] if isinstance(texts, str) else texts


def load_results(results: str | Path = "results") -> pd.DataFrame:
    """Return the runs of a results folder that were begun: one row per run and recipe that asks for it.

    Group by `recipe` *and* `label`: two recipes may use one label for different trainings, and a run that
    two recipes ask for has two rows. Both are NA for a run that no recipe asks for. If the grid of a recipe
    has several data sets, imbalance factors or backbones, group by these, too.

    Metrics are percent, `per_class` the accuracy of each class in the order of the classes, None of a class
    without test images.

    >>> import bench
    >>> table = bench.load_results("results")
    >>> table.groupby(["recipe", "label"]).accuracy.agg(["mean", "std", "count"])["count"].to_dict()
    {('quick-set', 'ce'): 1, ('quick-set', 'posthoc_la'): 1}
    >>> classes = table.explode("per_class")  # a row for each class
    >>> classes.groupby(["recipe", "label"]).per_class.count().to_dict()
    {('quick-set', 'ce'): 10, ('quick-set', 'posthoc_la'): 10}

    Raises:
        BenchError: there is no such folder, or a grid file in it cannot be read.
    """
    from bench.records import Results, results_folder

    return _with_recipes(Results(results_folder(Path(results))))


def _with_recipes(runs: Results) -> pd.DataFrame:
    import pandas as pd

    table = runs.table()
    table["per_class"] = pd.Series([run.per_class for run in runs], dtype=object)
    asked = []
    for file in sorted(runs.root.glob("grids/*.json")):  # not `runs.grids`, which validates every cell
        try:
            cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
            asked += [(file.stem, cell["label"], run["run_id"]) for cell in cells for run in cell["runs"]]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BenchError(f"{file}: not a grid file: {error}; run the recipe again") from error
    grids = pd.DataFrame(asked, columns=["recipe", "label", "run_id"], dtype="string")
    return table.merge(grids, on="run_id", how="left")[["recipe", "label", *table.columns]]


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
    """Compare two methods over their common seeds; a run stands for all seeds of its series.

    >>> import bench
    >>> found = bench.compare("digits-if20-posthoc", "digits-if20-ce")
    >>> found[["vary", "seeds", "images"]].values.tolist()[1]
    ['images', 1, 500]

    Args:
        ours: name of a run; its beginning or its last ten characters are enough.
        theirs: name of the run that it is compared with.

    Returns:
        The difference of the accuracies and its 95 % intervals, see `bench.leaderboard.bootstrap.compared`.

    Raises:
        BenchError: there is no such run, or the two have no seed in common or different test images.
    """
    from bench.leaderboard.bootstrap import compared
    from bench.records import Results

    if not (isinstance(ours, str) and isinstance(theirs, str)):
        raise BenchError("compare needs the names of two runs, one of each series; their seeds are found")
    every = Results(Path(results))
    found = [every.find(name) for name in (ours, theirs)]
    for run in found:
        if run.state.status != "done":
            raise BenchError(f"{run.run_id}: is {run.state.status} and has no accuracy to compare")
    done = [run for run in every if run.state.status == "done"]
    return compared(*([run for run in done if run.series == one.series] for one in found))


def load_model(run_id: str | Path, results: str | Path = "results") -> Method:
    """Load the trained model of a run, in evaluation mode.

    Args:
        run_id: the name of the run, its beginning or its last ten characters; or a folder that `push` wrote.

    >>> import bench
    >>> import torch
    >>> model = bench.load_model("digits-if20-ce-s0")
    >>> model(torch.zeros(1, 3, 8, 8)).shape  # normalised images, as the run's data set has them
    torch.Size([1, 10])

    Raises:
        BenchError: no run or several have this name, it is not done, or its weights are not here.
    """
    from bench.hub import opened, with_weights
    from bench.records import Results
    from bench.train.checkpoint import restored

    if (Path(run_id) / "record.json").is_file():
        run = opened(Path(run_id))
        cell, record = run.read_cell(), run.read_record()
    else:
        found = Results(Path(results)).find(str(run_id))
        run, cell, record = with_weights(found), found.cell, found.record
    return restored(run, cell, record).eval()
