"""The type of the `bench` fixture."""

from collections.abc import Callable

#: Runs a command; returns its exit code and all that it printed.
Bench = Callable[..., tuple[int, str]]
