"""What our runs are in the words of the literature, so that the two can be set side by side."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

#: The classes of the literature that our augmentation policies belong to; others stand for themselves.
AUGMENTATION_CLASSES = {
    "crop_flip": "std",
    "crop_flip_rotate": "std",
    "resized_crop_flip": "std",
    "resized_crop_flip_jitter": "std",
    "crop_flip_cutout": "cutout",
    "autoaugment": "autoaug",
    "autoaugment_cutout": "autoaug_cutout",
    "randaugment": "randaug",
    "timm_randaugment": "randaug",
    "randcls": "randaug",
    "dscl_query": "simclr",
    "dscl_query_large": "simclr",
    "dscl_key_large": "simclr",
    "dscl_key": "simclr",  # KCL's and TSC's, which the literature counts so
    "simclr_blur": "simclr",
    "supcon": "simclr",
    "supcon_linear": "std",
}

#: Upper bounds of the epochs classes: doubling the epochs is worth one to two points on CIFAR-LT.
EPOCHS_CLASSES = ((30, "<=30"), (79, "31-79"), (149, "80-149"), (249, "150-249"), (499, "250-499"))

#: Kinds of pre-training by what a timm model's name says of its weights.
_WEIGHTS = {"clip": "clip", "in21k": "imagenet21k", "in1k": "imagenet1k"}


def protocols(runs: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that are done with their `key` and their protocol in the words of the literature.

    Runs that are scored on held-out training images choose constants, and are no results: they are left out.
    Of several stages `epochs` are those of the longest. `literature` is the name under which the published
    table has what was run, NA where it has not: a first stage alone is not what was published of two. A
    copy of a published data set goes under that set's name, with its kind as `data_copy`. A data set whose
    tail is natural takes the imbalance factor that the literature gives it.

    Args:
        runs: as of `bench.load_results`.
        published: as of `bench.published.load`.
    """
    done = runs[(runs["status"] == "done") & runs["held_out"].isna()].copy()
    known = runs.set_index("run_id")
    stages = [_stages(run_id, known) for run_id in done["run_id"]]
    epochs = [max((count for _, count in family if pd.notna(count)), default=pd.NA) for family in stages]
    done["epochs"] = pd.array(epochs, dtype="Int64")
    done["epochs_class"] = pd.array([epochs_class(count) for count in epochs], dtype="string")
    listed = _names(published)
    names = [_literature([method for method, _ in family], listed) for family in stages]
    done["literature"] = pd.array(names, dtype="string")
    done["augmentation"] = done["augmentation"].replace(AUGMENTATION_CLASSES)

    models = done["backbone"].fillna("")
    options, params = _parsed(done["backbone_options"]), _parsed(done["params"])
    done["width_class"] = pd.array([_width(chosen) for chosen in options], dtype="string")
    weights = [_pretraining(*model) for model in zip(models, options, strict=True)]
    done["pretraining"] = pd.array(weights, dtype="string")
    done["backbone"] = pd.array([architecture(name) or None for name in models], dtype="string")
    # records older than the word have it among the hyper-parameters, if at all
    asked = pd.array([chosen.get("experts", 1) for chosen in params], dtype="Int64")
    done["experts"] = done["experts"].fillna(pd.Series(asked, done.index))
    done["extra_data"] = done["extra_data"].fillna("none")

    done["data_copy"] = _copies(done)
    done["dataset"] = done["copy_of"].fillna(done["dataset"])
    done["imbalance_factor"] = factors(done, published)
    odd = done["data_copy"].str.extract(r"( \(pixels .*\))", expand=False)
    done["key"] = done["series"] + odd.fillna("")
    return done


def factors(table: pd.DataFrame, published: pd.DataFrame) -> pd.Series:
    """Return imbalance factors, 1 replaced by the literature's where it has but one for the data set."""
    known = published.groupby("dataset")["imbalance_factor"].agg(["nunique", "first"])
    natural = table["dataset"].map(known["first"].where(known["nunique"] == 1)).astype("Float64")
    return natural.where(table["imbalance_factor"] == 1).fillna(table["imbalance_factor"])


def epochs_class(epochs: Any) -> str | None:
    """Name the class of a number of epochs, None where it is not known."""
    if pd.isna(epochs):
        return None
    return next((name for bound, name in EPOCHS_CLASSES if epochs <= bound), ">=500")


def architecture(name: str) -> str:
    """Reduce a timm model name to its architecture: no weights' tag, no input size."""
    parts = name.split(".")[0].split("_")
    return "_".join(part for part in parts if part not in ("clip", "224", "384"))


def _stages(run_id: str, runs: pd.DataFrame) -> list[tuple[str, Any]]:
    """Return method and epochs of a run and its ancestors, eldest first, as far as they are there."""
    if run_id not in runs.index:
        return []
    parent: Any = runs["parent"][run_id]
    return [
        *(_stages(parent, runs) if pd.notna(parent) else []),
        (runs["method"][run_id], runs["epochs"][run_id]),
    ]


def _names(published: pd.DataFrame) -> dict[str, str]:
    """Return the name in the literature by the methods of all stages, joined by '>'."""
    methods = published[["method", "stages"]].drop_duplicates()
    return dict(zip(methods["stages"].fillna(methods["method"]), methods["method"], strict=True))


def _literature(stages: list[str], known: dict[str, str]) -> str | None:
    return known.get(">".join(stages)) or known.get(stages[-1])


def _parsed(column: pd.Series) -> list[dict[str, Any]]:
    return [json.loads(text) if pd.notna(text) else {} for text in column]


def _width(options: dict[str, Any]) -> str:
    if "channels" in options:
        return "other"
    width = options.get("width", 1)
    return "standard" if width == 1 else f"{width:g}x-wide"


def _pretraining(model: str, options: dict[str, Any]) -> str:
    if not options.get("pretrained"):
        return "none"
    return next((kind for part, kind in _WEIGHTS.items() if part in model), "other")


def _copies(done: pd.DataFrame) -> pd.Series:
    """Name the copy of the data that each run saw; other pixels under the same name are another copy."""
    copies = (
        done["copy_kind"].fillna("original").where(done["copy_of"].isna(), done["copy_kind"].fillna("copy"))
    )
    prints = [done[f"fingerprint_{part}"].fillna("") for part in ("train", "test", "extra_train")]
    pixels = prints[0] + prints[1] + prints[2]
    same = [done["dataset"], done["imbalance_factor"], copies, done["extra_train"].fillna("")]
    table = pd.DataFrame({"pixels": pixels, "runs": pixels.groupby([*same, pixels]).transform("size")})
    # The pixels most runs saw are the copy's; of a tie those that sort first, so row order is nothing to it.
    table = table.sort_values(["runs", "pixels"], ascending=[False, True])
    usual = table["pixels"].groupby([key.loc[table.index] for key in same]).transform("first")
    return copies.where(pixels == usual.loc[pixels.index], copies + " (pixels " + pixels.str[:8] + ")")
