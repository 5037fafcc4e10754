"""The model card of a run: its metrics, its protocol, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.cell import Cell
from bench.report.exports import citation
from bench.report.text import counted, number
from bench.result import Result

#: Metrics of the card by their keys in a record: their titles, and their types on the Hub.
SHOWN = {
    "accuracy": ("accuracy (last epoch)", "accuracy"),
    "many": ("many-shot accuracy", "accuracy"),
    "medium": ("medium-shot accuracy", "accuracy"),
    "few": ("few-shot accuracy", "accuracy"),
    "balanced": ("balanced accuracy", "accuracy"),
    "ece": ("expected calibration error", "ece"),
}

TEMPLATE = """\
---
{metadata}
---

# {title} on {data}

{backbone}, trained by {method} in one run (seed {seed}) of longtail-bench{revision}.{reconstruction}

| metric | percent |
|---|---:|
{rows}

The numbers are those of the last epoch, not of the best on the test set; one seed does not show their noise.
Many-shot classes have more than {many} training images, few-shot ones fewer than {few}.

## Trained on

{data}: {images} images of {classes} classes, {largest} of the largest and {smallest} of the smallest
class (fingerprint `{fingerprint}`).{copy} {epochs}, batch size {batch}, {optimizer} at {rate:g},
augmentation `{augmentation}`; the whole protocol is in `cell.yaml`.

## Use

{use}
## Licence and citation

The weights are under the licence named above; the images they were trained on have terms of their own.
Please cite the method, and longtail-bench.

```bibtex
{bibtex}
```
"""

RECONSTRUCTION = " The method is a reconstruction: its authors published no code of it."

WITH_TIMM = """\
```python
import timm{register}

model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()
```

"""

WITH_BENCH = """\
```python
import bench

model = bench.load_model("folder")  # of this repository, once downloaded
```

or as a run beside one's own: `run_bench.py pull {repo}`.

"""


def write(run: Result, repo: str, licence: str, timm_form: bool) -> str:
    """Return the card's text; `timm_form` means that timm can read the folder too."""
    cell, record = run.cell, run.record
    method, data = record["method"], record["data"]
    git = record["environment"].get("git")
    counts, title = data["class_counts"], method["title"]
    protocol, shots = cell.protocol, cell.dataset.shots
    metrics = {name: record["metrics"][name] for name in SHOWN if record["metrics"].get(name) is not None}
    ours = cell.backbone.name.endswith("_cifar")  # which timm alone does not know
    use = WITH_BENCH.format(repo=repo)
    if timm_form:
        register = "\n\nimport bench.backbones  # it registers the CIFAR ResNets" if ours else ""
        use = WITH_TIMM.format(repo=repo, register=register) + use
    copy = f" It is {data['copy_kind']} of {data['copy_of']}." if data.get("copy_kind") else ""
    return TEMPLATE.format(
        metadata=_metadata(run, repo, licence, timm_form, metrics),
        title=title,
        data=data_name(cell, record),
        backbone=cell.backbone.name,
        method=f"[{title}]({method['paper']})" if method.get("paper") else title,
        revision=f", revision {git}" if git else "",
        reconstruction=RECONSTRUCTION if method.get("reconstruction") else "",
        seed=cell.seed,
        rows="\n".join(f"| {SHOWN[name][0]} | {number(value)} |" for name, value in metrics.items()),
        many=shots.many_above,
        few=shots.few_below,
        images=sum(counts),
        classes=len(counts),
        largest=max(counts),
        smallest=min(counts),
        fingerprint=data["fingerprint"]["train"],
        copy=copy,
        epochs=counted(protocol.epochs, "epoch"),
        batch=protocol.batch_size,
        optimizer=protocol.optimizer.name,
        rate=protocol.optimizer.lr,
        augmentation=run.augmentation,
        use=use,
        bibtex=citation(cell.method.name, method).strip(),
    )


def data_name(cell: Cell, record: Mapping[str, Any]) -> str:
    """Return the title of the data, with the imbalance factor if there is one."""
    name = record["data"].get("title") or cell.dataset.name
    if cell.dataset.profile == "natural":
        return str(name)
    return f"{name}, imbalance factor {cell.imbalance_factor:g}"


def _metadata(run: Result, repo: str, licence: str, timm_form: bool, metrics: Mapping[str, float]) -> str:
    """Return the card's YAML, with the metrics as the Hub's model-index."""
    from huggingface_hub import EvalResult, ModelCardData

    cell, record = run.cell, run.record
    data: dict[str, Any] = {
        "dataset_type": cell.dataset.name,
        "dataset_name": data_name(cell, record),
        "dataset_split": "test",
        "dataset_args": {
            "imbalance_factor": cell.imbalance_factor,
            "fingerprint": record["data"]["fingerprint"]["train"],
        },
    }
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            metric_type=SHOWN[name][1],
            metric_name=SHOWN[name][0],
            metric_value=round(value, 2),
            **data,
        )
        for name, value in metrics.items()
    ]
    card = ModelCardData(
        license=licence,
        library_name="timm" if timm_form else "longtail-bench",
        pipeline_tag="image-classification",
        tags=["long-tailed-recognition", "longtail-bench", cell.method.name],
        model_name=repo.rpartition("/")[2],
        eval_results=results,
    )
    return str(card.to_yaml())
