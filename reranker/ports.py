"""The protocols between the stages. `pipeline` and `listwise` know these and no concrete class."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from pydantic import Field

from reranker.schema import (
    Candidate,
    Filters,
    Language,
    Product,
    ProductInterest,
    Prompt,
    Readout,
    SlotScores,
    UserProfile,
    Value,
)


class Progress(Protocol):
    """Told how far long work is. A function of three arguments is one."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Take a stage's name, the amount done, and the whole amount (0: not known)."""
        ...


def no_progress(_stage: str, _done: int, _total: int, /) -> None:
    """Tell nobody."""


class CandidateIndex(Protocol):
    """Finds the products that a request may be about. Thread-safe for reading."""

    @property
    def behind(self) -> str | None:
        """Say in what the index lags behind the catalogue; None if in nothing."""
        ...

    def search(self, query: str, *, k: int, filters: Filters) -> tuple[Candidate, ...]:
        """Return at most k products for a query, best first, all of which meet the filters."""
        ...

    def begin_search(
        self, query: str, *, k: int, filters: Filters
    ) -> Callable[[], tuple[Candidate, ...]]:
        """Begin a `search` that goes on beside the caller's work; return what waits for its end."""
        ...

    def by_words(self, query: str, *, k: int, filters: Filters) -> tuple[Candidate, ...]:
        """Return what a `search` finds by the query's words alone, in less time; maybe nothing."""
        ...

    def similar(
        self, product_ids: Sequence[str], *, k: int, filters: Filters
    ) -> tuple[Candidate, ...]:
        """Return at most k products near the mean of the given ones, themselves included.

        Unknown ids are passed over; with none left the answer is empty.
        """
        ...

    def matching(
        self, query: str, product_ids: Sequence[str], *, filters: Filters
    ) -> tuple[Product, ...]:
        """Return those of the given products that hold every word of a query, in their order."""
        ...

    def browse(self, *, k: int, filters: Filters) -> tuple[Product, ...]:
        """Return at most k products that meet the filters, in the catalogue's order."""
        ...

    def products(self, product_ids: Sequence[str]) -> tuple[Product | None, ...]:
        """Return the products of the given ids in the same order, None where there is none."""
        ...


class ProfileStore(Protocol):
    """Tells what is known of a shopper. Thread-safe for reading."""

    def profile(
        self, user_id: str, as_of: datetime, language: Language = "en"
    ) -> UserProfile | None:
        """Return the profile from events strictly before ``as_of``; None without any."""
        ...

    def popular(self, as_of: datetime, *, k: int) -> tuple[str, ...]:
        """Return at most k product ids by purchases in the weeks before ``as_of``, most first."""
        ...


class InterestSource(Protocol):
    """Tells what the behaviour of all shoppers says of one. Thread-safe for reading."""

    @property
    def fault(self) -> str | None:
        """Say why what is known lags behind; None if it does not."""
        ...

    def knows(self, at: datetime) -> bool:
        """Tell at once whether it is worth asking what is known at a moment."""
        ...

    def tells(self, profile: UserProfile, at: datetime) -> bool:
        """Tell whether more is known of a shopper at a moment than what sells."""
        ...

    def of(
        self, profile: UserProfile | None, product_ids: Sequence[str], at: datetime
    ) -> tuple[ProductInterest, ...] | None:
        """Return the interest of a shopper in products; None where nothing is known at a moment.

        Args:
            profile: of the shopper; None of an anonymous one.
            product_ids: those asked about.
            at: the moment; nothing from then on counts.
        """
        ...

    def likely(self, profile: UserProfile | None, k: int, at: datetime) -> tuple[str, ...]:
        """Return at most k products that a shopper may take next, the likeliest first."""
        ...


class Recommender(Protocol):
    """Finds candidates where there is no query. Thread-safe for reading."""

    def recommend(
        self,
        profile: UserProfile | None,
        counted: Sequence[Sequence[str]],
        *,
        k: int,
        near: int,
        filters: Filters,
    ) -> tuple[Candidate, ...]:
        """Return at most k products for a shopper, best first; the first do not depend on k.

        Args:
            profile: of the shopper; None of an anonymous one.
            counted: lists of ids, each best first, that all shoppers' behaviour gives (what sells,
                what goes with the latest purchases), whether they meet the filters or not.
            k: most products.
            near: most neighbours of recent items that are looked for.
            filters: that all meet.
        """
        ...


class Tokenizer(Protocol):
    """Counts and cuts text in the model's own tokens."""

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        ...

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """Return the numbers of tokens of texts."""
        ...

    def truncate(self, text: str, max_tokens: int) -> str:
        """Return the longest prefix of a text that has at most ``max_tokens`` tokens."""
        ...


class ModelSpec(Value):
    """What a caller must know of a language model to talk to it.

    Attributes:
        context_length: prompt and answer together, in tokens.
        labels: the slot labels in the order of their use. Where the ``labels`` readout can be used,
            each is a single token in the model's rendered chat template.
        answer_prefix: what the answer to a ``labels`` prompt starts with; empty where the model's
            tokens would run the prefix and a label together.
        readouts: the ways in which this model can be asked.
    """

    name: str
    adapter: str | None = None
    context_length: int = Field(ge=1)
    labels: tuple[str, ...]
    answer_prefix: str = "["
    readouts: frozenset[Readout]


class LanguageModel(Protocol):
    """Answers prompts about windows of candidates.

    Both ways of asking take ``scope`` and ``seconds``. What a model keeps of a prompt (the prefix
    cache) may only serve prompts of the same scope, a shopper's id; None means that a prompt speaks
    of nobody. The id itself never leaves this process. ``seconds`` is the time left for an answer:
    a model that knows that it cannot keep to it fails early.
    """

    @property
    def spec(self) -> ModelSpec:
        """Describe the model."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Give access to the model's tokenizer."""
        ...

    def with_adapter(self, name: str) -> "LanguageModel":
        """Return the same model with another adapter, which costs nothing; not to be closed.

        Raises:
            ConfigError: this model cannot be asked for adapters by name.
        """
        ...

    async def read(
        self, prompts: Sequence[Prompt], *, scope: str | None = None, seconds: float = math.inf
    ) -> tuple[SlotScores, ...]:
        """Score every slot of every ``labels`` or ``verdict`` prompt, in their order.

        Raises:
            ModelError: the model did not answer, or not in time.
            OutputError: it answered with something else than scores.
        """
        ...

    async def write(
        self,
        prompts: Sequence[Prompt],
        *,
        schema: Mapping[str, Any],
        max_tokens: int,
        scope: str | None = None,
        seconds: float = math.inf,
    ) -> tuple[str, ...]:
        """Write an answer to every ``generate`` prompt, in their order, at temperature 0.

        Args:
            prompts: with the same slots each.
            schema: JSON Schema of the answer, to which a model that can is held.
            max_tokens: longest answer; it may end there in the middle of a word.
            scope: see the class.
            seconds: see the class.

        Raises:
            ModelError: the model did not answer, or not in time.
        """
        ...

    async def aclose(self) -> None:
        """Release what the model holds."""
        ...
