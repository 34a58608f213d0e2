"""Complete Journey: the first purchase of a product type after a day, out of all of that type.

The query is the product type, the history what the household bought before; whether the product
had been bought before (``repeat``) or not is reported apart.
"""

from collections.abc import Iterator
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from eval.cases.values import Case, Target
from eval.convert import writing
from eval.convert.drawing import drawn_beside
from eval.datasets import complete_journey
from reranker.models.weights import cache_folder

_CUT = "2017-12-04"
_FIRST = """
    WITH kind AS (
        SELECT product_id, category, split_part(category, ' > ', -1) AS type
        FROM read_parquet($products) WHERE category IS NOT NULL
    ), bought AS (
        SELECT user_id, product_id, category, "at"::TIMESTAMP AS "at",
            row_number() OVER (PARTITION BY user_id, category ORDER BY "at", product_id) AS place
        FROM read_parquet($events) JOIN kind USING (product_id)
        WHERE kind = 'purchase' AND "at"::TIMESTAMP >= $cut::TIMESTAMP
    )
    SELECT user_id, category, product_id, epoch_us("at") FROM bought WHERE place = 1
    ORDER BY user_id, category
"""
_OF_TYPE = """
    SELECT category, list(product_id ORDER BY product_id) FROM read_parquet($products)
    WHERE category IS NOT NULL GROUP BY category
"""
_BEFORE = """
    SELECT user_id, list(product_id ORDER BY "at", product_id),
        list(epoch_us("at"::TIMESTAMP) ORDER BY "at", product_id)
    FROM read_parquet($events)
    WHERE kind = 'purchase' AND "at"::TIMESTAMP < $cut::TIMESTAMP GROUP BY user_id
"""


def convert(source: Path, target: writing.Target) -> None:
    """Convert it; the data is fetched where it is not there.

    Options: ``cut`` (2017-12-04), ``limit`` of cases (2000, a seeded sample; 0: all), ``history``
    (longest, 1000; the latest are kept), ``most`` candidates of a type (0: all of them).
    """
    import duckdb

    cut = target.option("cut", _CUT)
    limit, longest = target.number("limit", 2000), target.number("history", 1000)
    most = target.number("most", 0)
    folder = source if (source / "events.parquet").exists() else _cached()
    data = complete_journey(folder, progress=target.progress)
    files = {"products": str(data.products), "events": str(data.events)}
    with duckdb.connect() as connection:
        first = connection.execute(_FIRST, {**files, "cut": cut}).fetchall()
        of_type = dict(connection.execute(_OF_TYPE, {"products": files["products"]}).fetchall())
        before = {
            user: (ids, times)
            for user, ids, times in connection.execute(
                _BEFORE, {"events": files["events"], "cut": cut}
            ).fetchall()
        }
    chosen = _sampled(first, limit)
    target.use("--products", data.products)
    target.cases(_cases(chosen, of_type, before, longest, most))
    target.use("--histories", data.events)
    target.arguments += ["--cut", cut, "--prove-time", "50"]
    target.arguments += ["--rankers", "random,popularity,own-history,cooccurrence,recall,interest"]
    target.arguments += ["--compare-with", "popularity"]
    target.notes.append(
        f"{len(chosen)} of {len(first)} first purchases of a product type from {cut} on; prices "
        "are medians of the whole year, which look beyond the cut"
    )
    if data.campaigns is not None:
        target.notes.append(
            f"offers of campaigns and redeemed coupons, as events to import: {data.campaigns}"
        )


def _cached() -> Path:
    return cache_folder() / "datasets" / "complete-journey"


def _sampled(rows: list[Any], limit: int) -> list[Any]:
    if not limit or limit >= len(rows):
        return rows
    drawn = sorted(rows, key=lambda row: blake2b(f"{row[0]}\n{row[1]}".encode()).digest())[:limit]
    return sorted(drawn)


def _cases(
    chosen: list[Any],
    of_type: dict[str, list[str]],
    before: dict[str, tuple[list[str], list[int]]],
    longest: int,
    most: int,
) -> Iterator[Case]:
    for user, category, product_id, at_us in chosen:
        ids, times = before.get(user, ([], []))
        kept = slice(-longest, None) if longest else slice(0, 0)
        candidates = tuple(of_type[category])
        if most and len(candidates) > most:
            candidates = drawn_beside(product_id, candidates, f"{user}\n{category}", most)
        yield Case(
            case_id=blake2b(f"{user}\n{category}".encode(), digest_size=8).hexdigest(),
            user_id=user,
            query=category.rpartition(" > ")[2],
            at=_moment(at_us),
            history=tuple(ids[kept]),
            history_at=tuple(_moment(time) for time in times[kept]),
            candidates=candidates,
            targets=(Target(product_id=product_id),),
            segments=("repeat" if product_id in ids else "non-repeat",),
        )


def _moment(at_us: int) -> datetime:
    from datetime import UTC, timedelta

    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
