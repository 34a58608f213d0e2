from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from reranker.schema import (
    BehaviourEvent,
    Filters,
    Product,
    SearchRequest,
    category_paths,
)


def test_values_are_frozen_and_refuse_unknown_fields() -> None:
    product = Product(product_id="1", title="Mug", attributes={"colour": "red"})
    with pytest.raises(ValidationError):
        product.title = "Cup"  # type: ignore[misc]
    with pytest.raises(TypeError):
        product.attributes["colour"] = "blue"  # type: ignore[index]
    with pytest.raises(ValidationError, match="colour"):
        Product.model_validate({"product_id": "1", "title": "Mug", "colour": "red"})


def test_product_survives_json() -> None:
    product = Product(product_id="1", title="杯子", attributes={"颜色": "红"}, price=3)
    assert Product.model_validate_json(product.model_dump_json()) == product


@pytest.mark.parametrize(
    ("field", "value"),
    [("price", -1), ("price", float("nan")), ("price", "dear"), ("title", " "), ("product_id", "")],
)
def test_product_refuses(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Product.model_validate({"product_id": "1", "title": "Mug", field: value})


def test_event_needs_what_its_kind_is_about() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(ValidationError, match="needs a query"):
        BehaviourEvent(user_id="u", kind="search", at=at)
    with pytest.raises(ValidationError, match="needs a product_id"):
        BehaviourEvent(user_id="u", kind="click", at=at)
    with pytest.raises(ValidationError, match="timezone"):
        BehaviourEvent(user_id="u", kind="click", at=datetime(2026, 1, 1), product_id="1")  # noqa: DTZ001


@pytest.mark.parametrize("query", ["", "   ", "\u200b\u2060", " \x00\u00a0\ufeff"])
def test_blank_query_is_refused_with_the_remedy(query: str) -> None:
    with pytest.raises(ValidationError, match="recommendations"):
        SearchRequest(query=query)
    assert SearchRequest(query=f"{query}tea{query}").query
    assert SearchRequest(query=None).query is None


def test_category_paths_are_the_ancestors() -> None:
    assert category_paths("Food > Dairy>Yogurt") == (
        "food",
        "food > dairy",
        "food > dairy > yogurt",
    )
    assert category_paths(None) == ()


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        (Filters(), True),
        (Filters(categories=("food",)), True),
        (Filters(categories=("Food > Dairy",)), True),
        (Filters(categories=("Dairy",)), False),
        (Filters(categories=("Toys", "FOOD > dairy")), True),
        (Filters(brands=("tarn",)), True),
        (Filters(brands=("other",)), False),
        (Filters(brands=("ta\u0308rn",)), False),
        (Filters(min_price=2, max_price=2), True),
        (Filters(max_price=1.99), False),
        (Filters(in_stock=False), False),
    ],
)
def test_filters(filters: Filters, matches: bool) -> None:
    product = Product(product_id="1", title="Milk", brand="Tarn", category="Food > Dairy", price=2)
    assert filters.matches(product) is matches


def test_a_product_without_a_price_meets_no_price_bound() -> None:
    product = Product(product_id="1", title="Milk")
    assert not Filters(min_price=0).matches(product)
    assert not Filters(max_price=10).matches(product)


@given(low=st.floats(0, 100), high=st.floats(0, 100))
def test_price_bounds_must_be_in_order(low: float, high: float) -> None:
    if low <= high:
        assert Filters(min_price=low, max_price=high).max_price == high
    else:
        with pytest.raises(ValidationError, match="above max_price"):
            Filters(min_price=low, max_price=high)


@pytest.mark.parametrize("brand", ["Caf\u00e9", "Cafe\u0301", "CAFE\u0301"])
def test_a_brand_is_the_same_however_its_accents_are_spelt(brand: str) -> None:
    assert Filters(brands=("caf\u00e9",)).matches_brand(brand)
    assert Filters(brands=("CAFE\u0301",)).matches_brand(brand)
    assert not Filters(brands=("cafe",)).matches_brand(brand)
