from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eval.logs import read_impressions
from reranker.errors import DataError
from reranker.models.tokenizing import HFTokenizer
from reranker.ports import no_progress
from reranker.schema import BehaviourEvent, EventKind, Impression, Product, ShownItem
from reranker.settings import Settings
from reranker.training.shown_source import ShownLists
from reranker.wiring import build_labels
from retrieval.behaviour import BehaviourStore
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
    found = shown.lists(tmp_path, settings, tokenizer, no_progress)
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
    found = source(shop, logged).lists(tmp_path, settings, tokenizer, no_progress)
    example = found.train.example(0, 0)
    assert example.logged is not None
    assert example.candidates[example.logged.place].product.product_id == "tea0"
    assert example.logged.propensity == 0.5


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
        source(shop, unwanted).lists(tmp_path, settings, tokenizer, no_progress)
