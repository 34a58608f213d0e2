"""What the word index holds of a product, and how queries and filters are put to it."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import rjieba
import tantivy

from reranker.schema import Filters, Product, category_paths, folded_brand
from retrieval.product_columns import product_text

WORDS = "shelfwise_words"
EXACT = "shelfwise_exact"
"""Names under which an index registers `word_analyser` and the tokenizer that cuts nothing."""
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd々〇"
_WORD = re.compile(rf"(?P<han>[{_HAN}]+)|[^\W{_HAN}]+")
_LONGEST_WORD = 100


def analyse(text: str) -> list[str]:
    """Return the words of a text in order, folded in width and case, before stemming.

    A run of Han characters is cut by a dictionary in search mode, where a long word also gives
    the shorter ones inside it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words: list[str] = []
    for match in _WORD.finditer(folded):
        if match["han"]:
            words.extend(rjieba.cut_for_search(match["han"]))
        else:
            words.append(match[0])
    return words


def schema() -> Any:
    """Return the fields of the index."""
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("key", indexed=True, fast=True)
    builder.add_text_field("text", tokenizer_name=WORDS, index_option="freq")
    builder.add_text_field("brand", tokenizer_name=EXACT, index_option="basic")
    builder.add_text_field("category", tokenizer_name=EXACT, index_option="basic")
    builder.add_float_field("price", fast=True)
    builder.add_boolean_field("in_stock", indexed=True)
    return builder.build()


def word_analyser() -> Any:
    """Return what stems words that `analyse` has cut."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    builder = builder.filter(tantivy.Filter.remove_long(_LONGEST_WORD))
    return builder.filter(tantivy.Filter.stemmer("english")).build()


def document(key: int, product: Product) -> Any:
    """Return a product as tantivy indexes it."""
    found = tantivy.Document()
    found.add_integer("key", key)
    text = f"{product.title}\n{product_text(product)}"
    found.add_text("text", " ".join(analyse(text)))
    if product.brand is not None:
        found.add_text("brand", _exact(folded_brand(product.brand)))
    for path in dict.fromkeys(category_paths(product.category)):
        found.add_text("category", _exact(path))
    if product.price is not None:
        found.add_float("price", product.price)
    found.add_boolean("in_stock", product.in_stock)
    return found


def _exact(name: str) -> str:
    # tantivy drops empty terms, but a blank brand is one that can be asked for.
    return f"={name}"


def conditions_of(schema: Any, filters: Filters) -> list[Any] | None:
    """Return the filters as queries that do not add to the score; None if nothing can meet them."""
    found = []
    if filters.categories:
        paths = {category_paths(name)[-1] for name in filters.categories if name}
        found.append(any_of(schema, "category", [_exact(path) for path in sorted(paths)]))
    if filters.brands:
        # An index of an earlier version holds accents as the catalogue spells them.
        spelt = {form(name) for name in filters.brands for form in (folded_brand, str.casefold)}
        brands = sorted(spelt)
        found.append(any_of(schema, "brand", [_exact(name) for name in brands]))
    if filters.min_price is not None or filters.max_price is not None:
        low, high = filters.min_price, filters.max_price
        kind = tantivy.FieldType.Float
        found.append(tantivy.Query.range_query(schema, "price", kind, low, high))
    if filters.in_stock is not None:
        found.append(tantivy.Query.term_query(schema, "in_stock", filters.in_stock, "basic"))
    if filters.categories and not any(filters.categories):
        return None
    return [tantivy.Query.const_score_query(each, 0.0) for each in found]


def any_of(schema: Any, field: str, terms: Sequence[str], index_option: str = "basic") -> Any:
    """Return the query for what holds one of some terms."""
    queries = [tantivy.Query.term_query(schema, field, term, index_option) for term in terms]
    if len(queries) == 1:
        return queries[0]
    return tantivy.Query.boolean_query([(tantivy.Occur.Should, query) for query in queries])
