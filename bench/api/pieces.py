"""Methods, long tails and metrics for your own training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from bench.method import Method
    from bench.metrics import FullScore

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
        files: Python files with your own methods, which are registered and listed, too.
    """
    import pandas as pd

    from bench import registry

    known = registry.described([Path(file) for file in files])
    table = pd.DataFrame([vars(facts) for facts in known.values()], index=pd.Index(known, name="method"))
    return table.astype(dict.fromkeys(table.columns, "string") | {"year": "Int64"})


def long_tail(
    labels: npt.ArrayLike,
    imbalance_factor: float,
    *,
    profile: Literal["exponential", "step", "pareto"] = "exponential",
    n_max: int | None = None,
    split_seed: int = 0,
    class_order: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a long tail from a balanced set: the subset that the papers use since LDAM-DRW.

    >>> import bench
    >>> import numpy as np
    >>> labels = np.repeat(np.arange(10), 5000)  # in the order of CIFAR-10's files for the papers' subset
    >>> indices, counts = bench.long_tail(labels, imbalance_factor=100)
    >>> counts.tolist()
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    >>> len(indices), np.bincount(labels[indices]).tolist() == counts.tolist()
    (12406, True)

    Args:
        labels: (N,) the classes of all images, from 0.
        imbalance_factor: images of the largest class over those of the smallest.
        profile: how counts fall with the class: exponentially, by a step at half of the classes, or as a
            Pareto distribution with power 6.
        n_max: images of the largest class; default: all.
        split_seed: draws the subset; 0 is the papers'.
        class_order: seed of the permutation that assigns counts to classes; 0 is the labels' order.

    Returns:
        The positions of the chosen images, by class, and the class counts (C,), both int64.

    Raises:
        BenchError: a class would be empty, or has too few images.
    """
    import numpy as np

    from bench.cell import DataSet
    from bench.data.split import longtail

    known = np.asarray(labels)
    if known.ndim != 1 or not len(known) or known.dtype.kind not in "iu" or known.min() < 0:
        lowest = f", the lowest {known.min()}" if known.size and known.dtype.kind in "iu" else ""
        raise BenchError(
            f"labels should be whole numbers from 0, one per image; got {known.dtype} {known.shape}{lowest}"
        )
    if not imbalance_factor >= 1:
        raise BenchError(
            f"imbalance_factor is {imbalance_factor:g}; it is the largest class over the smallest, at least 1"
        )
    available = np.bincount(known)
    if len(available) < 2:
        raise BenchError("labels have one class only; a long tail has at least two")
    with _in_one_line("long_tail"):
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
    """Compute metrics from logits: accuracy, many / medium / few-shot accuracy, calibration and more.

    >>> import bench
    >>> import numpy as np
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.5, 1.0, 0.0], [3.0, 1.0, 2.0]])
    >>> found = bench.score(logits, labels=[0, 1, 2], class_counts=[500, 50, 5])
    >>> found["many"], found["medium"], found["few"], round(found["accuracy"], 2)
    (100.0, 100.0, 0.0, 66.67)

    Args:
        logits: (N, C) of the test images, or other values of which the largest is the prediction.
        labels: (N,) their classes.
        class_counts: (C,) training images per class, which define the shot groups.
        many_above: many-shot classes have more training images than this.
        few_below: few-shot classes have fewer than this.

    Returns:
        The keys of `bench.metrics.FullScore`, in percent; a group without classes is None.

    Raises:
        BenchError: logits that are not finite, shapes that do not fit, or labels that are no classes.
    """
    import numpy as np

    from bench import metrics
    from bench.cell import ShotRule

    with _in_one_line("score"):
        shots = ShotRule(many_above=many_above, few_below=few_below)
    values: Any = logits
    if hasattr(values, "detach"):
        values = values.detach().float().cpu()  # NumPy has no bfloat16
    known = np.asarray(labels)
    if known.dtype.kind not in "iu":
        raise BenchError(f"labels should be whole numbers, one per image; got {known.dtype} {known.shape}")
    try:
        return metrics.full_score(np.asarray(values), known, np.asarray(class_counts), shots)
    except ValueError as error:
        raise BenchError(str(error)) from None


def build_method(
    name: str,
    backbone: BackboneLike,
    class_counts: npt.ArrayLike,
    *,
    parent: Method | None = None,
    seed: int = 0,
    **params: Any,
) -> Method:
    """Build a method for your own training loop: a module with a `loss` of batches, and logits of images.

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

    `bench.method.Method` documents what else a loop gives to a method: views, draws, samplers and hooks.

    Args:
        class_counts: (C,) training images per class.
        parent: the trained method that it starts from; cRT, for example, starts from cross-entropy.
        seed: seed of the initial weights, which are those of a run with this seed.
        params: hyper-parameters, as `list methods NAME` shows them.

    Raises:
        BenchError: method, backbone or hyper-parameter is unknown; the parent is missing, or not wanted.
    """
    import numpy as np

    from bench import registry
    from bench.cell import BackboneChoice, Cell, DataSet, Protocol
    from bench.train.build import build

    spec = registry.find(name)
    if spec.build.needs_parent and parent is None:
        raise BenchError(f"{name!r} starts from a trained method; give it as parent=")
    if parent is not None and not spec.build.needs_parent:
        raise BenchError(f"{name!r} does not start from another method; leave parent= out")
    if unknown := params.keys() - spec.hyperparameters.model_fields:
        key = min(unknown)
        near = did_you_mean(key, spec.hyperparameters.model_fields)
        raise BenchError(f"{name!r} has no hyper-parameter {key!r}{near}")
    counts = np.asarray(class_counts)
    if counts.ndim != 1 or not len(counts) or counts.dtype.kind not in "iu" or counts.min() < 0:
        raise BenchError(f"class_counts should be a whole number for each class; got {class_counts!r}")
    with _in_one_line(name):
        cell = Cell(
            method=spec.choose(**params),
            dataset=DataSet(name="own", source="folder"),
            imbalance_factor=1,
            backbone=BackboneChoice(**({"name": backbone} if isinstance(backbone, str) else backbone)),
            protocol=Protocol(),
            seed=seed,
        )
    method = build(cell, counts)
    if parent is not None:
        method.start_from(parent)
    return method


@contextmanager
def _in_one_line(about: str) -> Iterator[None]:
    """Raise pydantic's first mistake as one line that names the argument."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        raise BenchError(f"{about}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
