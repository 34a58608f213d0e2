"""Without a query: what has been learnt of all shoppers puts the likeliest products first."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from interest_shop import KINDS, LEARNT, START, name, table_of, write_shop
from reranker import Reranker, SearchRequest, Settings, build
from reranker.learned_interest.learning import learn_interest
from reranker.learned_interest.stored import StoredInterest
from reranker.models.embedded import EmbeddedModel
from reranker.schema import BehaviourEvent, Candidate, EventKind, Filters, Product
from reranker.wiring import index_catalogue
from retrieval.behaviour import BehaviourStore
from retrieval.product_table import ProductTable

SOON = LEARNT + timedelta(hours=1)
ROPES = SearchRequest(user_id="shopper 2", at=SOON, k=30)
SENT_BACK = name(2, 0)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, model: EmbeddedModel) -> Iterator[Reranker]:
    """A shop of three kinds of things; one shopper bought a cup, which is too new to be known."""
    folder = write_shop(tmp_path_factory.mktemp("shop"))
    catalogue = folder / "catalogue" / "products.arrow"
    cup = Product(product_id="cup", title="cup", category="Things")
    ProductTable.open(catalogue).upsert([cup])[0].save(catalogue)
    with BehaviourStore(folder) as store:
        learn_interest(store, table_of(), StoredInterest(folder / "interest"), LEARNT)
        sent = [
            BehaviourEvent(user_id="shopper 5", kind=EventKind.PURCHASE, at=at, product_id="cup")
            for at in (START, LEARNT)
        ]
        back = LEARNT + timedelta(minutes=1)
        sent.append(
            BehaviourEvent(
                user_id="shopper 8", kind=EventKind.RETURN, at=back, product_id=SENT_BACK
            )
        )
        store.append(sent)
    settings = Settings.load(None, {"store.path": folder, "retrieval.candidates": 12})
    index_catalogue(settings)
    with build(settings, model=model) as shelf:
        yield shelf


def ids(candidates: tuple[Candidate, ...]) -> list[str]:
    return [each.product.product_id for each in candidates]


def test_a_known_shopper_is_recommended_what_is_likeliest(shelf: Reranker) -> None:
    found = shelf.recall(ROPES)
    assert [each.recall_rank for each in found] == list(range(1, 31))
    scores = [each.recall_score for each in found]
    assert scores == sorted(scores, reverse=True)
    told = {item.product.product_id: item.interest for item in shelf.search(ROPES).items}
    assert scores == pytest.approx([told[product] for product in ids(found)])
    assert all(each.startswith(KINDS[2]) for each in ids(found)[:5]), ids(found)
    bought = shelf.profile("shopper 2", SOON).purchases
    assert set(ids(found)[:5]) - set(bought), "nothing but what was bought before"


def test_before_it_was_learnt_ranks_are_fused(shelf: Reranker) -> None:
    found = shelf.recall(ROPES.model_copy(update={"at": LEARNT - timedelta(seconds=1)}))
    assert max(each.recall_score for each in found) < 0.1, "a sum of 1 / (60 + rank)"
    first = {product.partition("-")[0] for product in ids(found)[:9]}
    assert len(first) > 1, "what sells is of every kind"


def test_a_stranger_is_recommended_what_sells_of_late(shelf: Reranker) -> None:
    found = shelf.recall(SearchRequest(at=SOON, k=12))
    best_sellers = {name(kind, 0) for kind in range(3)}  # bought on the first day alone
    assert not best_sellers & set(ids(found)[:3])
    assert max(each.recall_score for each in found) < 0.1


def test_what_was_sent_back_comes_last(shelf: Reranker) -> None:
    found = shelf.recall(ROPES.model_copy(update={"user_id": "shopper 8"}))
    assert SENT_BACK not in ids(found)[:-1]


def test_what_is_new_to_the_interest_is_not_lost(shelf: Reranker) -> None:
    found = shelf.recall(ROPES.model_copy(update={"user_id": "shopper 5", "k": 31}))
    assert len(set(ids(found))) == 31
    assert "cup" in ids(found)


def test_filters_hold_and_the_cut_comes_after_the_order(shelf: Reranker) -> None:
    everything = ids(shelf.recall(ROPES))
    few = shelf.recall(ROPES.model_copy(update={"k": 3}))
    assert ids(few) == everything[:12], "retrieval.candidates"
    cheap = ROPES.model_copy(update={"filters": Filters(max_price=1)})
    assert shelf.recall(cheap) == ()
