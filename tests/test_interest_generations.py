"""What was learnt is kept in whole generations: none is half, and none is left over."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from interest_shop import LEARNT, name, purchases, table_of, write_shop
from reranker import SearchRequest, Settings, build
from reranker.errors import DataError
from reranker.learned_interest import ShopInterest
from reranker.learned_interest.learning import learn_interest
from reranker.learned_interest.stored import InterestManifest, StoredInterest
from reranker.models.embedded import EmbeddedModel
from reranker.schema import Candidate, EventKind
from reranker.wiring import index_catalogue, stored_interest
from retrieval.behaviour import BehaviourStore
from retrieval.files import replacing


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


def test_what_is_learnt_anew_is_taken_up_and_a_killed_learning_changes_nothing(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, table = StoredInterest(tmp_path / "interest"), table_of()
    interest = ShopInterest(stored, table)
    monkeypatch.setattr("reranker.learned_interest.shop._LOOK_AGAIN_S", 0.0)
    assert interest.of(None, [name(0, 0)], LEARNT) is None
    with BehaviourStore(shop, read_only=True) as store:
        learn_interest(store, table, stored, LEARNT)
        first = interest.of(None, [name(0, 0)], LEARNT)
        assert first is not None
        with monkeypatch.context() as broken:
            broken.setattr(np, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                learn_interest(store, table, stored, LEARNT)
        assert interest.of(None, [name(0, 0)], LEARNT) == first
        learn_interest(store, table, stored, LEARNT + timedelta(days=1))
    assert interest.of(None, [name(0, 0)], LEARNT) is None
    assert interest.of(None, [name(0, 0)], LEARNT + timedelta(days=1)) == first
    folders = [each for each in stored.folder.iterdir() if each.is_dir()]
    assert len(folders) == 1, "what was counted before is gone: somebody may be to be forgotten"


def test_a_learning_that_is_stopped_after_its_last_step_stays(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = StoredInterest(tmp_path / "interest")

    @contextmanager
    def stopped(path: Path) -> Iterator[Path]:
        with replacing(path) as temporary:
            yield temporary
        if path.name == "current":
            raise KeyboardInterrupt

    with BehaviourStore(shop, read_only=True) as store:
        learn_interest(store, table_of(), stored, LEARNT)
        first = stored.current
        monkeypatch.setattr("reranker.learned_interest.stored.replacing", stopped)
        with pytest.raises(KeyboardInterrupt):
            learn_interest(store, table_of(), stored, LEARNT)
    assert stored.current not in (None, first)
    interest = ShopInterest(stored, table_of())
    assert interest.fault is None
    assert interest.of(None, [name(0, 0)], LEARNT) is not None


def test_what_is_learnt_while_it_is_read_is_taken(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generation under the reader is removed; the one in its place is read."""
    stored = StoredInterest(tmp_path / "interest")
    load = stored.load
    with BehaviourStore(shop, read_only=True) as store:
        learn_interest(store, table_of(), stored, LEARNT)

        def slow(name: str, manifest: InterestManifest) -> Any:
            monkeypatch.setattr(stored, "load", load)
            learn_interest(store, table_of(), stored, LEARNT)
            return load(name, manifest)

        monkeypatch.setattr(stored, "load", slow)
        interest = ShopInterest(stored, table_of())
    assert interest.fault is None
    assert interest.of(None, [name(0, 0)], LEARNT) is not None


def test_what_was_sent_back_does_not_sell(tmp_path: Path) -> None:
    sent_back = [
        event.model_copy(update={"kind": EventKind.RETURN, "at": event.at + timedelta(days=9)})
        for event in purchases(90)
        if event.product_id == name(1, 0)
    ]
    stored = StoredInterest(tmp_path / "interest")
    with BehaviourStore(tmp_path) as store:
        store.append(purchases(90) + sent_back)
        manifest = learn_interest(store, table_of(), stored, LEARNT)
    assert manifest.purchases == 450 - 30
    found = ShopInterest(stored, table_of()).of(None, [name(0, 0), name(1, 0)], LEARNT)
    assert found is not None
    assert [one.sales for one in found] == [9, 0]


def test_strangers_alone_bring_up_what_is_learnt(tmp_path: Path, model: EmbeddedModel) -> None:
    """A service that only re-ranks, and only for strangers, follows what is learnt, too."""
    settings, table = Settings.load(None, {"store.path": write_shop(tmp_path)}), table_of()
    index_catalogue(settings)
    candidates = [
        Candidate(product=product, recall_rank=rank, recall_score=1 / rank)
        for rank, product in enumerate(table.products(range(3)), 1)
    ]
    request = SearchRequest(query="tea", at=LEARNT)
    with build(settings, model=model) as shelf:
        assert all(item.interest is None for item in shelf.rerank(request, candidates).items)
        with BehaviourStore(tmp_path, read_only=True) as store:
            learn_interest(store, table, stored_interest(settings), LEARNT)
        time.sleep(1.1)  # looks for something new once a second
        assert all(item.interest is not None for item in shelf.rerank(request, candidates).items)


@pytest.mark.parametrize(
    "damage", ["manifest.json", "factors.npy", "words_indptr.npy", "keys.npy: empty"]
)
def test_damage_is_said_and_what_is_open_stays_in_use(
    shop: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reranker.learned_interest.shop._LOOK_AGAIN_S", 0.0)
    stored, asked = StoredInterest(tmp_path / "interest"), [name(0, 0)]
    with BehaviourStore(shop, read_only=True) as store:
        learn_interest(store, table_of(), stored, LEARNT)
        running = ShopInterest(stored, table_of())
        before = running.of(None, asked, LEARNT)
        assert before is not None
        learn_interest(store, table_of(), stored, LEARNT)
    file = stored.folder / (stored.current or "") / damage.removesuffix(": empty")
    kept = 0 if damage.endswith(": empty") else file.stat().st_size // 2
    file.write_bytes(file.read_bytes()[:kept])
    for _ in range(2):
        assert running.of(None, asked, LEARNT) == before
    for reader in (running, ShopInterest(stored, table_of())):
        assert re.search("corrupt.*run shelfwise interest learn", reader.fault or "")
    assert ShopInterest(stored, table_of()).of(None, asked, LEARNT) is None
    with pytest.raises(DataError, match="corrupt"):
        stored.load(stored.current or "", stored.manifest(stored.current or ""))


def test_of_two_learners_one_is_told_to_wait(shop: Path, tmp_path: Path) -> None:
    stored = StoredInterest(tmp_path / "interest")
    stored.folder.mkdir()
    with BehaviourStore(shop, read_only=True) as store:
        with (
            FileLock(stored.folder / "lock"),
            pytest.raises(DataError, match="another `shelfwise interest learn` is writing"),
        ):
            learn_interest(store, table_of(), stored, LEARNT)
        assert stored.current is None
        learn_interest(store, table_of(), stored, LEARNT)
    assert stored.current
