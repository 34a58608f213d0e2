"""Amazon Reviews 2023: the next product that somebody reviewed, over a whole category.

Columns as documented at amazon-reviews-2023.github.io: ``benchmark/5core/timestamp_w_his`` (or
``last_out_w_his``) holds CSV files of user_id, parent_asin, rating, timestamp (milliseconds) and
history (ids cut by spaces); ``meta_CATEGORY.jsonl`` holds the products.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.cases.fields import moment_of
from eval.cases.values import Case, Target
from eval.convert import writing
from eval.convert.writing import rows_of, the_file
from reranker.errors import ConfigError

_PURCHASE = ("user_id", "parent_asin", "rating", "timestamp", "history")
_PRODUCT = ("parent_asin", "title", "description", "features", "price", "store", "categories",
            "main_category")  # fmt: skip
_LONGEST = 2000


def convert(source: Path, target: writing.Target) -> None:
    """Convert one category.

    Options: ``category`` such as Video_Games (needed), ``split`` (test, valid), ``limit`` of cases
    (the latest; 0: all).
    """
    category = target.option("category", "")
    if not category:
        raise ConfigError(
            "convert amazon-reviews: name the category: --option category=Video_Games"
        )
    split = target.option("split", "test", ("test", "valid"))
    limit = target.number("limit", 5000)
    train = the_file(source, f"{category}.train.csv")
    evaluated = the_file(source, f"{category}.{split}.csv")
    rows = sorted(rows_of(evaluated, _PURCHASE), key=lambda row: int(row["timestamp"]))
    wanted = {str(row["parent_asin"]) for path in (train, evaluated) for row in
              rows_of(path, _PURCHASE)}  # fmt: skip
    wanted |= {each for row in rows for each in _history(row)}
    meta = the_file(source, f"meta_{category}.jsonl.gz", f"meta_{category}.jsonl")
    target.products(_products(meta, wanted))
    cases = [_case(number, row) for number, row in enumerate(rows, 1)]
    chosen = cases[-limit:] if limit else cases
    target.cases(chosen)
    target.purchases("--train", _purchases(train))
    target.arguments += ["--rankers", "random,popularity,cooccurrence,recall,llm"]
    target.arguments += ["--measures", "HitRate@10,nDCG@10"]
    target.notes.append(
        f"{len(chosen)} of {len(rows)} cases. Take the timestamp_w_his split: in last_out_w_his "
        "what trains one shopper is later than what tests another"
    )


def _case(number: int, row: dict[str, Any]) -> Case:
    return Case(
        case_id=f"{row['timestamp']}-{number}",
        user_id=str(row["user_id"]),
        at=moment_of(int(row["timestamp"])),
        history=tuple(_history(row)),
        targets=(Target(product_id=str(row["parent_asin"])),),
    )


def _purchases(train: Path) -> Iterator[dict[str, Any]]:
    """Return what each shopper reviewed, in order; the histories of the rows repeat it."""
    found: dict[str, list[tuple[int, str]]] = {}
    for row in rows_of(train, _PURCHASE):
        entry = (int(row["timestamp"]), str(row["parent_asin"]))
        found.setdefault(str(row["user_id"]), []).append(entry)
    for user, entries in found.items():
        entries.sort()
        yield {
            "user_id": user,
            "history": [product for _, product in entries],
            "history_at": [milliseconds / 1000 for milliseconds, _ in entries],
        }


def _history(row: dict[str, Any]) -> list[str]:
    return str(row.get("history") or "").split()


def _products(meta: Path, wanted: set[str]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for row in rows_of(meta, _PRODUCT):
        product_id, title = str(row.get("parent_asin") or ""), str(row.get("title") or "").strip()
        if product_id in wanted and product_id not in seen:
            seen.add(product_id)
            categories = row.get("categories") or [row.get("main_category") or ""]
            text = " ".join(
                map(str, [*(row.get("features") or []), *(row.get("description") or [])])
            )
            yield {
                "product_id": product_id,
                "title": title or product_id,
                "description": text[:_LONGEST] or None,
                "brand": row.get("store") or None,
                "category": " > ".join(str(each) for each in categories if each) or None,
                "price": _price(row.get("price")),
                "currency": "USD" if _price(row.get("price")) is not None else None,
            }


def _price(value: Any) -> float | None:
    try:
        price = float(str(value).replace("$", "").replace(",", ""))
    except ValueError:
        return None
    return price if price >= 0 and price < float("inf") else None
