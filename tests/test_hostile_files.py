"""Checkpoints, scores and cells that would run if read carelessly, and records that lead elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from records_factory import finish, make_cell

from bench.errors import BenchError
from bench.files import sha256
from bench.json_text import hash_of
from bench.records import Results
from bench.rundir import RunDir
from bench.train.checkpoint import read_checkpoint, write_checkpoint


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def test_the_bomb_goes_off_where_nobody_is_careful(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "owned")))
    assert (tmp_path / "owned").exists()


def test_a_checkpoint_that_would_run_is_refused_though_its_checksum_is_right(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    write_checkpoint(file, "id", {"epoch": 1, "method": Bomb(tmp_path / "owned")})
    with pytest.raises(BenchError, match=r"checkpoint\.pt: no checkpoint of ours"):
        read_checkpoint(file, "id", "cpu")
    for state in ([1], {"epoch": 1}, {"cell": "other"}):
        content = io.BytesIO()
        torch.save(state, content)
        file.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())
        with pytest.raises(BenchError, match=r"checkpoint\.pt: "):
            read_checkpoint(file, "id", "cpu")
    assert not (tmp_path / "owned").exists()


def test_scores_that_would_run_are_refused_though_their_record_vouches_for_them(tmp_path: Path) -> None:
    run = RunDir(tmp_path, make_cell().run_id)
    run.path.mkdir(parents=True)
    bomb = np.array([Bomb(tmp_path / "owned")], dtype=object)
    for arrays in ({"logits": bomb, "labels": bomb}, {"logits": np.zeros(3)}):
        np.savez(run.logits, **arrays)  # type: ignore[arg-type]
        with pytest.raises(BenchError, match=r"logits\.npz: "):
            run.read_logits(sha256(run.logits))
    for content in (b"", b"PK\x03\x04", pickle.dumps(Bomb(tmp_path / "owned"))):
        run.logits.write_bytes(content)
        with pytest.raises(BenchError, match=r"logits\.npz: "):
            run.read_logits(sha256(run.logits))
    assert not (tmp_path / "owned").exists()


def test_a_cell_that_would_run_is_refused(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell())
    run.record.unlink()
    for text in (
        f"!!python/object/apply:os.mkdir ['{tmp_path / 'owned'}']",
        f"seed: !!python/object/apply:os.mkdir ['{tmp_path / 'owned'}']",
    ):
        run.cell.write_text(text)
        with pytest.raises(BenchError, match=r"cell\.yaml: could not determine a constructor"):
            run.read_cell()
        assert Results(tmp_path).table()["status"].tolist() == ["unreadable"]
    assert not (tmp_path / "owned").exists()


def test_a_record_of_another_place_leads_nowhere(tmp_path: Path) -> None:
    """A record whose cell would make paths of its names is no cell."""
    run = finish(tmp_path, make_cell())
    record = run.read_record()
    for key in ("method", "dataset"):
        other = json.loads(json.dumps(record))
        other["cell"][key]["name"] = "../../owned"
        other["checksum"] = hash_of({name: value for name, value in other.items() if name != "checksum"})
        run.record.write_text(json.dumps(other))
        table = Results(tmp_path).table()
        assert table["status"].tolist() == ["unreadable"]
        assert "cell." in table["reason"][0]
