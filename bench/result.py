"""One run of a results folder, from its directory or its line in the ledger."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import ledger, metrics, run_table
from bench.cell import Cell
from bench.errors import BenchError
from bench.json_text import hash_of
from bench.rundir import RunDir, State, cell_from, first_line

if TYPE_CHECKING:
    from bench.records import Results


class Result:
    """One run: its state, its cell and its record, each read when it is first asked for.

    Attributes:
        directory: its directory on this machine, which need not exist.
        line: its line in the ledger, None if there is none.
    """

    def __init__(
        self,
        directory: RunDir,
        line: ledger.Line | None = None,
        among: Results | None = None,
    ) -> None:
        self.run_id, self.directory, self.line, self._among = directory.run_id, directory, line, among

    @cached_property
    def _local(self) -> tuple[State, dict[str, Any] | None]:
        return self.directory.look()

    @property
    def local(self) -> State:
        """Its state on this machine, whatever is committed."""
        return self._local[0]

    @property
    def committed(self) -> bool:
        """Whether it has a valid line in the ledger."""
        return self.line is not None and self.line.problem is None

    @property
    def of_line(self) -> bool:
        """Whether it is known from its line: committed, and not finished on this machine."""
        return self.committed and self.local.status != "done"

    @cached_property
    def state(self) -> State:
        """Its state; its parents count only where it is done, and may be stale because of them."""
        state = self._own
        if self._among is None:
            return state
        if state.status == "done":
            from bench.stale import judged  # imports the readers of image folders

            state = judged(self, self._among, self._among.now)
        reasons = [state.reason, self._among.attempts.get(self.run_id)]
        return State(state.status, "; ".join(filter(None, reasons)) or None)

    @property
    def _own(self) -> State:
        if self.of_line:
            return State("done")
        if self.local.status == "missing" and self.line is not None:
            return State("unreadable", f"{self.line.path.name}:{self.line.number}: {self.line.problem}")
        return self.local

    @cached_property
    def record(self) -> dict[str, Any]:
        """Its record, as of `RunDir.read_record` except for the cell; empty if there is none."""
        if self.of_line and self.line is not None:
            return self.line.content
        return self._local[1] or {}

    @cached_property
    def cell(self) -> Cell:
        """Its cell; one that cannot be read is a `BenchError`."""
        try:
            return cell_from(self.record["cell"]) if self.record else self.directory.read_cell()
        except (KeyError, ValueError) as error:
            raise BenchError(f"record.json: {first_line(error)}; train it again by `run --force`") from error

    @cached_property
    def series(self) -> str:
        """The hash that it shares with its repetitions."""
        return series(self.cell)

    @property
    def augmentation(self) -> str:
        """The policy of the view that is classified, a method's first: the protocol's, or its own."""
        protocol, own = self.cell.protocol, (self.record.get("method") or {}).get("views")
        first = str((protocol.views or own or ["main"])[0])
        return protocol.augmentation if first == "main" else first

    @property
    def precision(self) -> str | None:
        """The precision of its training, bfloat16 or float32; None where the record does not have it."""
        bfloat16 = (self.record.get("environment") or {}).get("bfloat16")
        return None if bfloat16 is None else "bfloat16" if bfloat16 else "float32"

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The values of each epoch."""
        return ledger.curve(self.record) if self.of_line else self.directory.epochs()

    @cached_property
    def scored(self) -> int:
        """The number of epochs after which the test set was scored."""
        return sum(epoch.get("accuracy") is not None for epoch in self.curve)

    @property
    def confusion(self) -> np.ndarray | None:
        """Test images by class and predicted class (C, C)."""
        if self.of_line:
            return ledger.confusion(self.record)
        matrix = self.record.get("confusion")
        return None if matrix is None else np.asarray(matrix)

    @property
    def hits(self) -> np.ndarray | None:
        """Whether each test image (N,) was classified correctly; None without logits and bits."""
        return ledger.hits(self.record) if self.of_line else self.directory.hits(self.record)

    @property
    def per_class(self) -> list[float | None] | None:
        """The accuracy of each class (C,) in percent; None of a class without test images."""
        values = self.record.get("metrics")
        return values.get("per_class") if isinstance(values, dict) else None

    @property
    def headline(self) -> str:
        """The metric that ranks it, see `bench.metrics.headline`."""
        return metrics.headline((self.record.get("data") or {}).get("test_counts") or ())

    def packed(self) -> dict[str, Any]:
        """Return the content of its line, without curve and bits."""
        return self.record if self.of_line else ledger.packed(self.record)

    @cached_property
    def row(self) -> dict[str, Any]:
        """Its row in the table of runs."""
        return run_table.row(self)


def series(cell: Cell, *, across_splits: bool = False) -> str:
    """Return what repetitions of a cell share: a hash of all but the seeds, its own and its parents'.

    Args:
        across_splits: leave out the split seeds, too.
    """
    content = cell.identity()
    parts = [content]
    for part in parts:
        part.pop("seed", None)  # a default is not in it
        if across_splits:
            part["dataset"].pop("split_seed", None)
        parts += [part["parent"]] if "parent" in part else []
        parts += part.get("others", ())
    return hash_of(content)[:10]
