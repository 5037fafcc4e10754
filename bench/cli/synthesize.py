"""The `synthesize` command: generated images for rare classes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bench.cli.common import DATA, INTERRUPTED, SOME_FAILED, Data, print_line, progress_bars
from bench.errors import BenchError, did_you_mean


def synthesize(
    name: Annotated[
        str, typer.Argument(metavar="DATASET", help="A name of [bold]list datasets[/].", show_default=False)
    ],
    pipeline: Annotated[
        Path, typer.Option("--pipeline", metavar="DIR", help="The folder of a StableDiffusionPipeline.")
    ],
    fill_to: Annotated[
        int, typer.Option("--fill-to", min=1, help="Images per class to reach, real ones included.")
    ],
    imbalance_factor: Annotated[
        float, typer.Option("--imbalance-factor", min=1, help="Imbalance factor of the long tail to fill.")
    ] = 1,
    max_per_class: Annotated[
        int | None,
        typer.Option("--max-per-class", min=1, help="At most this many generated images per class."),
    ] = None,
    prompt: Annotated[
        str, typer.Option("--prompt", help="The prompt; {class} is replaced by the name of the class.")
    ] = "a photo of a {class}",
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Output, below the data folder [dim](default: synthetic/DATASET)[/]",
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Denoising steps.")] = 50,
    guidance: Annotated[float, typer.Option("--guidance", min=0, help="Weight of the prompt.")] = 7.5,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images per batch.")] = 8,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the images.")] = 0,
    device: Annotated[
        str | None,
        typer.Option("--device", help="cpu, cuda or cuda:1 [dim](default: a GPU if there is one)[/]"),
    ] = None,
    data: Data = DATA,
) -> None:
    """Fill rare classes up to a number of images, with a local Stable Diffusion pipeline.

    Good images are kept, so you can stop it, and the same command continues. A recipe trains on the images
    through the `extra_train` of its data set.

    [bold]Examples[/]

    \b
    python run_bench.py synthesize cifar100 --pipeline models/sd15 --imbalance-factor 100 --fill-to 500
    python run_bench.py synthesize cifar10 --pipeline models/sd15 --imbalance-factor 50 --fill-to 1000 \\
        --max-per-class 500 --prompt "a blurry photo of a {class}" --out synthetic/blurry
    """
    import torch

    from bench.data.read import sources
    from bench.data.read.folder import below
    from bench.data.sets.catalogue import DATASETS
    from bench.data.split.extra import room
    from bench.data.split.manifest import Settings
    from bench.synthesis.fill import fill
    from bench.synthesis.pipeline import Pipeline, identify, precision

    if name not in DATASETS:
        raise BenchError(f"unknown data set {name!r}{did_you_mean(name, DATASETS)}")
    if "{class}" not in prompt:
        raise BenchError(f"--prompt {prompt!r}: write {{class}} where the name of the class belongs")
    dataset = DATASETS[name]
    folder = below(data, out or f"synthetic/{name}", name)
    counts, _, class_names = sources.tail(dataset, imbalance_factor, data)
    wanted = dict(zip(class_names, room(counts, fill_to, max_per_class).tolist(), strict=True))
    if not any(wanted.values()):
        raise BenchError(
            f"--fill-to {fill_to}: at imbalance factor {imbalance_factor:g} no class of {name} has fewer; "
            "raise one of them"
        )

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, model_sha256 = identify(pipeline)
    settings = Settings(
        model=model,
        model_sha256=model_sha256,
        prompt=prompt,
        steps=steps,
        guidance=guidance,
        seed=seed,
        precision=precision(chosen),
        image_size=dataset.image_size,
    )
    loaded = cache(lambda: Pipeline(pipeline, chosen))  # only where an image is missing
    try:
        with progress_bars() as bars:
            bar = bars.add_task("images", total=sum(wanted.values()))
            given_up = fill(
                folder,
                wanted,
                settings,
                lambda prompts, seeds: loaded().paint(prompts, seeds, steps, guidance),
                batch,
                lambda class_name: bars.update(bar, advance=1, description=escape(class_name)),
            )
    except KeyboardInterrupt:
        print_line("stopped; the same command continues from here", "yellow")
        raise typer.Exit(INTERRUPTED) from None
    print_line(f"images  {folder}")
    if given_up:
        failures = ", ".join(f"{number} of {name}" for name, number in given_up.items())
        print_line(
            f"given up, because all attempts were black, constant or broken: {failures}", "yellow", wrap=True
        )
        raise typer.Exit(SOME_FAILED)
