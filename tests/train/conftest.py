"""Fixtures of the tests of training."""

from fast_runs import split, tapes  # noqa: F401
