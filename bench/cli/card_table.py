"""The authors' cards as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from bench.cards import Card
from bench.cli.common import table
from bench.cli.tables import FittingTable


def card_table(cards: Sequence[Card]) -> FittingTable:
    """Return the contents of each card, one below the other."""
    shown = table("authors' cards: what they trained with", "", "", "")
    shown.show_header = False
    for card in cards:
        for number, (about, text) in enumerate(card.lines().items()):
            shown.add_row(escape(card.name) if not number else "", about, escape(text))
        shown.add_section()
    return shown
