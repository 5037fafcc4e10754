"""Protocol fields that a published row leaves open, filled in from its authors' card.

What the row states goes first. The card fills the rest if the row is the authors' own and the card agrees
with everything the row states; a card of a re-implementation fills nothing. The entry's `by_card` names the
fields filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.cards import Card, card_of, cards_of
from bench.leaderboard.protocols import AUGMENTATION_CLASSES, architecture, pretraining, width_class

#: `Card.reported` in the words of the literature.
_SELECTION = {
    "last epoch": "last",
    "best epoch on the test set": "best_test",
    "best epoch on the validation set": "best_val",
}

#: Values that leave a field open: a table that mixes augmentations does not state which row has which.
OPEN = (None, "mixed")


def filled(number: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a published row (see `bench.published`) that its authors' card fills in."""
    if not number["original"]:
        return {}
    for protocol in _protocols(number):
        if all(number[name] in (*OPEN, value) for name, value in protocol.items() if name != "selection"):
            return {name: value for name, value in protocol.items() if number[name] in OPEN}
    return {}


def _protocols(number: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the protocol of each card of a row's method in the words of the literature, usual card first.

    With several stages all need a card of the same name; the epochs are those of the longest.
    """
    stages = (number["stages"] or number["method"]).split(">")
    names = dict.fromkeys(card.name for card in cards_of(stages[-1]))
    found = []
    for name in names:
        cards = [card_of(stage, number["dataset"], number["imbalance_factor"], name) for stage in stages]
        known = [card for card in cards if card is not None]
        if len(known) == len(stages) and all(card.own for card in known):
            epochs = max(card.whole_protocol().epochs for card in known)
            found.append(_words(known[-1]) | {"epochs": epochs})
    return found


def _words(card: Card) -> dict[str, Any]:
    view = card.views[0]
    return {
        "backbone": architecture(card.network.name),
        "width_class": width_class(card.network),
        "augmentation": AUGMENTATION_CLASSES.get(view, view),
        "pretraining": pretraining(card.network),
        "selection": _SELECTION[card.reported],
    }
