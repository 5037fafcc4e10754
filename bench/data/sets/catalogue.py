"""The built-in data sets; a recipe may define others."""

from __future__ import annotations

from typing import Any

from bench.cell import DataSet, ListFiles

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _listed(name: str, title: str, lists: ListFiles, **fields: Any) -> DataSet:
    """Define a data set of list files with a natural long tail, whose images stay on disk."""
    return DataSet(
        name=name,
        title=title,
        source="list",
        folder=name,
        lists=lists,
        image_size=224,
        profile="natural",
        **(_IMAGENET | fields),
    )


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
        DataSet(name="cifar10", source="cifar10", title="CIFAR-10-LT", image_size=32, n_max=5000),
        DataSet(name="cifar100", source="cifar100", title="CIFAR-100-LT", image_size=32, n_max=500),
        DataSet(
            name="cifar100_rebuilt",
            source="cifar100",
            title="CIFAR-100-LT (rebuilt)",
            folder="cifar-100-python-rebuilt",
            image_size=32,
            n_max=500,
            copy_of="cifar100",
            copy_kind="rebuilt files: the official images and labels, of which 113 of 60,000 stand at other "
            "places within their class; at most 3 of the 10,847 at imbalance factor 100 differ",
            comparable=True,
            md5=(
                "039bfb86e449413a1fb4574171831d37  train",
                "aa64704d294e900e003922d8318b0c72  test",
                "7973b15100ade9c7d40fb424638fde48  meta",
            ),
        ),
        _listed(
            "imagenet_lt",
            "ImageNet-LT",
            ListFiles(train="ImageNet_LT_train.txt", val="ImageNet_LT_val.txt", test="ImageNet_LT_test.txt"),
        ),
        _listed(
            "inaturalist2018",
            "iNaturalist 2018",
            ListFiles(train="iNaturalist18_train.txt", test="iNaturalist18_val.txt"),
            mean=(0.466, 0.471, 0.380),
            std=(0.195, 0.194, 0.192),
        ),
        _listed(
            "places_lt",
            "Places-LT",
            ListFiles(train="Places_LT_train.txt", val="Places_LT_val.txt", test="Places_LT_test.txt"),
        ),
        _listed(
            "mini_imagenet_lt",
            "mini-ImageNet-LT",
            ListFiles(train="train.csv", val="val.csv", test="test.csv"),
        ),
    )
}
