"""Without a query: what has been learnt of all shoppers puts the likeliest products first."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from interest_shop import KINDS, LEARNT, name, table_of, write_shop
from reranker import Reranker, SearchRequest, Settings, build
from reranker.learned_interest.learning import learn_interest
from reranker.learned_interest.stored import StoredInterest
from reranker.models.embedded import EmbeddedModel
from reranker.schema import BehaviourEvent, Candidate, EventKind, Filters, Product
from reranker.wiring import index_catalogue
from retrieval.behaviour import BehaviourStore
from retrieval.recommend import ProfileRecommender

SOON = LEARNT + timedelta(hours=1)
ROPES = SearchRequest(user_id="shopper 2", at=SOON, k=30)
SENT_BACK = name(2, 0)
NEW = {"user_id": "new 1"}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, model: EmbeddedModel) -> Iterator[Reranker]:
    """A shop of three kinds of things; new shoppers buy cups, which are too new to be known."""
    folder = write_shop(tmp_path_factory.mktemp("shop"))
    catalogue = folder / "catalogue" / "products.arrow"
    cup = Product(product_id="cup", title="cup", category="Things")
    known = table_of(40)
    known.upsert([cup])[0].save(catalogue)
    with BehaviourStore(folder) as store:
        learn_interest(store, known, StoredInterest(folder / "interest"), LEARNT)
        sent = [
            BehaviourEvent(user_id=f"new {n}", kind=EventKind.PURCHASE, at=LEARNT, product_id="cup")
            for n in range(40)
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
    told = {item.product.product_id: item.interest for item in shelf.search(ROPES).items}
    interest = [told[product] or 0.0 for product in ids(found) if product != "cup"]
    assert interest == sorted(interest, reverse=True)
    assert all(each.startswith(KINDS[2]) for each in ids(found)[:5]), ids(found)
    bought = shelf.profile("shopper 2", SOON).purchases
    assert set(ids(found)[:5]) - set(bought), "nothing but what was bought before"


def test_who_is_not_known_is_recommended_what_the_lists_say(shelf: Reranker) -> None:
    """Before it was learnt, of a stranger, and of who bought what is too new."""
    before = ROPES.model_copy(update={"at": LEARNT - timedelta(seconds=1)})
    for request in (before, SearchRequest(at=SOON, k=12), ROPES.model_copy(update=NEW)):
        found = shelf.recall(request)
        scores = [each.recall_score for each in found]
        assert scores == sorted(scores, reverse=True)
    best_sellers = {name(kind, 0) for kind in range(3)}  # bought on the first day alone
    stranger = ids(shelf.recall(SearchRequest(at=SOON, k=12)))
    assert not best_sellers & set(stranger[:3]), "what sells of late"


def test_what_was_sent_back_comes_last(shelf: Reranker) -> None:
    found = ids(shelf.recall(ROPES.model_copy(update={"user_id": "shopper 8", "k": 121})))
    assert len(set(found)) == 121
    assert set(found[found.index(SENT_BACK) + 1 :]) <= {"cup"}


def test_what_is_too_new_to_be_known_keeps_its_place(
    shelf: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing sells better of late than the cup."""
    joined: list[list[str]] = []
    recommend = ProfileRecommender.recommend

    def recorded(*asked: Any, **how: Any) -> tuple[Candidate, ...]:
        candidates = recommend(*asked, **how)
        joined.append(ids(candidates))
        return candidates

    monkeypatch.setattr(ProfileRecommender, "recommend", recorded)
    found = ids(shelf.recall(ROPES.model_copy(update={"k": 40})))
    (before,) = joined
    assert len(found) == 40
    assert found.index("cup") == before.index("cup")
    assert found[:10] != before[:10], "others were put in order"


def test_filters_hold_and_the_cut_comes_after_the_order(shelf: Reranker) -> None:
    everything = ids(shelf.recall(ROPES))
    few = shelf.recall(ROPES.model_copy(update={"k": 3}))
    assert ids(few) == everything[:12], "retrieval.candidates"
    cheap = ROPES.model_copy(update={"filters": Filters(max_price=1)})
    assert shelf.recall(cheap) == ()
