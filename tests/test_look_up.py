"""A request looks up what it is about within its deadline, or takes the short way."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Timer
from typing import Any

import anyio
import pytest

from reranker import Reranker, SearchRequest, Settings, build
from reranker.deadlines import Deadline, Finishing
from reranker.models.embedded import EmbeddedModel
from reranker.ports import ProfileStore
from reranker.schema import Filters, RerankResult
from reranker.windows import Questions, WindowJudge
from reranker.workers import in_turn, in_worker
from retrieval.hybrid import HybridIndex
from retrieval.profiles import DuckDBProfileStore

pytestmark = pytest.mark.alone

AT = datetime(2026, 3, 5, tzinfo=UTC)
DRAWING = SearchRequest(query="tablet for drawing", user_id="B", at=AT, deadline_ms=4000)


@pytest.fixture(scope="module")
def settings(seed_store: Path) -> Settings:
    return Settings.load(None, {"store.path": seed_store})


@pytest.fixture
def shelf(settings: Settings, model: EmbeddedModel) -> Iterator[Reranker]:
    with build(settings, model=model) as shelf:
        yield shelf


def _while_turns_are_taken(act: Callable[[], object]) -> object:
    """Do something while other requests have all turns, and give none back."""
    release = Event()

    async def run() -> object:
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(in_turn, release.wait)
            await anyio.sleep(0.05)
            try:
                return await act()
            finally:
                release.set()

    return anyio.run(run)


def _ids(result: RerankResult) -> list[str]:
    return [item.product.product_id for item in result.items]


def _codes(result: RerankResult) -> list[str]:
    return [issue.code for issue in result.issues]


def test_who_has_no_turn_in_half_of_his_time_takes_the_short_way(shelf: Reranker) -> None:
    request = DRAWING.model_copy(update={"deadline_ms": 600})
    result = _while_turns_are_taken(lambda: shelf.asearch(request))
    assert result.outcome == "fallback"
    assert _codes(result) == ["look_up_cut"]
    assert result.deadline_hit
    assert not result.personalised
    assert _ids(result)[0] == "tablet"
    assert len(set(_ids(result))) == len(result.items)
    assert all(item.lexical_rank and item.dense_rank is None for item in result.items)


def test_the_short_way_keeps_to_the_filters(shelf: Reranker) -> None:
    cheap = DRAWING.model_copy(update={"deadline_ms": 300, "filters": Filters(max_price=1)})
    assert _while_turns_are_taken(lambda: shelf.asearch(cheap)).items == ()


@pytest.mark.parametrize("query", [None, "zzz qqq"])
def test_the_short_way_finds_something_where_words_find_nothing(
    shelf: Reranker, query: str | None
) -> None:
    request = SearchRequest(query=query, user_id="B", at=AT, deadline_ms=3000)
    result = _while_turns_are_taken(lambda: shelf.asearch(request))
    assert sorted(_ids(result)) == ["laptop", "smartphone", "tablet"]
    assert _codes(result) == ["look_up_cut"]


def test_the_short_way_asks_no_database_what_sells(
    shelf: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = SearchRequest(query=None, at=AT, deadline_ms=300)
    usual = _ids(shelf.search(request.model_copy(update={"deadline_ms": None})))
    release = Event()
    monkeypatch.setattr(DuckDBProfileStore, "popular", lambda *_, **__: release.wait(20) and ())
    result = shelf.search(request)
    release.set()
    assert result.timings.total_ms < 2000
    assert _codes(result) == ["look_up_cut"]
    assert sorted(_ids(result)) == sorted(usual)


def test_what_takes_too_long_after_all_is_not_waited_for_and_holds_up_nobody(
    shelf: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Event()
    monkeypatch.setattr(HybridIndex, "search", lambda *_, **__: release.wait(20) and ())
    unknown = SearchRequest(query="zzz qqq", at=AT, deadline_ms=300)
    found: dict[int, RerankResult] = {}

    async def search(number: int, request: SearchRequest) -> None:
        found[number] = await shelf.asearch(request)

    async def crowd() -> None:
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(search, number, unknown)
            group.start_soon(search, 12, DRAWING.model_copy(update={"deadline_ms": 600}))

    _while_turns_are_taken(crowd)
    release.set()
    known = found.pop(12)
    assert _ids(known)[0] == "tablet"
    for result in (known, *found.values()):
        assert result.timings.total_ms < 3000
        assert (result.outcome, _codes(result)) == ("fallback", ["look_up_cut"])
    assert not any(result.items for result in found.values())


def test_the_callers_own_candidates_are_all_kept(shelf: Reranker) -> None:
    candidates = shelf.recall(DRAWING)
    request = DRAWING.model_copy(update={"deadline_ms": 300})
    result = _while_turns_are_taken(lambda: shelf.arerank(request, candidates))
    assert _ids(result) == [candidate.product.product_id for candidate in candidates]
    assert _codes(result) == ["look_up_cut"]
    nobody = request.model_copy(update={"user_id": None, "deadline_ms": 60_000})
    stranger = _while_turns_are_taken(lambda: shelf.arerank(nobody, candidates))
    assert stranger.outcome == "model", "there is nothing to look up, so there is no wait"


@pytest.mark.parametrize("user", ["B", None])
def test_own_candidates_come_back_in_time_while_all_threads_are_busy(
    shelf: Reranker, user: str | None
) -> None:
    candidates = shelf.recall(DRAWING)
    request = DRAWING.model_copy(update={"user_id": user, "deadline_ms": 400})

    async def rank() -> tuple[RerankResult, float]:
        release = Event()
        Timer(2.0, release.set).start()
        async with anyio.create_task_group() as group:
            for act in (in_turn, in_worker):
                for _ in range(8):
                    group.start_soon(act, release.wait)
            await anyio.sleep(0.05)
            started = time.monotonic()
            result = await shelf.arerank(request, candidates)
            seconds = time.monotonic() - started
            release.set()
        return result, seconds

    result, seconds = anyio.run(rank)
    assert seconds < 1.5
    assert result.deadline_hit
    assert result.outcome == "fallback"
    assert _ids(result) == [candidate.product.product_id for candidate in candidates]


def test_what_was_found_is_kept_where_the_prompts_come_too_late(
    shelf: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Event()
    real = WindowJudge.questions

    def slow(judge: WindowJudge, *windows: Any) -> Questions:
        release.wait(3)
        return real(judge, *windows)

    monkeypatch.setattr(WindowJudge, "questions", slow)
    result = shelf.search(DRAWING.model_copy(update={"deadline_ms": 800}))
    release.set()
    assert _codes(result) == ["deadline"]
    assert result.outcome == "fallback"
    assert all(item.dense_rank for item in result.items)
    assert any(item.interest for item in result.items), "the shopper is known"
    assert result.timings.total_ms < 2500


def test_a_look_up_that_does_not_end_is_left_behind_and_closing_waits_for_it(
    settings: Settings, model: EmbeddedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, ended = Event(), Event()
    real: Callable[..., object] = DuckDBProfileStore.profile

    def slow(store: ProfileStore, *asked: object) -> object:
        release.wait(20)
        try:
            return real(store, *asked)
        finally:
            ended.set()

    with build(settings, model=model) as shelf:
        monkeypatch.setattr(DuckDBProfileStore, "profile", slow)
        result = shelf.search(DRAWING.model_copy(update={"deadline_ms": 500}))
        assert not ended.is_set()
        Timer(0.2, release.set).start()
    assert ended.is_set()
    assert _codes(result) == ["look_up_cut"]
    assert _ids(result)[0] == "tablet"


def test_without_a_deadline_it_waits_for_its_turn(shelf: Reranker) -> None:
    patient = DRAWING.model_copy(update={"deadline_ms": None})

    async def run() -> tuple[bool, RerankResult]:
        release = Event()
        found: list[RerankResult] = []

        async def search() -> None:
            found.append(await shelf.asearch(patient))

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(in_turn, release.wait)
            await anyio.sleep(0.05)
            group.start_soon(search)
            await anyio.sleep(0.3)
            waited = not found
            release.set()
        return waited, found[0]

    waited, result = anyio.run(run)
    assert waited
    assert result.outcome == "model"
    assert result.personalised


def test_the_time_kept_back_follows_what_finishing_takes_and_fades() -> None:
    finishing, two_seconds = Finishing(), Deadline.of(2000)
    assert finishing.seconds(Deadline.of(None)) == 0
    first = finishing.seconds(two_seconds)
    finishing.ended(time.monotonic() + 1, two_seconds)
    assert finishing.seconds(two_seconds) == first, "an answer before it was due tells nothing"
    finishing.ended(time.monotonic() - 0.08, two_seconds)
    assert 0.08 <= finishing.seconds(two_seconds) < 0.2
    assert finishing.seconds(Deadline.of(100)) == pytest.approx(0.025), "a quarter at most"
    for _ in range(300):
        finishing.ended(time.monotonic() - 0.001, two_seconds)
    lowest = finishing.seconds(two_seconds)
    assert lowest < 0.02
    finishing.ended(time.monotonic() + 1, two_seconds)
    assert finishing.seconds(two_seconds) == lowest


def test_one_stall_is_soon_forgotten() -> None:
    finishing, one_second = Finishing(), Deadline.of(1000)
    finishing.ended(time.monotonic() - 6, one_second)
    assert finishing.seconds(Deadline.of(20_000)) == pytest.approx(0.25)
    for _ in range(50):
        finishing.ended(time.monotonic() + 0.1, one_second)
    assert finishing.seconds(one_second) == pytest.approx(0.1)


def test_a_deadline_that_nobody_could_keep_teaches_nothing_about_others(shelf: Reranker) -> None:
    patient = Deadline.of(60_000)
    before = shelf._finishing.seconds(patient)
    hasty = DRAWING.model_copy(update={"deadline_ms": 1})
    for _ in range(5):
        assert shelf.search(hasty).outcome == "fallback"
    assert shelf._finishing.seconds(patient) < before + 0.2
