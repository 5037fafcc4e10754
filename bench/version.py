"""The version of the package, with the revision of a checkout."""

from __future__ import annotations

import os
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version() -> str:
    """Return the package's version, and the revision where there is one: "0.1.0 (1a2b3c4d5e)"."""
    try:
        number = metadata.version("longtail-bench")
    except metadata.PackageNotFoundError:  # run from a folder, not installed
        number = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    commit = revision()
    return f"{number} ({commit})" if commit else number


def revision() -> str | None:
    """Return the revision; a copy of the tree without history has it in LONGTAIL_REVISION."""
    if given := os.environ.get("LONGTAIL_REVISION"):
        return given
    if not (ROOT / ".git").exists():  # installed; a repository around it is another project's
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
