"""Replies of language models that went wrong, with what a careful reader makes of each."""

from collections.abc import Iterator
from random import Random

from eval.benchmarks.replies.answers import ANSWERED, ECHO, Kind
from eval.benchmarks.replies.forms import FORMS, MOST, Asked, FormName
from eval.benchmarks.replies.refusals import REFUSED
from reranker.schema import Value

KINDS: tuple[Kind, ...] = ANSWERED + REFUSED
WRAPPERS: tuple[Kind, ...] = tuple(kind for kind in ANSWERED if kind.wrap is not None)
_FEWEST = 5


class MalformedReply(Value):
    """One reply about some products, and its truth.

    Attributes:
        around: a second thing wrong with it, done to the whole text; empty for none.
        size: number of products asked about.
        truth: the slots that a careful reader finds, best first; None where there is nothing.
    """

    kind: str
    around: str = ""
    form: FormName
    size: int
    text: str
    truth: tuple[int, ...] | None

    @property
    def order(self) -> tuple[int, ...]:
        """The complete order: what was said, then the others as they were shown."""
        said = self.truth or ()
        return said + tuple(slot for slot in range(self.size) if slot not in said)


def malformed_replies(count: int, form: FormName, seed: int = 0) -> Iterator[MalformedReply]:
    """Yield replies of every kind in turn, every second time within one of `WRAPPERS`.

    The same seed makes the same replies, and the same place in two forms holds the same kind.
    """
    for number in range(count):
        turn, place = divmod(number, len(KINDS))
        around = WRAPPERS[turn // 2 % len(WRAPPERS)] if turn % 2 else None
        yield make_reply(KINDS[place], form, f"{seed} {number}", around)


def well_formed_replies(count: int, form: FormName, seed: int = 0) -> Iterator[MalformedReply]:
    """Yield replies exactly as asked for."""
    asked_for = Kind("as asked for", lambda asked: (asked.native(), asked.order))
    for number in range(count):
        yield make_reply(asked_for, form, f"{seed} {number}")


def make_reply(kind: Kind, form: FormName, seed: str, around: Kind | None = None) -> MalformedReply:
    """Return one reply of a kind, within another or not; 5 to 20 products, in a random order."""
    random = Random(seed)
    size = random.randint(_FEWEST, MOST)
    asked = Asked(form, random.sample(range(size), size), random)
    text, truth = kind.make(asked)
    name = ""
    # Around nothing, an echo of the products would look like an answer even to a careful reader.
    if around is not None and around.wrap is not None and not (truth is None and around is ECHO):
        name, text = around.name, around.wrap(asked, text)
    said = None if truth is None else tuple(truth)
    return MalformedReply(kind=kind.name, around=name, form=form, size=size, text=text, truth=said)


__all__ = [
    "FORMS",
    "KINDS",
    "WRAPPERS",
    "Asked",
    "FormName",
    "Kind",
    "MalformedReply",
    "make_reply",
    "malformed_replies",
    "well_formed_replies",
]
