"""A Stable Diffusion pipeline in a local folder; nothing is ever downloaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.errors import BenchError
from bench.files import sha256
from bench.rundir import first_line

KIND = "StableDiffusionPipeline"


def components(folder: Path) -> list[Path]:
    """Return the folders of a pipeline's components, all of which exist.

    Raises:
        BenchError: this is not the folder of a complete StableDiffusionPipeline.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise BenchError(
            f"{index}: no such file; --pipeline needs the folder of a {KIND}, as save_pretrained writes it"
        )
    try:
        content = json.loads(index.read_bytes())
        kind = content.get("_class_name")
    except (ValueError, AttributeError) as error:
        raise BenchError(f"{index}: damaged ({error}); copy the pipeline again") from error
    if kind != KIND:
        raise BenchError(f"{index}: this is a {kind}; --pipeline needs a {KIND}")
    named = [name for name, kind in content.items() if isinstance(kind, list) and kind[0] is not None]
    for name in named:
        if not (folder / name).is_dir():
            raise BenchError(f"{folder / name}: no such folder, which {index.name} names; copy it too")
    return [folder / name for name in sorted(named)]


def identify(folder: Path) -> tuple[str, str]:
    """Return the folder's name, and a hash of the names and contents of all files of the pipeline."""
    files = [path for part in components(folder) for path in sorted(part.rglob("*")) if path.is_file()]
    digest = hashlib.sha256()
    for path in [folder / "model_index.json", *files]:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\0".encode())
    return folder.resolve().name, digest.hexdigest()


class Pipeline:
    """A loaded pipeline; half precision on a GPU."""

    def __init__(self, folder: Path, device: str) -> None:
        components(folder)
        import bench.vision  # noqa: F401  before diffusers, which imports torchvision

        try:
            import diffusers
            import transformers
        except ImportError as error:
            raise BenchError(
                f"synthesis needs diffusers and transformers ({error}); install this project's extra "
                "`synthesis`: pip install -e '.[synthesis]'"
            ) from error
        import torch

        for logging in (diffusers.utils.logging, transformers.utils.logging):
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        try:
            self.model: Any = diffusers.StableDiffusionPipeline.from_pretrained(
                folder,
                local_files_only=True,
                low_cpu_mem_usage=False,
                dtype=getattr(torch, precision(device)),
            )
        except Exception as error:  # the exception depends on the broken part
            raise BenchError(
                f"{folder}: cannot be loaded as a {KIND} ({first_line(error)}); copy it again"
            ) from error
        try:
            self.model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise BenchError(f"--device {device}: {first_line(error)}") from error
        self.model.set_progress_bar_config(disable=True)

    def paint(self, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float) -> np.ndarray:
        """Return one image per prompt, (B, H, W, 3) float32 from 0 to 1, each from the noise of its seed."""
        import torch

        try:
            made = self.model(
                list(prompts),
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],  # on the CPU, always
                output_type="np",
            )
        except torch.OutOfMemoryError as error:
            raise BenchError(f"--batch {len(prompts)} does not fit into the memory; lower it") from error
        return made.images


def precision(device: str) -> Literal["float32", "float16"]:
    """Return the precision in which a device computes."""
    return "float16" if device.startswith("cuda") else "float32"
