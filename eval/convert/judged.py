"""Queries with judged products and no shoppers: Amazon's ESCI and Wayfair's WANDS.

Columns as documented at github.com/amazon-science/esci-data and github.com/wayfair/WANDS.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.cases.values import Case, Target
from eval.convert import writing
from eval.convert.writing import rows_of, the_file
from reranker.errors import DataError

_ESCI_GRADES = {"E": 3, "S": 2, "C": 1, "I": 0}
_ESCI_EXAMPLES = "shopping_queries_dataset_examples.parquet"
_ESCI_PRODUCTS = "shopping_queries_dataset_products.parquet"
_WANDS_GRADES = {"Exact": 2, "Partial": 1, "Irrelevant": 0}
_MOST_FEATURES = 12


def esci(source: Path, target: writing.Target) -> None:
    """Convert the Shopping Queries Dataset: graded 3 exact, 2 substitute, 1 complement, 0 none.

    Options: ``locale`` (us, es, jp), ``split`` (test, train), ``version`` (small, large).
    """
    import duckdb

    chosen = {
        "locale": target.option("locale", "us", ("us", "es", "jp")),
        "split": target.option("split", "test", ("test", "train")),
    }
    version = target.option("version", "small", ("small", "large"))
    examples, products = the_file(source, _ESCI_EXAMPLES), the_file(source, _ESCI_PRODUCTS)
    judged = (
        "SELECT query_id, query, product_id, esci_label FROM read_parquet($examples) WHERE "
        f"product_locale = $locale AND split = $split AND {version}_version = 1"
    )
    wanted = f"SELECT DISTINCT product_id FROM ({judged})"
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(
                f"SELECT product_id, product_title, product_description, product_bullet_point, "
                f"product_brand, product_color FROM read_parquet($products) JOIN ({wanted}) "
                "USING (product_id) WHERE product_locale = $locale ORDER BY product_id",
                {**chosen, "examples": str(examples), "products": str(products)},
            ).fetchall()
            target.products(_esci_product(*row) for row in rows)
            known = {row[0] for row in rows if row[1]}
            by_query = connection.execute(
                "SELECT query_id, any_value(query), list(product_id ORDER BY product_id), "
                f"list(esci_label ORDER BY product_id) FROM ({judged}) GROUP BY 1 ORDER BY 1",
                {**chosen, "examples": str(examples)},
            ).fetchall()
    except duckdb.Error as error:
        raise DataError(f"{source}: not as ESCI is documented: {error}") from error
    target.cases(
        _judged_case(str(query_id), query, zip(ids, labels, strict=True), _ESCI_GRADES, known)
        for query_id, query, ids, labels in by_query
        if known.intersection(ids)
    )
    target.arguments += ["--rankers", "random,recall,llm", "--compare-with", "recall"]
    target.notes.append(
        "gains are 3, 2, 1, 0 for E, S, C, I; the KDD Cup took 1, .1, .01, 0, so that its nDCG is "
        "another number"
    )


def wands(source: Path, target: writing.Target) -> None:
    """Convert WANDS: graded 2 exact, 1 partial, 0 irrelevant; its files are cut by tabs."""
    names: dict[str, str] = {}
    target.products(_wands_products(the_file(source, "product.csv"), names))
    queries = {
        str(row["query_id"]): (str(row["query"]), str(row.get("query_class") or ""))
        for row in rows_of(the_file(source, "query.csv"))
    }
    judged: dict[str, dict[str, str]] = {}
    for row in rows_of(the_file(source, "label.csv")):
        judged.setdefault(str(row["query_id"]), {})[str(row["product_id"])] = str(row["label"])
    target.cases(
        _judged_case(query_id, text, labels.items(), _WANDS_GRADES, names, segment)
        for query_id, labels in judged.items()
        for text, segment in [queries.get(query_id, ("", ""))]
        if text and names.keys() & labels.keys()
    )
    target.arguments += ["--rankers", "random,recall,llm", "--compare-with", "recall"]
    target.notes.append("all judged products of a query are its candidates: 487 on average")


def _judged_case(
    case_id: str,
    query: str,
    labels: Any,
    grades: dict[str, int],
    known: Any,
    segment: str = "",
) -> Case:
    found = [(str(product), grades.get(label, 0)) for product, label in labels if product in known]
    return Case(
        case_id=case_id,
        query=" ".join(query.split()),
        candidates=tuple(product for product, _ in found),
        targets=tuple(Target(product_id=each, grade=grade) for each, grade in found if grade),
        segments=(segment,) if segment else (),
    )


def _esci_product(
    product_id: str,
    title: str | None,
    description: str | None,
    bullets: str | None,
    brand: str | None,
    colour: str | None,
) -> dict[str, Any]:
    text = " ".join(part for part in (bullets, description) if part)
    return {
        "product_id": product_id,
        "title": title,
        "description": text or None,
        "brand": brand,
        "attributes": {"colour": colour} if colour else {},
    }


def _wands_products(path: Path, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    for row in rows_of(path):
        product_id, title = str(row["product_id"]), str(row.get("product_name") or "")
        if not title:
            continue
        names[product_id] = title
        path_of = row.get("category hierarchy") or row.get("category_hierarchy") or ""
        parts = [part.strip() for part in str(path_of).split("/") if part.strip()]
        yield {
            "product_id": product_id,
            "title": title,
            "description": row.get("product_description") or None,
            "category": " > ".join(parts) or row.get("product_class") or None,
            "attributes": _features(str(row.get("product_features") or "")),
        }


def _features(text: str) -> dict[str, str]:
    pairs = [part.partition(":") for part in text.split("|")]
    found = {name.strip(): value.strip() for name, _, value in pairs if value.strip()}
    return dict(list(found.items())[:_MOST_FEATURES])
