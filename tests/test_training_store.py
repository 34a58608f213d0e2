from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from reranker.errors import DataError
from reranker.models.tokenizing import HFTokenizer
from reranker.ports import no_progress
from reranker.schema import BehaviourEvent, EventKind, Product
from reranker.settings import Settings
from reranker.training.held_back import lists_of_all
from reranker.training.sources import Lists
from reranker.training.store_purchases import purchases_of
from reranker.training.store_source import StoreBehaviour
from retrieval.behaviour import BehaviourStore, PastEvent
from retrieval.product_table import ProductTable

START = datetime(2026, 1, 1, 9, tzinfo=UTC)
KINDS = ("Tea", "Bread", "Honey")


def event(kind: str, minutes: int, product: str | None = None, query: str | None = None):
    at = int((START + timedelta(minutes=minutes)).timestamp() * 1_000_000)
    return PastEvent(kind, at, product, query)


def test_a_purchase_knows_its_basket_its_search_and_what_came_before() -> None:
    events = [
        event("purchase", 0, "a"),
        event("view", 5, "z"),
        event("purchase", 10, "b"),
        event("search", 100, query="green tea"),
        event("purchase", 110, "c"),
        event("purchase", 500, "a"),
    ][::-1]
    found = purchases_of(
        [("somebody", events)],
        per_shopper=9,
        query_of=lambda product: f"a kind of {product}",
        seed=0,
    )
    told = {(one.target, one.query, one.history, one.along) for one in found}
    assert told == {
        ("b", "a kind of b", (), ("a",)),
        ("c", "green tea", ("a", "b"), ()),
        ("a", "a kind of a", ("a", "b", "c"), ()),
    }
    few = purchases_of([("somebody", events)], per_shopper=1, query_of=lambda _: None, seed=0)
    assert len(few) == 1
    assert few[0] in purchases_of(
        [("somebody", events)], per_shopper=9, query_of=lambda _: None, seed=0
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten shoppers who buy one thing a day; the last one does not want models to learn from it."""
    folder = tmp_path_factory.mktemp("shop") / "store"
    products = [
        Product(product_id=f"{kind}{n}", title=f"{kind} no {n}", category=f"Food > {kind}")
        for kind in KINDS
        for n in range(8)
    ]
    table, *_ = ProductTable.empty().upsert(products)
    (folder / "catalogue").mkdir(parents=True)
    table.save(folder / "catalogue" / "products.arrow")
    with BehaviourStore(folder) as store:
        store.append(
            [
                BehaviourEvent(
                    user_id=f"shopper {user}",
                    kind=EventKind.PURCHASE,
                    at=START + timedelta(days=day, minutes=user),
                    product_id=f"{KINDS[day % 3]}{(user + day) % 8}",
                )
                for user in range(10)
                for day in range(12)
            ]
        )
        store.set_consent("shopper 9", "training", granted=False)
        store.set_consent("shopper 8", "personalisation", granted=False)
    return folder


def lists(shop: Path, tokenizer: HFTokenizer, days: int = 10) -> Lists:
    settings = Settings.load(
        None,
        {"store.path": shop, "training.validation_shoppers": 2, "training.profile_dropout": 0.0},
    )
    source = StoreBehaviour(
        name="store",
        catalogue=shop / "catalogue" / "products.arrow",
        until=START + timedelta(days=days),
    )
    return lists_of_all([source], shop / "work", settings, tokenizer, no_progress)[0]


def test_only_shoppers_who_agreed_are_learnt_from(shop: Path, tokenizer: HFTokenizer) -> None:
    found = lists(shop, tokenizer)
    examples = [found.train.example(row, 0) for row in range(len(found.train))]
    users = {example.user_id for example in [*examples, *found.validation]}
    with BehaviourStore(shop, read_only=True) as store:
        names = {str(store.pseudonym(f"shopper {n}")): n for n in range(10)}
        assert found.key_fingerprint == store.fingerprint
    assert {names[user] for user in users} == set(range(9))
    trained = {example.user_id for example in examples}
    assert {str(each) for each in found.pseudonyms} == trained
    assert all(isinstance(each.uuid, UUID) for each in found.pseudonyms)
    assert trained.isdisjoint(example.user_id for example in found.validation)
    # Who wants no profile is shown to the model as a stranger.
    silent = {names[example.user_id] for example in examples if example.told is None}
    assert silent <= {8}
    assert found.card.last is not None
    assert found.card.last < START + timedelta(days=10)


def test_lists_are_searches_of_that_moment(shop: Path, tokenizer: HFTokenizer) -> None:
    found = lists(shop, tokenizer)
    hard = 0
    for row in range(len(found.train)):
        example = found.train.example(row, 0)
        target = example.candidates[example.grades.index(1.0)].product
        assert sum(example.grades) == 1
        assert example.request.query == (target.category or "").rpartition(" > ")[2].lower()
        day = (example.request.at - START).days
        later = {f"{KINDS[d % 3]} no {n}" for d in range(day, 12) for n in range(8)}
        earlier = {f"{KINDS[d % 3]} no {n}" for d in range(day) for n in range(8)}
        for title in later - earlier:
            assert title not in (example.told.summary if example.told else "")
        others = [c.product for c in example.candidates if c.product is not target]
        hard += sum(other.category == target.category for other in others)
    assert hard > 2 * len(found.train)


def test_too_few_shoppers_are_named(tmp_path: Path, shop: Path, tokenizer: HFTokenizer) -> None:
    with BehaviourStore(tmp_path) as store:
        store.append(
            [
                BehaviourEvent(
                    user_id=f"shopper {user}",
                    kind=EventKind.PURCHASE,
                    at=START + timedelta(days=day),
                    product_id=f"Tea{day}",
                )
                for user in range(4)
                for day in range(3)
            ]
        )
    settings = Settings.load(None, {"store.path": tmp_path})
    catalogue = shop / "catalogue" / "products.arrow"
    source = StoreBehaviour(name="store", catalogue=catalogue, until=START + timedelta(days=9))
    with pytest.raises(DataError, match="too few shoppers to hold any back"):
        lists_of_all([source], tmp_path / "work", settings, tokenizer, no_progress)[0]


def test_a_store_without_purchases_is_named(shop: Path, tokenizer: HFTokenizer) -> None:
    with pytest.raises(DataError, match="no purchases that models may learn from"):
        lists(shop, tokenizer, days=-1)
