"""Names of people, and the order in which they are asked. Knows no label.

A browser has an id of its own making; that is who a label is by, and it never changes. A name is an event
about an id: what was labelled before it has it too, and nobody becomes somebody else by typing a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import get_args

from annotator.rows import Order
from annotator.store.base import Base

MAX_NAME_CHARS = 40
TAKEN = ("you", "everyone", "judge")
"""What the pages and the table of preferences call people by."""
FIRST = "Amber Brave Calm Clever Gentle Golden Happy Jolly Kind Lucky Merry Quiet Rapid Silver Sunny Witty"
SECOND = "Badger Crane Dolphin Falcon Fox Heron Lynx Marten Otter Owl Panda Raven Robin Seal Swift Wren"
"""What names are made up of, sixteen words each: half a byte."""


def made_up(person: str) -> str:
    """What a person is called until they say otherwise: always the same, as their own page says it."""
    sum_of = 0
    for letter in person:
        sum_of = (sum_of * 31 + ord(letter)) % 256
    return f"{FIRST.split()[sum_of >> 4]} {SECOND.split()[sum_of & 15]}"


def called(person: str, names: Mapping[str, str]) -> str:
    """By the name that they gave, or else by the one that their own page shows them."""
    return names.get(person) or made_up(person)


class People(Base):
    """Part of Store."""

    def names(self) -> dict[str, str]:
        """Everybody who gave a name, by id."""
        rows = self._rows("select payload from events where kind = 'person_name' order by seq")
        given = [json.loads(row["payload"]) for row in rows]
        return {one["person"]: one["name"] for one in given}

    def name_person(self, person: str, name: str) -> str:
        """Give a person a name. ValueError where it cannot be one, or somebody else has it."""
        tidy = " ".join(name.split())
        if not tidy or len(tidy) > MAX_NAME_CHARS or not tidy.isprintable():
            raise ValueError(f"A name has 1 to {MAX_NAME_CHARS} characters, all of them visible.")
        if tidy.casefold() in TAKEN:
            raise ValueError(f"“{tidy}” already means somebody on the page. Choose another name.")

        def write() -> None:
            # As the writer sees it: two browsers may ask for one name at the same moment.
            names = self.names()
            if any(other != person and taken.casefold() == tidy.casefold() for other, taken in names.items()):
                raise ValueError(f"Somebody else here is called {tidy} already. Choose another name.")
            if names.get(person) != tidy:
                self._append_event("person_name", {"person": person, "name": tidy}, person)

        self._write(write)
        return tidy

    def order(self) -> Order:
        """In which order open pairs come."""
        chosen = self._last_event("order")
        found: Order = chosen["order"] if chosen else "random"
        return found if found in get_args(Order) else "random"

    def set_order(self, order: Order, *, by: str) -> None:
        self._write(lambda: self._append_event("order", {"order": order}, by))
