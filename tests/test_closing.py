"""How requests end that are interrupted, come too late for a closed shelf, or after a fork."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any

import anyio
import pytest

from reranker import Reranker, SearchRequest, Settings, ShelfwiseError, build
from reranker.models.embedded import EmbeddedModel
from reranker.models.tokenizing import HFTokenizer
from reranker.schema import Prompt, RerankResult, SlotScores
from scripted_model import ScriptedModel, prefer_last_product

pytestmark = pytest.mark.alone

LAPTOP = SearchRequest(query="laptop")
KNOWN = SearchRequest(query="laptop", user_id="A")


@pytest.fixture(scope="module")
def settings(seed_store: Path) -> Settings:
    return Settings.load(None, {"store.path": seed_store})


class Patient(ScriptedModel):
    """A model that is about to answer, until it is told that nobody waits any more."""

    def __init__(self, tokenizer: HFTokenizer) -> None:
        super().__init__(tokenizer, prefer_last_product)
        self.asked, self.left = Event(), Event()

    async def read(
        self, prompts: Sequence[Prompt], *, scope: str | None = None, seconds: float = math.inf
    ) -> tuple[SlotScores, ...]:
        self.asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.left.set()
        raise AssertionError


def test_an_interrupted_search_is_ended(settings: Settings, tokenizer: HFTokenizer) -> None:
    patient = Patient(tokenizer)
    with build(settings, model=patient) as shelf:

        def interrupt() -> None:
            assert patient.asked.wait(30)
            os.kill(os.getpid(), signal.SIGINT)

        timer = Timer(0.0, interrupt)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            shelf.search(LAPTOP)
        assert patient.left.wait(30), "the model is not asked in vain"


@pytest.mark.parametrize("request_", [LAPTOP, KNOWN])
def test_a_closed_shelf_says_so(
    settings: Settings, model: EmbeddedModel, request_: SearchRequest
) -> None:
    shelf = build(settings, model=model)
    candidates = shelf.recall(request_)
    shelf.close()
    shelf.close()
    for ask in (
        lambda: shelf.search(request_),
        lambda: shelf.rerank(request_, candidates),
        lambda: shelf.recall(request_),
        lambda: shelf.profile("A"),
        lambda: anyio.run(shelf.asearch, request_),
        lambda: anyio.run(shelf.arerank, request_, candidates),
    ):
        with pytest.raises(ShelfwiseError, match="this Reranker is closed"):
            ask()


def test_what_has_not_begun_when_a_shelf_closes_is_refused(
    settings: Settings, model: EmbeddedModel
) -> None:
    shelf = build(settings, model=model)
    ended: list[RerankResult | ShelfwiseError] = []

    async def search() -> None:
        try:
            ended.append(await shelf.asearch(KNOWN))
        except ShelfwiseError as error:
            ended.append(error)

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(search)
            await anyio.sleep(0.005)
            await anyio.to_thread.run_sync(shelf.close)

    anyio.run(run)
    assert len(ended) == 20
    results = [one for one in ended if isinstance(one, RerankResult)]
    assert len(results) < 20
    assert all(len(one.items) == 3 and not one.issues for one in results)


def test_threads_that_search_while_a_shelf_closes_end(
    settings: Settings, model: EmbeddedModel
) -> None:
    for _ in range(3):
        shelf, ended = build(settings, model=model), []

        def search(shelf: Reranker = shelf, ended: list[object] = ended) -> None:
            try:
                while True:
                    ended.append(shelf.search(LAPTOP))
            except ShelfwiseError as error:
                ended.append(error)

        threads = [Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        shelf.close()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert sum(isinstance(one, ShelfwiseError) for one in ended) == 4


FORKED = """
import os, sys
import anyio
from reranker import Reranker, SearchRequest, Settings, ShelfwiseError, build
from reranker.workers import in_turn, in_worker

shelf = build(Settings.load(None, {"store.path": sys.argv[1], "model.adapter": "none"}))
request = SearchRequest(query="laptop", user_id="A")
assert len(shelf.search(request).items) == 3
child = os.fork()
if child == 0:
    try:
        shelf.search(request)
    except ShelfwiseError as error:
        print(error, flush=True)
    print(anyio.run(in_worker, int, "7"), anyio.run(in_turn, int, "8"), flush=True)
    os._exit(0)
os.waitpid(child, 0)
assert len(shelf.search(request).items) == 3
shelf.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_nobody_waits_for_threads_that_are_not_there(seed_store: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", FORKED, str(seed_store)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "build one in each process" in told.stdout
    assert told.stdout.endswith("7 8\n")


def test_a_search_that_is_cancelled_makes_no_prompts(
    settings: Settings, model: EmbeddedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release, made = Event(), Event(), []
    with build(settings, model=model) as shelf:
        real_now, real_begin = shelf._look_up.now, shelf._begin

        def slow(request: SearchRequest) -> Any:
            begun.set()
            release.wait(30)
            return real_now(request)

        def counted(*given: Any) -> Any:
            made.append(given)
            return real_begin(*given)

        monkeypatch.setattr(shelf._look_up, "now", slow)
        monkeypatch.setattr(shelf, "_begin", counted)

        async def run() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(shelf.asearch, LAPTOP)
                assert await anyio.to_thread.run_sync(begun.wait, 30)
                group.cancel_scope.cancel()
            release.set()

        anyio.run(run)
    assert not made
