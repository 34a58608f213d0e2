"""Reasons are written out here: the subject is which of them the evidence bears out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.cards import card_names, card_text, cut_card
from reranker.models.tokenizing import HFTokenizer
from reranker.parsing import Reason, WrittenRanking, supported_reasons
from shop import products

PROFILE = "Buys often: green tea (every 12 days); oat milk. Brands: Tarn. Price level: budget."
CARDS = (
    "Green tea, 50 bags | Tarn | Teas | 4.50 EUR | size 1,250 g",
    "Laptop 14 inch | Kestrel | Laptops | 1199.00 EUR",
    "Coffee mug | Norrland | Kitchenware | 8.50 EUR",
    "绿茶 50袋 | 龙井 | 茶叶 | 45.00 CNY",
)
NAMES = ("Tarn", "Teas", "Kestrel", "Laptops", "Norrland", "Kitchenware", "龙井", "茶叶")


def cause(cites: str, text: str, slot: int = 0, query: str | None = None) -> str | None:
    """Why a reason is dropped; None if it stands."""
    reason = Reason(slot=slot, cites=cites, text=text)
    ranking = WrittenRanking(order=(0, 1, 2, 3), ranked=4, reasons=(reason,))
    kept, dropped = supported_reasons(
        ranking, profile=PROFILE, cards=CARDS, names=NAMES, query=query
    )
    assert (kept, len(dropped)) in ((((reason,)), 0), ((), 1))
    return dropped[0] if dropped else None


@pytest.mark.parametrize(
    ("cites", "text"),
    [
        ("green tea", "Bought every 12 days."),
        ("GREEN  Tea", "The usual tea."),
        ("ｇｒｅｅｎ tea", "The usual tea."),
        ("Green tea, 50 bags", "50 bags at 4.5 EUR."),
        ("green tea 50 bags", "It holds 1250 g."),
        ("Tarn", "A brand bought before."),
        ("oat milk", "Goes with it."),
        ("4.50 EUR", "Only 4,50 EUR."),
    ],
)
def test_a_reason_stands_that_quotes_profile_or_card(cites: str, text: str) -> None:
    assert cause(cites, text) is None


@pytest.mark.parametrize(
    "text",
    ["See www.tea.example", "More: https://x", "Ask tea@tarn", "Ring 030 123 4567", "At tea.shop"],
)
def test_a_reason_gives_no_address(text: str) -> None:
    card = f"{text} green tea"
    reason = Reason(slot=0, cites="green tea", text=text)
    ranking = WrittenRanking(order=(0,), ranked=1, reasons=(reason,))
    assert supported_reasons(ranking, profile="", cards=(card,), names=())[1] == ("contact",)


@pytest.mark.parametrize("cites", ["", "the", "good product", "…", "a", "茶", "one of the best"])
def test_citing_nothing_is_no_support(cites: str) -> None:
    assert cause(cites, "Good.") == "nothing_cited"


@pytest.mark.parametrize(
    "cites",
    ["herbal tea", "tea green", "gree", "een tea", "5", "Laptop 14 inch", "green tea 500 bags"],
)
def test_what_does_not_stand_there_is_no_support(cites: str) -> None:
    assert cause(cites, "Good.") == "not_in_evidence"


def test_the_query_cannot_be_cited_but_may_be_spoken_of() -> None:
    assert cause("pyramid", "Good.", query="pyramid 80") == "not_in_evidence"
    assert cause("green tea", "Near the 80 searched for.") == "number_not_in_evidence"
    assert cause("green tea", "Near the 80 searched for.", query="pyramid 80") is None


@pytest.mark.parametrize(
    "text", ["Only 3.99 EUR.", "Bought 3 times.", "Bought twice in seven days.", "买过三次"]
)
def test_a_number_has_to_stand_in_the_evidence(text: str) -> None:
    assert cause("green tea", text) == "number_not_in_evidence"


@pytest.mark.parametrize(
    ("text", "slot", "cites"),
    [
        ("Better than Kestrel.", 0, "green tea"),
        ("A fine laptop.", 0, "green tea"),
        ("As good as 龙井 tea.", 1, "Laptop"),
        ("One more kitchenware piece.", 1, "Laptop"),
    ],
)
def test_another_products_brand_or_category_is_not_to_be_named(
    text: str, slot: int, cites: str
) -> None:
    assert cause(cites, text, slot) == "names_other_product"


def test_a_name_that_the_profile_or_the_own_card_holds_may_be_named() -> None:
    assert cause("Norrland", "A Norrland mug for tea by Tarn.", 2) is None
    assert cause("Laptop 14 inch", "A laptop.", 1) is None
    assert cause("Green tea", "A kitchenware classic.", query="kitchenware") is None


def test_chinese_reasons_are_judged_by_characters() -> None:
    assert cause("绿茶", "常买绿茶，50袋。", 3) is None
    assert cause("红茶", "常买红茶。", 3) == "not_in_evidence"
    assert cause("绿茶", "只要三元。", 3) == "number_not_in_evidence"
    assert cause("green tea", "和龙井一样好。", 0) == "names_other_product"


def test_each_reason_is_judged_by_its_own_card() -> None:
    reasons = (
        Reason(slot=1, cites="Kestrel", text="Its brand."),
        Reason(slot=2, cites="Kestrel", text="Its brand."),
        Reason(slot=0, cites="", text="Good."),
    )
    ranking = WrittenRanking(order=(1, 0, 2, 3), ranked=4, reasons=reasons)
    kept, dropped = supported_reasons(ranking, profile="", cards=CARDS, names=NAMES)
    assert kept == reasons[:1]
    assert dropped == ("not_in_evidence", "nothing_cited")


def test_it_works_on_cards_as_prompts_have_them(tokenizer: HFTokenizer) -> None:
    cards = [cut_card(card_text(product), tokenizer, 48) for product in products()]
    reasons = tuple(
        Reason(slot=slot, cites=product.title, text=f"A {product.title}.")
        for slot, product in enumerate(products())
    )
    ranking = WrittenRanking(order=tuple(range(6)), ranked=6, reasons=reasons)
    names = [name for product in products() for name in card_names(product)]
    kept, dropped = supported_reasons(ranking, profile="", cards=cards, names=names)
    assert kept == reasons
    assert dropped == ()
    wrong = Reason(slot=5, cites="Desk lamp", text="As good as a Kestrel.")
    ranking = WrittenRanking(order=tuple(range(6)), ranked=6, reasons=(wrong,))
    found = supported_reasons(ranking, profile="", cards=cards, names=names)
    assert found == ((), ("names_other_product",))


@pytest.mark.parametrize(
    ("card", "text"),
    [
        ("Desk lamp | bought once", "Often bought by tea lovers."),
        ("Desk lamp | sales 9", "Sales of tea are high."),
        ("Desk lamp | 39.00 EUR | Green light, soft and even.", "A soft green tea."),
    ],
)
def test_only_brands_and_categories_are_names(card: str, text: str) -> None:
    """What else stands on another product's card is nobody's name."""
    reason = Reason(slot=0, cites="tea", text=text)
    ranking = WrittenRanking(order=(0, 1), ranked=2, reasons=(reason,))
    kept, _ = supported_reasons(ranking, profile="", cards=("Tea", card), names=("Tarn",))
    assert kept == (reason,)


def test_numbers_of_a_name_are_no_names() -> None:
    reason = Reason(slot=0, cites="tea", text="50 bags of tea.")
    ranking = WrittenRanking(order=(0,), ranked=1, reasons=(reason,))
    kept, _ = supported_reasons(
        ranking, profile="", cards=("Tea 50 bags",), names=("1800 Tequila",)
    )
    assert kept == (reason,)


@given(cites=st.text(max_size=60), text=st.text(max_size=60), card=st.text(max_size=60))
def test_any_text_is_judged_and_a_kept_citation_stands_there(
    cites: str, text: str, card: str
) -> None:
    reason = Reason(slot=0, cites=cites, text=text)
    ranking = WrittenRanking(order=(0,), ranked=1, reasons=(reason,))
    kept, dropped = supported_reasons(ranking, profile="", cards=[card], names=())
    assert len(kept) + len(dropped) == 1
    assert supported_reasons(ranking, profile="", cards=[""], names=())[0] == ()
