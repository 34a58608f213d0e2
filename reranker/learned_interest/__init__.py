"""A model of interest learned from what shoppers chose: counts, factors and words, no network.

It ranks by taste alone: the query is recall's and the language model's matter. `reranker.interest`
joins it with the hand-set rule over a profile that needs nothing to learn from.
"""

from reranker.learned_interest.choices import Choices
from reranker.learned_interest.model import InterestModel, learn
from reranker.learned_interest.shop import LearnedInterest, ShopInterest

__all__ = ["Choices", "InterestModel", "LearnedInterest", "ShopInterest", "learn"]
