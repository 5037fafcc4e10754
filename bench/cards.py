"""Cards: what a method's authors trained with, as data. `methods/cards/*.yaml`, read without torch.

A recipe uses them with `card: authors` and may override parts of them. A card describes the whole training
that gave the published numbers of its data sets; what our protocol cannot express is its `quirk`.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from bench.cell import BackboneChoice, Frozen, Name, Param, Protocol
from bench.errors import BenchError

FOLDER = Path(__file__).parents[1] / "methods" / "cards"

#: The name of a method's first card for a data set.
AUTHORS = "authors"

#: What a recipe writes to use no card.
NO_CARD = "none"


class Card(Frozen):
    """One training of some methods on some data sets, at all imbalance factors or at those named.

    Attributes:
        protocol, params: what differs from our defaults.
        views: the policies of the training images, "main" written out. Like `sampler`, that of the last
            epoch, they follow from the method and the protocol; tests compare the two.
        reported: the epoch whose accuracy was published.
        own: false where the authors released no training code and the card is that of re-implementations.
    """

    methods: tuple[Name, ...]
    data: tuple[Name, ...]
    imbalance_factors: tuple[float, ...] = ()
    name: Name = AUTHORS
    network: BackboneChoice
    protocol: dict[str, Any]
    params: dict[str, Param] = Field({})
    views: tuple[str, ...]
    sampler: str = "shuffle"
    reported: Literal["last epoch", "best epoch on the test set", "best epoch on the validation set"]
    source: str
    own: bool = True
    quirk: str = ""

    def whole_protocol(self) -> Protocol:
        """Return the protocol with our defaults filled in."""
        return Protocol.model_validate_json(json.dumps(self.protocol))

    def lines(self) -> dict[str, str]:
        """Describe the training in short lines, by topic."""
        protocol = self.whole_protocol()
        optimizer, schedule = protocol.optimizer, protocol.schedule
        steps = zip(schedule.milestones, schedule.factors, strict=True)
        factors = ", ".join(f"{factor:g}" for factor in self.imbalance_factors)
        lines = {
            "data": ", ".join(self.data) + (f" at {factors}" if factors else ""),
            "network": " ".join([self.network.name, *(f"{k}={v}" for k, v in self.network.options.items())]),
            "training": f"{protocol.epochs} epochs, batch {protocol.batch_size}, last incomplete batch "
            + ("dropped" if protocol.drop_last else "kept"),
            "optimiser": f"{optimizer.name} {optimizer.lr:g}, momentum {optimizer.momentum:g}"
            + (" (Nesterov)" if optimizer.nesterov else "")
            + f", weight decay {optimizer.weight_decay:g}",
            "schedule": f"{schedule.kind} per {schedule.per}, warm-up {schedule.warmup_epochs}"
            + (f" from {schedule.warmup_from:.2g}" if schedule.warmup_from else "")
            + "".join(f", x{factor:g} from epoch {epoch}" for epoch, factor in steps),
            "views": ", ".join(self.views),
            "sampler": self.sampler,
            "params": json.dumps(self.params) if self.params else "",
            "reported": self.reported,
            "source": self.source,
            "quirk": self.quirk,
        }
        return {key: text for key, text in lines.items() if text}


@cache
def cards() -> tuple[Card, ...]:
    """Read all cards.

    Raises:
        BenchError: a file is not a list of cards, or two cards are for the same training.
    """
    found: list[Card] = []
    taken: set[tuple[Any, ...]] = set()
    for file in sorted(FOLDER.glob("*.yaml")):
        for number, content in enumerate(yaml.safe_load(file.read_text(encoding="utf-8"))):
            try:
                card = Card.model_validate_json(json.dumps(content))
                card.whole_protocol()
            except ValidationError as error:
                raise BenchError(f"{file}: card {number}: {error.errors()[0]['msg']}") from None
            keys = set(product([card.name], card.methods, card.data, card.imbalance_factors or [None]))
            if keys & taken:
                raise BenchError(f"{file}: card {number}: there is one for {sorted(keys & taken)[0]}")
            taken |= keys
            found.append(card)
    return tuple(found)


def cards_of(method: str) -> list[Card]:
    """Return a method's cards in the order of their files."""
    return [card for card in cards() if method in card.methods]


def card_of(method: str, data: str, imbalance_factor: float, name: str = AUTHORS) -> Card | None:
    """Return a method's card for a data set, preferably for this imbalance factor; None if there is none."""
    fitting = [card for card in cards_of(method) if card.name == name and data in card.data]
    exact = [card for card in fitting if imbalance_factor in card.imbalance_factors]
    general = [card for card in fitting if not card.imbalance_factors]
    return next(iter(exact + general), None)
