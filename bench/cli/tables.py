"""Tables for any width: cells that do not fit in a row are printed below it."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAP, INDENT = 2, 4  # between columns, and before what is printed below a row


class FittingTable(Table):
    """A table that drops lines and empty columns if it is too wide, and breaks its rows if it still is.

    A cell is not folded if it fits in a line alone, so names and numbers stay whole.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table in the widest form that fits."""
        if self._fits(console, options):
            yield from super().__rich_console__(console, options)
            return
        narrow = self.narrow()
        if narrow._fits(console, options):
            yield from Table.__rich_console__(narrow, console, options)
        else:
            yield from narrow._broken(options.max_width, fold=console.is_terminal)

    def _fits(self, console: Console, options: ConsoleOptions) -> bool:
        wide = options.update(max_width=10_000)
        return self.__rich_measure__(console, wide).maximum <= options.max_width

    def narrow(self) -> FittingTable:
        """Return the table without lines and empty columns."""
        kept = [i for i, column in enumerate(self.columns) if any(map(str, column._cells))]
        made = FittingTable(title=self.title, title_justify="left", header_style="bold", box=None)
        made.padding, made.pad_edge = (0, GAP, 0, 0), False
        for i in kept:
            column = self.columns[i]
            made.add_column(
                column.header, justify=column.justify, overflow="fold", max_width=column.max_width
            )
        for row in zip(*(self.columns[i]._cells for i in kept), strict=True):
            made.add_row(*row)
        return made

    def _broken(self, width: int, fold: bool) -> RenderResult:
        """Yield for each row the columns that fit in a line, and below it the rest.

        The rest is folded in a terminal. In a file it stays in one line, so that it can be searched.
        """
        columns = [[Text.from_markup(str(cell)) for cell in (c.header, *c._cells)] for c in self.columns]
        widths = [max(cell.cell_len for cell in cells) for cells in columns]
        beside = 1
        while beside < len(widths) and sum(widths[: beside + 1]) + GAP * beside <= width:
            beside += 1
        if self.title:
            yield Text.from_markup(str(self.title), style="italic")
        for number, row in enumerate(zip(*columns, strict=True)):
            line = Text(style="bold" if number == 0 else "")
            for i, cell in enumerate(row[:beside]):
                space = " " * (widths[i] - cell.cell_len)
                to_the_right = self.columns[i].justify == "right"
                line = Text.assemble(line, *((space, cell) if to_the_right else (cell, space)), " " * GAP)
            line.rstrip()
            yield line
            rest = [cell for cell in row[beside:] if cell.plain.strip()]
            if rest and number:
                below = Text("  ").join(rest)
                if fold:
                    yield Padding(below, (0, 0, 0, INDENT))
                else:
                    yield Text.assemble(" " * INDENT, below, no_wrap=True, overflow="ignore")
