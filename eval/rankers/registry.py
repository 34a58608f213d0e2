"""The names of rankers. Other packages add theirs by an entry point, later rooms by `ranker`."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import NamedTuple

from eval.rankers import counting, language_model, similarity
from eval.rankers.bench import Bench
from eval.rankers.ranked import Ranker
from reranker.errors import ConfigError

GROUP = "shelfwise.rankers"
"""Entry points of this group name a function that takes a `Bench` and returns a `Ranker`."""

Factory = Callable[[Bench], Ranker]


class RankerEntry(NamedTuple):
    """A ranker's factory, and what it does in one line."""

    make: Factory
    about: str


_BUILT_IN: dict[str, RankerEntry] = {
    "random": RankerEntry(counting.random_order, "a seeded random order: chance"),
    "as-given": RankerEntry(counting.as_given, "the order of the cases file"),
    "popularity": RankerEntry(counting.popularity, "shoppers who bought it (--histories, --train)"),
    "cooccurrence": RankerEntry(
        counting.cooccurrence, "bought with the latest of the history, by item cosine"
    ),
    "transitions": RankerEntry(
        counting.transitions, "bought right after the last of the history (Markov chain)"
    ),
    "own-history": RankerEntry(
        counting.own_history, "how often the shopper chose it before, then popularity"
    ),
    "recall": RankerEntry(
        similarity.recall,
        "recall: meaning and words of the query, or of the history; of a whole catalogue as served",
    ),
    "interest": RankerEntry(
        counting.interest, "interest learned from purchases: counts, factors, words (logistic)"
    ),
    "interest-profile": RankerEntry(
        counting.interest_of_profile, "the profile's interest as served: a hand-set rule"
    ),
    "llm": RankerEntry(language_model.llm, "the language model alone, told of the shopper"),
    "llm-noprofile": RankerEntry(
        language_model.llm_without_profile, "the language model alone, told of nobody"
    ),
    "llm-otherprofile": RankerEntry(
        language_model.llm_with_other_profile, "the language model, told of another shopper"
    ),
    "llm-written": RankerEntry(
        language_model.llm_with_written_profile,
        "the language model, told what it has written on the shopper (profile.summary = llm)",
    ),
    "llm-reshuffled": RankerEntry(
        language_model.llm_reshuffled, "llm with the candidates shown in another order"
    ),
    "full": RankerEntry(language_model.full, "as served: the model blended with recall, interest"),
    "full-nollm": RankerEntry(
        language_model.full_without_model, "as served when the model is down: the fallback"
    ),
}


def ranker_names() -> tuple[str, ...]:
    """Return all names that can be asked for."""
    return (*_BUILT_IN, *(point.name for point in entry_points(group=GROUP)))


def describe(name: str) -> str:
    """Return what a ranker does, in one line."""
    return _BUILT_IN[name].about if name in _BUILT_IN else "of another package"


def check_names(names: tuple[str, ...]) -> None:
    """Make sure that every name is known and none comes twice.

    Raises:
        ConfigError: naming the ranker and what there is.
    """
    known = ranker_names()
    for name in names:
        if name not in known:
            raise ConfigError(f"ranker {name!r}: unknown; there are {', '.join(known)}")
        if names.count(name) > 1:
            raise ConfigError(f"ranker {name!r} is named twice")


def make_ranker(name: str, bench: Bench) -> Ranker:
    """Make a ranker ready to rank the bench's cases.

    Raises:
        ConfigError: the name is unknown, or the ranker lacks a file.
    """
    check_names((name,))
    if name in _BUILT_IN:
        return _BUILT_IN[name].make(bench)
    (point,) = entry_points(group=GROUP, name=name)
    ranker: Ranker = point.load()(bench)
    return ranker
