"""Public data sets in the native form of the importers."""

from eval.datasets.complete_journey import complete_journey
from eval.datasets.shop_files import ShopFiles, seed_example

__all__ = ["ShopFiles", "complete_journey", "seed_example"]
