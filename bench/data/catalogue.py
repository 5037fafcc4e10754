"""The built-in data sets, as a recipe names them; a recipe may write down others of its own."""

from __future__ import annotations

from bench.cell import DataSet

#: quirk: the field normalises CIFAR-100 with the statistics of CIFAR-10, so `cifar100` keeps the defaults.
DATASETS: dict[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        DataSet(
            name="digits",
            source="digits",
            title="Digits-LT",
            image_size=8,
            mean=(0.3053, 0.3053, 0.3053),
            std=(0.3760, 0.3760, 0.3760),
            n_max=120,
            test_per_class=50,
        ),
        DataSet(name="cifar10", source="cifar10", title="CIFAR-10-LT", n_max=5000),
        DataSet(name="cifar100", source="cifar100", title="CIFAR-100-LT", n_max=500),
    )
}
