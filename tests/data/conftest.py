"""Fixtures of the tests of data."""

from cifar_files import official  # noqa: F401
from fast_runs import split, tapes  # noqa: F401
