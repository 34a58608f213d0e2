"""Nobody whom one source of a training holds back is learnt from in another."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.errors import DataError
from reranker.training.held_back import held_back
from reranker.training.purchases import Purchase, Split, drawn_shoppers, split_by_shopper
from reranker.training.sources import Gathered, Lists


def unmade(split: Split) -> Lists:
    raise AssertionError("no lists are asked for")


def gathered(shoppers: Sequence[str], held: int) -> Gathered:
    purchases = tuple(Purchase(user_id=user, history=(), target="p") for user in shoppers)
    return Gathered(purchases, held, unmade)


def parts(sources: Sequence[Gathered], seed: int = 0) -> tuple[set[str], set[str]]:
    """Return the shoppers who are learnt from in any source, and those who are validated on."""
    held = held_back(sources, seed=seed)
    splits = [split_by_shopper(one.purchases, held, seed=seed) for one in sources]
    trained = {one.user_id for split in splits for one in split.train}
    return trained, {one.user_id for split in splits for one in split.validation}


def test_shoppers_of_a_small_source_are_learnt_from_in_no_larger_one() -> None:
    """20,000 who bought, 5,000 of whom were shown lists: 741 of 1,000 were once in both."""
    everybody = [f"shopper {number}" for number in range(20_000)]
    sources = [gathered(everybody, 1000), gathered(everybody[:5000], 1000)]
    trained, held = parts(sources)
    assert trained.isdisjoint(held)
    assert trained | held == set(everybody)
    assert 1000 < len(held) < 2000
    for one in sources:  # what a source holds back by itself, it holds back here
        assert drawn_shoppers(one.purchases, one.held, seed=0) <= held


USERS = st.sets(st.integers(0, 60), min_size=2).map(lambda found: [f"u{n}" for n in found])


@given(sources=st.lists(st.tuples(USERS, st.integers(1, 20)), min_size=1), seed=st.integers(0, 9))
def test_nobody_is_learnt_from_and_validated_on(
    sources: list[tuple[list[str], int]], seed: int
) -> None:
    made = [gathered(users, min(held, len(users) - 1)) for users, held in sources]
    trained, held = parts(made, seed)
    assert trained.isdisjoint(held)
    assert trained | held == {user for users, _ in sources for user in users}


def test_one_source_holds_back_what_it_wants() -> None:
    users = [f"u{number}" for number in range(30)]
    _, held = parts([gathered(users, 7)])
    assert len(held) == 7
    with pytest.raises(DataError, match=r"lower training\.validation_shoppers"):
        held_back([gathered(users, 7), gathered(users[:4], 4)], seed=0)
