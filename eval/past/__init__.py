"""What had happened before: purchases read from files, cut at one moment, and counted."""

from eval.past.counts import Past
from eval.past.guard import TimeGuard
from eval.past.purchases import Purchases
from eval.past.reading import read_purchases

__all__ = ["Past", "Purchases", "TimeGuard", "read_purchases"]
