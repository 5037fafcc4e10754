"""The manifest of a folder of generated images: the model, the prompt, and the number of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from bench.cell import Count, Frozen
from bench.errors import BenchError
from bench.files import write_text

NAME = "manifest.json"


class Settings(Frozen):
    """Everything that determines the images; a folder has images of one setting only.

    `model` is the name of the pipeline's folder and `model_sha256` the hash of all its files. `{class}` in
    `prompt` is replaced by the class. `resize` is how the model's images are resized to `image_size`.
    """

    model: str
    model_sha256: str
    prompt: str
    steps: Count
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    seed: Annotated[int, Field(ge=0)]
    precision: Literal["float32", "float16"]
    image_size: Count
    resize: str = "centre square, bilinear with antialiasing"


class Manifest(Frozen):
    """The settings, the number of images of each class, and of discarded images by fault."""

    schema_version: Literal[1] = 1
    settings: Settings
    images: dict[str, int]
    filtered: dict[str, int]


def read(folder: Path) -> Manifest | None:
    """Return the manifest of a folder, None if there is none.

    Raises:
        BenchError: it cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"]))
        raise BenchError(
            f"{path}: {where}: {detail['msg']}; not a manifest of `synthesize`; correct or remove it"
        ) from error


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder, which is created."""
    write_text(folder / NAME, manifest.model_dump_json(indent=1) + "\n")
