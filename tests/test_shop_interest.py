"""The interest learnt from a store: who counts, when it may be used, and that it is never half."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from interest_shop import KINDS, LEARNT, START, name, purchases, table_of, write_shop
from reranker import Reranker, SearchRequest, Settings, build
from reranker.cli.app import app
from reranker.errors import ConfigError, DataError
from reranker.learned_interest import ShopInterest
from reranker.learned_interest.learning import learn_interest
from reranker.learned_interest.stored import StoredInterest
from reranker.models.embedded import EmbeddedModel
from reranker.schema import (
    BehaviourEvent,
    Candidate,
    EventKind,
    Product,
    Prompt,
    RankedItem,
    SlotScores,
    UserProfile,
)
from reranker.wiring import catalogue_file, index_catalogue
from retrieval.behaviour import BehaviourStore
from retrieval.product_table import ProductTable


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def learnt(shop: Path) -> StoredInterest:
    stored = StoredInterest(shop / "interest")
    with BehaviourStore(shop, read_only=True) as store:
        learn_interest(store, table_of(), stored, LEARNT)
    return stored


def profile_of(*bought: str) -> UserProfile:
    """Return a profile with purchases, the newest first."""
    counts = {each: bought.count(each) for each in dict.fromkeys(bought)}
    return UserProfile(
        user_id="u", as_of=LEARNT, purchases=counts, event_count=len(bought), summary=""
    )


def test_what_goes_with_the_latest_purchases_comes_first(learnt: StoredInterest) -> None:
    interest = ShopInterest(learnt, table_of())
    asked = [name(kind, 7) for kind in range(3)]
    for kind in range(3):
        profile = profile_of(name(kind, 2), name(kind, 3))
        found = interest.of(profile, asked, LEARNT)
        assert found is not None
        odds = [one.odds for one in found]
        assert np.argmax(odds) == kind
        assert found[kind].goes_with in {f"{KINDS[kind]} 2", f"{KINDS[kind]} 3"}
        assert all(found[other].goes_with is None for other in range(3) if other != kind)


def test_strangers_are_told_what_sells(learnt: StoredInterest) -> None:
    interest = ShopInterest(learnt, table_of())
    found = interest.of(None, [name(0, 0), name(0, 7)], LEARNT)
    assert found is not None
    assert found[0].odds > found[1].odds
    assert found[0].sales == 9 > found[1].sales
    assert interest.of(None, [], LEARNT) == ()


def test_what_may_come_next_goes_with_the_latest_purchases(learnt: StoredInterest) -> None:
    interest = ShopInterest(learnt, table_of())
    for kind in range(3):
        likely = interest.likely(profile_of(name(kind, 2), name(kind, 3)), 8, LEARNT)
        assert len(set(likely)) == len(likely) == 8
        assert all(each.startswith(KINDS[kind]) for each in likely[:5])
    assert set(interest.likely(None, 3, LEARNT)) == {name(kind, 0) for kind in range(3)}
    assert interest.likely(None, 3, START) == ()
    fewer, _ = table_of().delete([name(0, 0)])
    assert name(0, 0) not in ShopInterest(learnt, fewer).likely(None, 100, LEARNT)


def test_nothing_goes_with_itself(learnt: StoredInterest) -> None:
    interest = ShopInterest(learnt, table_of())
    profile = profile_of(name(0, 2), name(0, 3))
    found = interest.of(profile, [name(0, 2), name(0, 3)], LEARNT)
    assert found is not None
    assert [one.goes_with for one in found] == ["tea 3", "tea 2"]
    alone = interest.of(profile_of(name(0, 2)), [name(0, 2)], LEARNT)
    assert alone is not None
    assert alone[0].goes_with is None


def test_what_a_single_shopper_bought_together_is_not_kept(tmp_path: Path) -> None:
    table = table_of(12)
    with BehaviourStore(tmp_path) as store:
        lone = [
            BehaviourEvent(
                user_id="lone",
                kind=EventKind.PURCHASE,
                at=START + timedelta(days=day),
                product_id=name(day % 2, 11),
            )
            for day in range(4)
        ]
        store.append([*purchases(90), *lone])
        stored = StoredInterest(tmp_path / "interest")
        learn_interest(store, table, stored, LEARNT)
    current = stored.current or ""
    model, identities = stored.load(current, stored.manifest(current))
    signals, rows = model.signals, table.rows_of_ids([name(0, 11), name(1, 11)])
    assert identities.rows_in(table)[rows].tolist() == rows.tolist()
    assert signals.popularity[rows].tolist() == [1.0, 1.0]
    assert not signals.factors[rows].any()
    assert signals.together[rows].nnz == signals.follows[rows].nnz == 0


def test_nothing_of_it_is_told_at_moments_before_it_was_learnt(learnt: StoredInterest) -> None:
    interest = ShopInterest(learnt, table_of())
    earlier = LEARNT - timedelta(microseconds=1)
    assert interest.of(None, [name(0, 0)], earlier) is None
    assert not interest.knows(earlier)
    assert interest.knows(LEARNT)


def test_purchases_from_the_moment_on_are_not_counted(shop: Path, tmp_path: Path) -> None:
    stored = StoredInterest(tmp_path / "interest")
    with BehaviourStore(shop, read_only=True) as store:
        early = learn_interest(store, table_of(), stored, START + timedelta(days=2))
    assert early.purchases == 90 * 2
    assert early.shoppers == 90


def test_who_consents_to_no_count_is_not_counted(tmp_path: Path) -> None:
    with BehaviourStore(tmp_path) as store:
        store.append(purchases(90))
        store.set_consent("shopper 0", "analytics", granted=False)
        done = learn_interest(store, table_of(), StoredInterest(tmp_path / "i"), LEARNT)
    assert done.shoppers == 89


def test_too_few_shoppers_are_said_with_what_happens_instead(tmp_path: Path) -> None:
    with BehaviourStore(tmp_path) as store:
        store.append(purchases(9))
        with pytest.raises(DataError, match=r"too few of 9 shoppers .* 60 who .* hand-set rule"):
            learn_interest(store, table_of(), StoredInterest(tmp_path / "i"), LEARNT)
    assert not (tmp_path / "i").exists()
    interest = ShopInterest(StoredInterest(tmp_path / "i"), table_of())
    assert interest.of(None, [name(0, 0)], LEARNT) is None


def test_a_catalogue_that_has_changed_since_is_told_apart(learnt: StoredInterest) -> None:
    fewer, _ = table_of().delete([name(0, 0)])
    more, *_ = fewer.upsert([Product(product_id="new", title="tea new")])
    asked, profile = [name(1, 0), name(2, 7), "new"], profile_of(name(1, 2), "new", name(0, 0))
    now = ShopInterest(learnt, more).of(profile, asked, LEARNT)
    then = ShopInterest(learnt, table_of()).of(profile_of(name(1, 2)), asked[:2], LEARNT)
    assert now is not None
    assert then is not None
    assert [one.odds for one in now[:2]] == pytest.approx([one.odds for one in then])
    assert now[2].sales is None, "what is new is not said to sell nothing"
    assert now[2].odds < max(now[0].odds, now[1].odds)


def test_a_catalogue_begun_anew_gives_keys_to_other_products(
    learnt: StoredInterest,
) -> None:
    table = table_of()
    other = ProductTable.empty().upsert(reversed(table.products(range(len(table)))))[0]
    asked = [name(0, 0), name(2, 9)]
    assert table.rows_of_ids(asked).tolist() != other.rows_of_ids(asked).tolist()
    found = ShopInterest(learnt, other).of(None, asked, LEARNT)
    assert found is not None
    assert [one.sales for one in found] == [None, None]
    assert ShopInterest(learnt, other).likely(None, 9, LEARNT) == ()


def test_moments_and_catalogues_that_teach_nothing_are_refused(shop: Path, tmp_path: Path) -> None:
    stored = StoredInterest(tmp_path / "interest")
    with BehaviourStore(shop, read_only=True) as store:
        with pytest.raises(ConfigError, match=r"--as-of .* lies in the future"):
            learn_interest(store, table_of(), stored, datetime.now(UTC) + timedelta(hours=1))
        with pytest.raises(DataError, match="the catalogue holds 0 products"):
            learn_interest(store, ProductTable.empty(), stored, LEARNT)


@pytest.fixture(scope="module")
def shelf(shop: Path, learnt: StoredInterest, model: EmbeddedModel):
    assert learnt.current
    settings = Settings.load(None, {"store.path": shop})
    assert catalogue_file(settings).exists()
    index_catalogue(settings)
    with build(settings, model=model) as shelf:
        yield shelf


def test_a_search_tells_the_model_and_the_reader_what_sells(shelf: Reranker) -> None:
    request = SearchRequest(query="rope", user_id="shopper 2", at=LEARNT, k=3)
    result = shelf.search(request)
    best = next(item for item in result.items if item.product.product_id == name(2, 0))
    assert "sales 9 of 9" in best.facts
    assert any(fact.startswith("goes with rope") for item in result.items for fact in item.facts)
    assert all(item.interest is not None and 0 < item.interest < 1 for item in result.items)
    assert {candidate.sales for candidate in shelf.recall(request)} > {7, 9}
    before = request.model_copy(update={"at": LEARNT - timedelta(seconds=1)})
    assert all(candidate.sales is None for candidate in shelf.recall(before))


def test_the_model_is_told_of_each_product_what_it_sells(
    shelf: Reranker, model: EmbeddedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []
    read = model.read

    async def watched(asked: Sequence[Prompt], **how: Any) -> tuple[SlotScores, ...]:
        prompts.extend("\n".join(str(each.content) for each in one.messages) for one in asked)
        return await read(asked, **how)

    monkeypatch.setattr(model, "read", watched)
    request = SearchRequest(query="rope", user_id="shopper 2", at=LEARNT, k=10)
    untold = [
        Candidate(product=candidate.product, recall_rank=rank, recall_score=1.0)
        for rank, candidate in enumerate(reversed(shelf.recall(request)), start=1)
    ]
    for ask in (shelf.search, lambda request: shelf.rerank(request, untold)):
        result = ask(request)
        told = set(re.findall(r"(\w+ \d+) \| Things \| sales (\d)", "\n".join(prompts)))
        prompts.clear()
        judged = [item for item in result.items if item.llm_logprob is not None]
        assert told == {(item.product.title, _level(item)) for item in judged}
        assert len(judged) >= 10
        assert len({level for _, level in told}) > 2


def _level(item: RankedItem) -> str:
    (level,) = (fact.split()[1] for fact in item.facts if fact.startswith("sales "))
    return level


def test_a_stranger_sees_what_sells_before_what_is_recalled_alike(shelf: Reranker) -> None:
    result = shelf.search(SearchRequest(query="tea", at=LEARNT, k=3))
    best = next(item for item in result.items if item.product.product_id == name(0, 0))
    assert best.interest == max(item.interest or 0 for item in result.items)


def test_the_command_line_learns_and_shows(shop: Path, learnt: StoredInterest) -> None:
    run = CliRunner().invoke
    ended = run(app, ["interest", "learn", "--as-of", "2026-01-31", "--store", str(shop)])
    assert ended.exit_code == 0, ended.output
    assert "450 purchases of 90 shoppers before 2026-01-31" in ended.output
    shown = run(app, ["interest", "show", "--store", str(shop), "--json"])
    assert '"chosen before"' in shown.output
