"""Finished runs as folders for the Hugging Face Hub, and back.

A folder has the run's files (cell, record, curve, logits, weights), a model card with its metrics and, if the
model is a timm classifier, the same weights in timm's form.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bench import ledger
from bench.errors import BenchError
from bench.files import replacing, sha256
from bench.records import Results
from bench.result import Result
from bench.rundir import RunDir

#: The run's files, the record last, as it marks the run as complete.
FILES = ("cell.yaml", "epochs.jsonl", "logits.npz", "weights.safetensors", "record.json")

#: The files that every run has.
NEEDED = ("cell.yaml", "weights.safetensors", "record.json")


def with_weights(run: Result) -> RunDir:
    """Return the directory of a run that has its weights.

    Raises:
        BenchError: it is not done, or has none here.
    """
    if run.state.status != "done":
        raise BenchError(f"{run.run_id}: is {run.state.status}, and has no weights")
    if not run.directory.weights.exists():
        raise BenchError(f"{run.run_id}: its weights are not here; `rerun {run.run_id}` makes them again")
    return run.directory


def opened(folder: Path) -> RunDir:
    """Return the run in a folder of any name, as written by `push`.

    Raises:
        BenchError: there is none.
    """
    try:
        run_id = json.loads((folder / "record.json").read_text(encoding="utf-8"))["run_id"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BenchError(f"{folder}: has no record.json of a run; name what `push` wrote") from None
    return RunDir(folder.parent, str(run_id), path=folder)


def install(folder: Path, results: Path) -> RunDir:
    """Copy the run in a folder to a results folder, checking its files against its record.

    Raises:
        BenchError: a file is missing or damaged, or the run or another record of it is here already.
    """
    source = opened(folder)
    record, cell = source.read_record(), source.read_cell()
    for name in NEEDED:
        if not (folder / name).is_file():
            raise BenchError(f"{folder}: has no {name}; name what `push` wrote")
    for name, recorded in (record.get("files") or {}).items():
        if (folder / name).exists() and sha256(folder / name) != recorded:
            raise BenchError(f"{folder / name}: not what its record says; fetch it again")
    mine = Results(results)[cell.run_id]
    if mine.local.status != "missing":
        raise BenchError(f"{cell.run_id}: is here already, and {mine.local.status}")
    if mine.committed and (differing := ledger.unlike(mine.packed(), ledger.packed(record))):
        where, one, other = differing[0]
        raise BenchError(f"{cell.run_id}: the record that is here has another {where}: {one}, not {other}")
    run = RunDir(results, cell.run_id)
    with run.lock():
        copy_files(folder, run.path)
    return run


def copy_files(source: Path, target: Path) -> None:
    """Copy a run's files from one folder to another."""
    for name in FILES:
        if (source / name).is_file():
            with replacing(target / name) as temporary:
                temporary.write_bytes((source / name).read_bytes())


# -- the Hub ---------------------------------------------------------------------------------------
def upload(folder: Path, repo: str, private: bool) -> str:
    """Upload a folder to a model repository of the Hub, which is created if needed; return its address."""
    api = _hub().HfApi(library_name="longtail-bench")
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="A run of longtail-bench")
    except Exception as error:  # from the network, the library or the Hub
        raise _refused(repo, error, "log in with `hf auth login`, or set HF_TOKEN") from error
    return str(url)


def download(repo: str, revision: str | None) -> Path:
    """Download the run's files from a model repository, and return their folder."""
    try:
        home = _hub().snapshot_download(repo, revision=revision, allow_patterns=list(FILES))
    except Exception as error:
        raise _refused(repo, error, "is there such a repository, and may you read it?") from error
    return Path(home)


def _hub() -> Any:
    """Return the library, without progress bars."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        import huggingface_hub
    except ImportError:
        raise BenchError('huggingface_hub is not installed; pip install -e ".[hub]"') from None
    return huggingface_hub


def _refused(repo: str, error: Exception, remedy: str) -> BenchError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return BenchError(f"{repo}: {reason}; {remedy}")
