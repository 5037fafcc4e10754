"""Class folders are filled with good images, each the same whenever and beside whatever it is made."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.cli import main
from bench.data.split import manifest
from bench.data.split.manifest import Settings
from bench.errors import BenchError
from bench.randomness import generator, seed_of
from bench.synthesis.fill import ATTEMPTS, fill, prompt_of
from bench.synthesis.pipeline import Pipeline, identify

torch.set_num_threads(1)

SETTINGS = Settings(
    model="none",
    model_sha256="0",
    prompt="a {class}",
    steps=1,
    guidance=0.0,
    seed=0,
    precision="float32",
    image_size=8,
)
WANTED = {"cat": 0, "dog": 3, "eel": 5}


class Painter:
    """Paints noise from its seed; what it is asked to spoil is spoilt."""

    def __init__(self, spoil: dict[int, np.ndarray] | None = None) -> None:
        self.spoil = spoil or {}
        self.seeds: list[int] = []

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        assert len(prompts) == len(seeds) == 4
        self.seeds += seeds
        return np.stack([self.spoil.get(seed, generator(seed).random((16, 16, 3))) for seed in seeds])


def seed(name: str, index: int, attempt: int = 0) -> int:
    return seed_of("synthesis", 0, name, index, attempt)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def full(tmp_path: Path) -> Path:
    folder = tmp_path / "full"
    assert fill(folder, WANTED, SETTINGS, Painter(), 4) == {}
    return folder


def test_every_class_gets_its_number_of_images(full: Path) -> None:
    names = [f"dog/{i:05}.png" for i in range(3)] + [f"eel/{i:05}.png" for i in range(5)]
    assert list(files(full)) == [*names, "manifest.json"]
    for name in names:
        with Image.open(full / name) as image:
            assert (image.size, image.mode) == ((8, 8), "RGB")
            assert image.text["prompt"] == f"a {name[:3]}"
    assert manifest.read(full) == manifest.Manifest(
        settings=SETTINGS, images={"dog": 3, "eel": 5}, filtered={}
    )


def test_an_image_depends_on_its_class_and_index_alone(full: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    fill(other, {"eel": 2}, SETTINGS, Painter(), 4)
    assert (other / "eel/00001.png").read_bytes() == (full / "eel/00001.png").read_bytes()
    again = SETTINGS.model_copy(update={"seed": 1})
    fill(tmp_path / "seed", {"eel": 2}, again, Painter(), 4)
    assert (tmp_path / "seed/eel/00001.png").read_bytes() != (full / "eel/00001.png").read_bytes()
    assert len(set(files(full).values())) == 9


def test_what_is_missing_or_damaged_is_made_again_and_good_images_stay(full: Path) -> None:
    before = files(full)
    damaged = {"dog/00001.png", "eel/00000.png", "eel/00002.png", "eel/00003.png", "eel/00004.png"}
    (full / "dog/00001.png").unlink()
    (full / "eel/00000.png").write_bytes(before["eel/00000.png"][:-60])
    (full / "eel/00002.png").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(full / "eel/00003.png")
    Image.new("RGB", (9, 8), "red").save(full / "eel/00004.png")
    times = {name: (full / name).stat().st_mtime_ns for name in before if name not in damaged}
    painter = Painter()
    reported: list[str] = []
    fill(full, WANTED, SETTINGS, painter, 4, reported.append)
    assert files(full) == before
    assert set(painter.seeds) == {seed(name[:3], int(name[4:9])) for name in damaged}
    assert sorted(reported) == ["dog"] * 3 + ["eel"] * 5
    assert {name: (full / name).stat().st_mtime_ns for name in times if name != "manifest.json"} == {
        name: time for name, time in times.items() if name != "manifest.json"
    }


def test_a_stopped_filling_goes_on_where_it_was(full: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    painter = Painter()

    def stop(prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        if painter.seeds:
            raise KeyboardInterrupt
        return painter(prompts, seeds)

    with pytest.raises(KeyboardInterrupt):
        fill(folder, WANTED, SETTINGS, stop, 4)
    made = manifest.read(folder)
    assert made is not None
    assert made.images == {"dog": 3, "eel": 1}
    assert len(files(folder)) == 5
    fill(folder, WANTED, SETTINGS, Painter(), 4)
    assert files(folder) == files(full)


def test_what_shows_nothing_is_filtered_tried_again_and_counted(full: Path, tmp_path: Path) -> None:
    blank = np.zeros((16, 16, 3))
    spoil = {
        seed("dog", 0): blank,
        seed("dog", 0, 1): blank + np.nan,
        seed("dog", 2): blank + 0.01,
        seed("eel", 4): np.full((16, 16, 3), (0.9, 0.1, 0.1)),
    }
    folder = tmp_path / "filtered"
    assert fill(folder, WANTED, SETTINGS, Painter(spoil), 4) == {}
    before, straight = files(folder), files(full)
    same = {name for name in before if before[name] == straight[name]}
    assert before.keys() - same == {"dog/00000.png", "dog/00002.png", "eel/00004.png", "manifest.json"}
    made = manifest.read(folder)
    assert made is not None
    assert made.filtered == {"black": 2, "broken": 1, "constant": 1}
    (folder / "dog/00002.png").unlink()
    fill(folder, WANTED, SETTINGS, Painter(spoil), 4)
    assert files(folder) == before


def test_an_image_that_never_succeeds_is_given_up_and_the_others_are_made(tmp_path: Path) -> None:
    spoil = {seed("dog", 1, attempt): np.zeros((16, 16, 3)) for attempt in range(ATTEMPTS)}
    reported: list[str] = []
    assert fill(tmp_path, WANTED, SETTINGS, Painter(spoil), 4, reported.append) == {"dog": 1}
    assert len(reported) == 8
    made = manifest.read(tmp_path)
    assert made is not None
    assert made.images == {"dog": 2, "eel": 5}
    assert made.filtered == {"black": ATTEMPTS}


def test_images_of_another_making_are_not_mixed_in(full: Path, tmp_path: Path) -> None:
    other = SETTINGS.model_copy(update={"prompt": "one {class}"})
    with pytest.raises(BenchError, match=r"manifest.json: made with prompt 'a \{class\}', not 'one"):
        fill(full, WANTED, other, Painter(), 4)
    (full / "manifest.json").write_text("{}")
    with pytest.raises(BenchError, match=r"manifest.json: settings: .* not a manifest"):
        fill(full, WANTED, SETTINGS, Painter(), 4)
    (full / "manifest.json").unlink()
    with pytest.raises(BenchError, match=r"has images, but no manifest.json .* another --out"):
        fill(full, WANTED, SETTINGS, Painter(), 4)
    deep = tmp_path / "deep"
    fill(deep, {"Plantae/7477": 1}, SETTINGS, Painter(), 4)
    with pytest.raises(BenchError, match=r"manifest.json: made with prompt 'a \{class\}', not 'one"):
        fill(deep, {"Plantae/7477": 1}, other, Painter(), 4)


def test_a_prompt_names_the_class_in_words() -> None:
    assert prompt_of("a photo of a {class}, {class}", "sea_snake") == "a photo of a sea snake, sea snake"
    assert prompt_of("a {class}", "n01440764") == "a tench"
    assert prompt_of("a {class}", "n99999999") == "a n99999999"


# -- a real pipeline, of random weights ------------------------------------------------------------
@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("diffusers", reason="needs the extra `synthesis`")
    pytest.importorskip("transformers", reason="needs the extra `synthesis`")
    from tiny_pipeline import save_tiny_pipeline

    return save_tiny_pipeline(tmp_path_factory.mktemp("pipeline"))


def synthesize(tiny: Path, data: Path, *options: object) -> int:
    arguments = ["synthesize", "digits", "--pipeline", tiny, "--data", data, "--imbalance-factor", 20]
    arguments += ["--fill-to", 10, "--steps", 2, "--batch", 3, "--device", "cpu", *options]
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_the_command_fills_the_tail_and_goes_on(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synthesize(tiny, tmp_path) == 0
    folder = tmp_path / "synthetic/digits"
    straight = files(folder)
    made = json.loads(straight["manifest.json"])
    assert made["images"] == {"8": 2, "9": 4}
    assert made["settings"] == {
        "model": "tiny",
        "model_sha256": identify(tiny)[1],
        "prompt": "a photo of a {class}",
        "steps": 2,
        "guidance": 7.5,
        "seed": 0,
        "precision": "float32",
        "image_size": 8,
        "resize": "centre square, bilinear with antialiasing",
    }
    assert str(tmp_path) not in straight["manifest.json"].decode()

    (folder / "9/00001.png").unlink()
    (folder / "8/00000.png").write_bytes(straight["8/00000.png"][:100])
    assert synthesize(tiny, tmp_path) == 0
    assert files(folder) == straight  # bit by bit, though the batches were others
    assert synthesize(tiny, tmp_path, "--max-per-class", 1, "--out", "one") == 0
    assert (tmp_path / "one/9/00000.png").read_bytes() == straight["9/00000.png"]
    assert list(files(tmp_path / "one")) == ["8/00000.png", "9/00000.png", "manifest.json"]

    assert synthesize(tiny, tmp_path, "--steps", 3) == 2
    assert "made with steps 2, not 3; give another --out" in capsys.readouterr().err


def test_where_no_class_is_rare_that_is_reported(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synthesize(tiny, tmp_path, "--imbalance-factor", 1) == 2
    assert "--fill-to 10: at imbalance factor 1 no class of digits has fewer" in capsys.readouterr().err
    assert not (tmp_path / "synthetic").exists()


def test_what_the_filter_never_lets_through_is_reported(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "paint", lambda self, prompts, *_: np.zeros((len(prompts), 16, 16, 3)))
    assert synthesize(tiny, tmp_path) == 1
    assert "given up" in (out := capsys.readouterr().out)
    assert "2 of 8, 4 of 9" in out


def _no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def _other_kind(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')


def _half_an_index(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name"')


def _no_part(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def _no_weights(folder: Path) -> None:
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_index, "model_index.json: no such file; --pipeline needs the folder of a StableDiffusionPipe"),
        (_other_kind, "model_index.json: this is a DDPMPipeline; --pipeline needs a StableDiffusionPipeline"),
        (_half_an_index, "model_index.json: damaged"),
        (_no_part, "vae: no such folder, which model_index.json names"),
        (_no_weights, "cannot be loaded as a StableDiffusionPipeline"),
    ],
)
def test_a_folder_that_is_no_pipeline_is_reported(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    damage(folder)
    assert synthesize(folder, tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    shutil.rmtree(tmp_path / "synthetic", ignore_errors=True)
    assert synthesize(tiny, tmp_path) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt", "a photo"), "--prompt 'a photo': write {class}"),
        (("--out", "../elsewhere"), "folder '../elsewhere' leaves the data directory"),
        (("--device", "cuda:99"), "--device cuda:99"),
        (("--device", "abacus"), "--device abacus"),
    ],
)
def test_a_wrong_option_is_reported(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str], message: str
) -> None:
    assert synthesize(tiny, tmp_path, *options) == 2
    assert message in capsys.readouterr().err


def test_without_diffusers_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert synthesize(tmp_path, tmp_path) == 2
    assert "pip install -e '.[synthesis]'" in capsys.readouterr().err
