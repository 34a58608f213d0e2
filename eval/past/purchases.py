"""Purchases (or other choices) of shoppers in columns, in the order in which they were made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from eval.statistics.estimates import Integers

UNTIMED = -1
"""Stands for a time that is not known: no moment since 1970 is it."""


class ShopperSequence(NamedTuple):
    """What one row of a file tells of one shopper.

    Attributes:
        user: None for a shopper who is not named.
        products: oldest first.
        at_us: time of each in microseconds since 1970 UTC, or `UNTIMED`.
    """

    user: str | None
    products: tuple[str, ...]
    at_us: tuple[int, ...]


@dataclass(frozen=True)
class Purchases:
    """N purchases, by sequence, each sequence in its order.

    Attributes:
        users: names by number; shoppers who are not named have a number of their own.
        products: ids by number.
        sequence, user, product: N numbers.
        at_us: N times; `UNTIMED` where not known.
    """

    users: tuple[str, ...]
    products: tuple[str, ...]
    sequence: Integers
    user: Integers
    product: Integers
    at_us: Integers

    def __len__(self) -> int:
        return len(self.product)

    @classmethod
    def of(cls, sequences: Iterable[ShopperSequence]) -> Self:
        """Gather sequences into columns."""
        users: dict[str, int] = {}
        products: dict[str, int] = {}
        columns: tuple[list[int], ...] = ([], [], [], [])
        for number, each in enumerate(sequences):
            name = f"user {each.user}" if each.user is not None else f"row {number}"
            user = users.setdefault(name, len(users))
            for product, at_us in zip(each.products, each.at_us, strict=True):
                row = (number, user, products.setdefault(product, len(products)), at_us)
                for column, value in zip(columns, row, strict=True):
                    column.append(value)
        return cls(tuple(users), tuple(products), *(np.array(c, np.int64) for c in columns))

    @classmethod
    def joined(cls, parts: Sequence["Purchases"]) -> Self:
        """Put purchases of several files together; a shopper of one name is one shopper."""
        return cls.of(each for part in parts for each in part.sequences())

    def sequences(self) -> Iterable[ShopperSequence]:
        """Return the sequences again."""
        starts = np.flatnonzero(np.diff(self.sequence, prepend=-1))
        ends = [*starts[1:], len(self)][: len(starts)]
        for start, end in zip(starts.tolist(), ends, strict=True):
            name = self.users[self.user[start]]
            yield ShopperSequence(
                user=name.removeprefix("user ") if name.startswith("user ") else None,
                products=tuple(self.products[p] for p in self.product[start:end]),
                at_us=tuple(self.at_us[start:end].tolist()),
            )

    def select(self, kept: Integers) -> "Purchases":
        """Return only these rows."""
        return Purchases(
            self.users,
            self.products,
            self.sequence[kept],
            self.user[kept],
            self.product[kept],
            self.at_us[kept],
        )
