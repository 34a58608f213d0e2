"""The garbage collector stays out of the way of searches, and comes back afterwards."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

from reranker import Settings, build
from reranker.collector import Collector
from reranker.models.embedded import EmbeddedModel


class _Node:
    def __init__(self) -> None:
        self.itself = self


def test_what_exists_is_passed_over_and_garbage_of_before_is_not_kept() -> None:
    gc.unfreeze()
    usual = gc.get_threshold()
    garbage = weakref.ref(_Node())
    kept = [object() for _ in range(1000)]
    with Collector().out_of_the_way():
        assert garbage() is None
        assert gc.get_freeze_count() > len(kept)
        assert gc.get_threshold()[0] >= usual[0]
        later = weakref.ref(_Node())
        gc.collect()
        assert later() is None, "what is made afterwards is collected as ever"
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == usual


def test_it_comes_back_when_the_last_one_leaves() -> None:
    usual = gc.get_threshold()
    collector = Collector()
    first, second = collector.out_of_the_way(), collector.out_of_the_way()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_freeze_count()
    assert gc.get_threshold() != usual
    second.__exit__(None, None, None)
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == usual


def test_a_collector_that_is_turned_off_stays_off() -> None:
    usual = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with Collector().out_of_the_way():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*usual)


def test_an_open_shelf_keeps_it_out_of_the_way(seed_store: Path, model: EmbeddedModel) -> None:
    before = gc.get_threshold()
    with build(Settings.load(None, {"store.path": seed_store}), model=model):
        assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold() == before


def test_a_process_that_closes_nothing_ends_without_complaints() -> None:
    code = (
        "import duckdb; from reranker.collector import collector\n"
        "connection = duckdb.connect(); connection.execute('SELECT 1').fetchall()\n"
        "collector.out_of_the_way().__enter__()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
