"""Logged lists of our own store as cases: what was shown is ranked again."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from eval.cases.values import Case, Target
from eval.convert import writing
from eval.logs import read_impressions
from reranker.errors import ConfigError, DataError
from reranker.schema import Impression

_CHOSEN = 1


def convert(source: Path, target: writing.Target) -> None:
    """Convert a file of impressions with their grades.

    The candidates are what was shown, in its order (the ranker ``as-given`` is the shop's own);
    the history is what the shopper chose on earlier lists of the file.

    Options: ``products``, the file of the catalogue (needed); ``candidates``: ``shown``, or
    ``pool`` to add behind them what each list was drawn from, which estimates of what rankers would
    have earned need where a list shows a part of it.
    """
    products = target.option("products", "")
    if not products:
        raise ConfigError("convert impressions: name the products: --option products=FILE")
    whole = target.option("candidates", "shown", ("shown", "pool")) == "pool"
    logged = list(read_impressions(source))
    if whole and (without := sum(_hides_its_pool(each) for each in logged)):
        raise DataError(
            f"{source}: {without} of {len(logged)} lists do not tell what they were drawn from "
            "(field pool, see reranker.impressions): take --option candidates=shown"
        )
    target.use("--products", Path(products))
    target.cases(_cases(logged, whole=whole))
    target.use("--impressions", source)
    target.arguments += ["--rankers", "as-given,random,recall,interest,llm,full"]
    known = sum(item.propensity is not None for each in logged for item in each.items)
    shown = sum(len(each.items) for each in logged)
    target.notes.append(
        f"{len(logged)} lists; {known} of {shown} shown items have a propensity. What was never "
        "shown cannot be found right: compare rankers by the estimates from the log as well"
    )


def _hides_its_pool(each: Impression) -> bool:
    """Tell whether a list may have been drawn from more; one shown as ranked was not drawn."""
    return not each.pool and any(item.propensity != 1 for item in each.items)


def _cases(logged: Sequence[Impression], *, whole: bool) -> Iterator[Case]:
    chosen: dict[str, list[tuple[datetime, str]]] = {}
    timed = [(each.at, each) for each in logged if each.at is not None]
    rest = [each for each in logged if each.at is None]
    for each in (*(one for _, one in sorted(timed, key=lambda pair: pair[0])), *rest):
        before: list[tuple[datetime, str]] = []
        if each.user_id is not None and each.at is not None:
            before = [entry for entry in chosen.get(each.user_id, []) if entry[0] < each.at]
        items = sorted(each.items, key=lambda item: item.position)
        pool = each.pool if whole else ()
        yield Case(
            case_id=each.request_id,
            user_id=each.user_id,
            query=each.query or None,
            at=each.at,
            history=tuple(product for _, product in before),
            history_at=tuple(then for then, _ in before),
            candidates=tuple(dict.fromkeys((*(item.product_id for item in items), *pool))),
            targets=tuple(
                Target(product_id=item.product_id, grade=item.grade)
                for item in items
                if item.grade >= _CHOSEN
            ),
        )
        if each.user_id is not None and each.at is not None:
            found = [(each.at, item.product_id) for item in items if item.grade >= _CHOSEN]
            chosen.setdefault(each.user_id, []).extend(found)
