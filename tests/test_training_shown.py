from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eval.logs import read_impressions
from reranker.errors import ConfigError, DataError
from reranker.models.tokenizing import HFTokenizer
from reranker.ports import no_progress
from reranker.schema import BehaviourEvent, EventKind, Impression, Product, ShownItem
from reranker.settings import Settings
from reranker.training.held_back import lists_of_all, validated_on_strangers
from reranker.training.logged_lists import check_logged
from reranker.training.purchases import split_by_shopper
from reranker.training.shown_source import ShownLists
from reranker.training.store_source import StoreBehaviour
from reranker.wiring import build_labels
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.product_table import ProductTable

START = datetime(2026, 1, 1, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve shoppers who were shown four teas a day for three days; one wants no training."""
    folder = tmp_path_factory.mktemp("shop") / "store"
    products = [Product(product_id=f"tea{n}", title=f"tea no {n}") for n in range(8)]
    table, *_ = ProductTable.empty().upsert(products)
    (folder / "catalogue").mkdir(parents=True)
    table.save(folder / "catalogue" / "products.arrow")
    events = []
    for user in range(12):
        for day in range(3):
            at = START + timedelta(days=day, minutes=user)
            about = {"user_id": f"shopper {user}", "request_id": f"r{user}-{day}", "query": "tea"}
            events += [
                BehaviourEvent(
                    kind=EventKind.IMPRESSION, at=at, product_id=f"tea{place + day}",
                    position=place, **about,
                )
                for place in range(1, 5)
            ]  # fmt: skip
            if day < 2:  # on the last day nobody wants anything
                clicked = BehaviourEvent(
                    kind=EventKind.CLICK, at=at + timedelta(minutes=1),
                    product_id=f"tea{3 + day}", **about,
                )  # fmt: skip
                bought = clicked.model_copy(
                    update={"kind": EventKind.PURCHASE, "product_id": f"tea{1 + day}"}
                )
                events += [clicked, bought]
    with BehaviourStore(folder) as store:
        store.append(events)
        store.set_consent("shopper 11", "training", granted=False)
    return folder


def impressions(shop: Path, folder: Path, days: int = 9) -> tuple[Impression, ...]:
    settings = Settings.load(None, {"store.path": shop})
    build_labels(settings, folder / "lists.parquet", START + timedelta(days=days))
    return tuple(read_impressions(folder / "lists.parquet"))


def source(shop: Path, shown: tuple[Impression, ...], *examination: float) -> ShownLists:
    catalogue = shop / "catalogue" / "products.arrow"
    return ShownLists("shown", catalogue, shown, examination=examination)


def test_what_was_clicked_far_down_counts_for_more(
    shop: Path, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    settings = Settings.load(
        None,
        {"store.path": shop, "training.profile_dropout": 0.0, "training.validation_shoppers": 2},
    )
    shown = source(shop, impressions(shop, tmp_path), 1.0, 0.5, 0.25)
    found = lists_of_all([shown], tmp_path, settings, tokenizer, no_progress)[0]
    examples = [found.train.example(row, 0) for row in range(len(found.train))]
    assert len(examples) == 2 * 9  # eleven shoppers agreed, two are held back, two days each
    for example in examples:
        day = (example.request.at - START).days
        ids = [candidate.product.product_id for candidate in example.candidates]
        grades = dict(zip(ids, example.grades, strict=True))
        weights = dict(zip(ids, example.item_weights or (), strict=True))
        # Bought in place 1; clicked in place 3, which a quarter looks at.
        assert grades == {
            f"tea{1 + day}": 3, f"tea{2 + day}": 0, f"tea{3 + day}": 1, f"tea{4 + day}": 0,
        }  # fmt: skip
        assert weights == {
            f"tea{1 + day}": 1, f"tea{2 + day}": 2, f"tea{3 + day}": 4, f"tea{4 + day}": 4,
        }  # fmt: skip
        assert example.request.query == "tea"
        assert example.weight == 1
        # Nothing of that day or later is told of the shopper.
        if day == 0:
            assert example.told is None
        else:
            assert "tea no 1" in (example.told.summary if example.told else "")
            assert "tea no 4" not in (example.told.summary if example.told else "")
    assert {str(each) for each in found.pseudonyms} == {example.user_id for example in examples}
    assert found.key_fingerprint


def test_a_logged_propensity_reaches_the_list(
    shop: Path, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    settings = Settings.load(None, {"store.path": shop, "training.validation_shoppers": 1})
    logged = tuple(
        Impression(
            request_id=f"r{user}",
            user_id=f"stranger {user}",
            at=START,
            items=tuple(
                ShownItem(product_id=f"tea{n}", position=n + 1, propensity=0.5 / (n + 1), grade=n)
                for n in range(3)
            ),
        )
        for user in range(6)
    )
    found = lists_of_all([source(shop, logged)], tmp_path, settings, tokenizer, no_progress)[0]
    example = found.train.example(0, 0)
    assert example.logged is not None
    assert example.candidates[example.logged.place].product.product_id == "tea0"
    assert example.logged.propensity == 0.5
    assert found.train.logged() == len(found.train) == 5


def test_lists_of_a_store_cannot_be_learnt_from_by_logged_rewards(
    shop: Path, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    settings = Settings.load(
        None,
        {
            "store.path": shop,
            "training.validation_shoppers": 2,
            "training.objective": "policy",
        },
    )
    shown = [source(shop, impressions(shop, tmp_path), 1.0, 0.5)]
    found = lists_of_all(shown, tmp_path, settings, tokenizer, no_progress)
    with pytest.raises(ConfigError, match=r"training\.objective = policy .* no list of shown says"):
        check_logged(found, settings.training)
    check_logged(found, settings.training.model_copy(update={"objective": "ranknet"}))


def test_lists_of_which_nothing_was_wanted_are_refused(
    shop: Path, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    settings = Settings.load(None, {"store.path": shop})
    unwanted = tuple(
        each.model_copy(
            update={"items": tuple(i.model_copy(update={"grade": 0}) for i in each.items)}
        )
        for each in impressions(shop, tmp_path)
    )
    with pytest.raises(DataError, match="on none of the 33 lists shown"):
        lists_of_all([source(shop, unwanted)], tmp_path, settings, tokenizer, no_progress)


def test_purchases_and_lists_of_one_store_hold_the_same_shoppers_back(
    shop: Path, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    settings = Settings.load(None, {"store.path": shop, "training.validation_shoppers": 2})
    bought = StoreBehaviour(
        name="store",
        catalogue=shop / "catalogue" / "products.arrow",
        until=START + timedelta(days=9),
    )
    (alone,) = lists_of_all([bought], tmp_path, settings, tokenizer, no_progress)
    held = {example.user_id for example in alone.validation}
    # Lists of those shoppers alone whom the purchases would not hold back.
    others = tuple(one for one in impressions(shop, tmp_path) if one.user_id not in held)
    sources = [bought, source(shop, others)]
    both = lists_of_all(sources, tmp_path, settings, tokenizer, no_progress)
    trained = {one.train.example(row, 0).user_id for one in both for row in range(len(one.train))}
    validated = {example.user_id for one in both for example in one.validation}
    assert held < validated
    assert trained.isdisjoint(validated)
    assert {str(each) for one in both for each in one.pseudonyms} == trained


def test_shoppers_whom_a_lists_source_cannot_learn_from_any_more_are_named(
    shop: Path, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    settings = Settings.load(None, {"store.path": shop, "training.validation_shoppers": 4})
    shown = impressions(shop, tmp_path)
    users = sorted({one.user_id or "" for one in shown})
    files = tuple(one for one in shown if one.user_id in users[:5])
    lists = source(shop, files).gather(tmp_path, settings, tokenizer, no_progress)
    split = split_by_shopper(lists.purchases, set(users), seed=0)
    with pytest.raises(DataError, match="shown: all its shoppers are held back"):
        lists.lists(split)


def test_an_adapters_next_training_validates_on_nobody_whom_it_knows(
    shop: Path, tokenizer: HFTokenizer, tmp_path: Path
) -> None:
    settings = Settings.load(None, {"store.path": shop, "training.validation_shoppers": 2})
    shown = [source(shop, impressions(shop, tmp_path))]
    (found,) = lists_of_all(shown, tmp_path, settings, tokenizer, no_progress)
    first, second = found.validation
    known, other = (Pseudonym.written(one.user_id) for one in (first, second))
    assert known is not None
    assert other is not None
    (left,) = validated_on_strangers([found], {known}, tmp_path)
    assert left.validation == (second,)
    assert left.train is found.train
    with pytest.raises(ConfigError, match="has learnt from all shoppers who are held back"):
        validated_on_strangers([found], {known, other}, tmp_path)
