"""The profile in words: the most telling facts first, within the model's tokens.

What happened before the present visit comes first and reads the same from search to search, so that
a model's prefix cache keeps it; what the visit adds comes last.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from reranker.ports import Tokenizer
from reranker.schema import Language
from retrieval.profiles.budget import Need, share_room
from retrieval.profiles.facts import Entry, Fact, Findings, telling_facts
from retrieval.profiles.in_words import in_words

_WEIGHTS: Mapping[str, float] = {"bought": 3.0, "repeats": 3.0, "wanted": 1.5, "viewed": 1.5}
"""How room is shared where it does not suffice for all; other facts weigh 1."""
_REMEMBERED = 1 << 16
_SAMPLE = "x"
_DIGIT = 3


class Summariser:
    """Writes summaries for one model. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        """Take the model's tokenizer, and the longest summary in its tokens."""
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        # Shoppers share products, and facts their words: most has been counted before.
        self._tokens = lru_cache(maxsize=_REMEMBERED)(tokenizer.count)
        self._frame = lru_cache(maxsize=None)(self._count_frame)

    def summarise(self, findings: Findings, language: Language, user_id: str) -> str:
        """Return the summary: whole facts and whole names only, however small the room.

        Args:
            findings: the typed parts of the profile.
            language: of the template.
            user_id: names that hold it as a word of its own are left out.
        """
        return self.fit(telling_facts(findings, language, user_id), language, self.max_tokens)

    def fit(self, facts: Sequence[Fact], language: Language, room: int) -> str:
        """Return what can be said of some facts within so many tokens."""
        needs = [self._need(fact, language) for fact in facts]
        numbers = share_room(needs, room)
        while True:
            kept = [
                Fact(fact.about, fact.entries[:number])
                for fact, number in zip(facts, numbers, strict=True)
                if number
            ]
            text = in_words(kept, language)
            if not kept or self._tokenizer.count(text) <= room:
                return text
            # Parts that are counted apart may come to more together.
            _drop_one(numbers, needs)

    def count(self, text: str) -> int:
        """Return the tokens of a text."""
        return self._tokenizer.count(text)

    def _need(self, fact: Fact, language: Language) -> Need:
        label = self._frame(language, fact.about, Entry(_SAMPLE))
        notes = (
            self._frame(language, fact.about, _sample(entry)) + _digits(entry) - label
            for entry in fact.entries
        )
        return Need(
            weight=_WEIGHTS.get(fact.about, 1.0),
            fixed=label,
            entries=tuple(
                self._tokens(entry.text) + noted + 1
                for entry, noted in zip(fact.entries, notes, strict=True)
            ),
        )

    def _count_frame(self, language: Language, about: str, entry: Entry) -> int:
        """Return the tokens of a fact around the text of its only name."""
        text = in_words([Fact(about, (entry,))], language)
        return self._tokenizer.count(text) - self._tokenizer.count(entry.text)


def _sample(entry: Entry) -> Entry:
    """Return an entry with the same notes and one digit for each number."""
    return Entry(
        _SAMPLE,
        count=entry.count and _DIGIT,
        every=entry.every and _DIGIT,
        ago=None if entry.ago is None else _DIGIT,
        due=entry.due,
    )


def _digits(entry: Entry) -> int:
    """Return how many digits an entry has more than its sample; models count each of them."""
    numbers = (entry.count, entry.every, entry.ago)
    return sum(len(str(number)) - 1 for number in numbers if number is not None)


def _drop_one(numbers: list[int], needs: Sequence[Need]) -> None:
    """Take the last name from the fact that takes up the most for its weight."""
    taken = [
        need.cost(number) / need.weight if number else 0.0
        for number, need in zip(numbers, needs, strict=True)
    ]
    numbers[taken.index(max(taken))] -= 1
