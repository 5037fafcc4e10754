"""Where the project lies, and the material beside it, which users do not have."""

from pathlib import Path

HELPERS = Path(__file__).parent
ROOT = HELPERS.parents[1]
SHARED = ROOT.parent / "shared"
