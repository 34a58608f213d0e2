"""What a prompt says of one product: its text, and what the shop knows of it.

Product text is hostile input: it is cleaned, its brackets and separators are taken from it so that
it cannot imitate a label or a delimiter, a part of it that begins like what the shop says, be it
behind punctuation, is put in quotes, and it is cut by the model's own tokens. What the shop knows
stands behind it and is never cut: how much the product sells, and what this shopper did with it.
Product ids never enter.
"""

import re
from functools import lru_cache
from typing import Self

from pydantic import Field

from prompts import load_template
from reranker.ports import Tokenizer
from reranker.schema import (
    Candidate,
    EventKind,
    Identifier,
    Language,
    Product,
    UserProfile,
    Value,
    one_line,
)

_NEUTRAL = str.maketrans(
    {
        "[": "(",
        "]": ")",
        "［": "（",
        "］": "）",
        "【": "（",
        "】": "）",
        **dict.fromkeys("〔〖﹇⟦｟", "（"),
        **dict.fromkeys("〕〗﹈⟧｠", "）"),
        "<": "‹",
        ">": "›",
        **dict.fromkeys("＜﹤", "‹"),
        **dict.fromkeys("＞﹥", "›"),
        **dict.fromkeys("|｜￨│┃∣❘", "/"),
    }
)
TEMPLATE_VERSION = 2
"""Of the listwise templates and of what cards end with, together: adapters record the former."""
_SAID_BY_THE_SHOP = re.compile(
    r"[\W_]*(?:sales|bought|viewed|clicked|a favou?rite|put in|sent back"
    r"|销量|买过|最近浏览|最近点击|已收藏|加入过|退过货)",
    re.IGNORECASE,
)
_DESCRIPTION_CHARACTERS = 600
_SEPARATOR = " | "


class Told(Value):
    """What a prompt tells of a shopper.

    Attributes:
        summary: text on the shopper; bounded in tokens.
        purchases: how often each product was bought that was not sent back.
        touched: the strongest that was done lately with products that were not bought since, and
            what was sent back.
    """

    summary: str
    purchases: dict[Identifier, int] = Field(default_factory=dict)
    touched: dict[Identifier, EventKind] = Field(default_factory=dict)

    @classmethod
    def of(cls, profile: UserProfile) -> Self:
        """Take from a profile what enters prompts."""
        touched = {item.product_id: item.kind for item in profile.recent_items}
        touched |= {item.product_id: EventKind.RETURN for item in profile.returned_items}
        bought = EventKind.PURCHASE
        return cls(
            summary=profile.summary,
            purchases=profile.purchases,
            touched={product: kind for product, kind in touched.items() if kind is not bought},
        )


def clean(text: str) -> str:
    """Return a text on one line, without control characters, label brackets and separators."""
    return one_line(text.translate(_NEUTRAL))


def card_text(product: Product) -> str:
    """Return a product's own text: facts joined by `` | ``, the most telling first."""
    parts = (clean(part) for part in _facts(product) if part)
    return _SEPARATOR.join(_quoted(part) for part in parts if part)


def card_names(product: Product) -> tuple[str, ...]:
    """Return what a product's text calls it by, beside its title: brand and narrowest category."""
    return tuple(name for name in (product.brand, _leaf(product)) if name)


def cut_card(text: str, tokenizer: Tokenizer, max_tokens: int) -> str:
    """Return as much of a `card_text` as has room.

    The description comes last, as far as room allows; the title is cut when it alone is too long.
    """
    return tokenizer.truncate(text, max_tokens).rstrip(" |")


def _quoted(part: str) -> str:
    return f"“{part}”" if _SAID_BY_THE_SHOP.match(part) else part


def card_evidence(candidate: Candidate, told: Told | None, language: Language) -> str:
    """Return what the shop knows of a product, to be put behind its text; empty if nothing."""
    product_id = candidate.product.product_id
    bought = told.purchases.get(product_id, 0) if told else 0
    touched = told.touched.get(product_id) if told else None
    if candidate.sales is None and not bought and touched is None:
        return ""
    return f"{_SEPARATOR}{_said(candidate.sales, bought, touched, language)}"


@lru_cache(maxsize=1024)
def _said(sales: int | None, bought: int, touched: EventKind | None, language: Language) -> str:
    """Return what the shop says; much the same is said of most products."""
    template = load_template("card_evidence", language, TEMPLATE_VERSION)
    return template.render(sales=sales, bought=bought, touched=touched)


def _facts(product: Product) -> list[str]:
    price = ""
    if product.price is not None:
        price = f"{product.price:.2f} {product.currency or ''}"
    attributes = [f"{name} {value}" for name, value in product.attributes.items()]
    stock = "" if product.in_stock else "out of stock"
    return [
        product.title,
        product.brand or "",
        _leaf(product),
        price,
        stock,
        *attributes,
        product.description[:_DESCRIPTION_CHARACTERS],
    ]


def _leaf(product: Product) -> str:
    return product.category.rsplit(">", 1)[-1] if product.category else ""
