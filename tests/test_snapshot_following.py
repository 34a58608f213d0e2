"""Readers of Parquet files follow what is written, whatever happens on the way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from pydantic import SecretStr

from reranker.errors import DataError
from reranker.settings import PrivacySettings
from retrieval.behaviour import BehaviourSnapshot, BehaviourStore
from retrieval.behaviour.snapshot import CURRENT, write_snapshot
from retrieval.privacy.rotation import rotate
from snapshot_cases import LATER, fill, store_and_snapshot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return store_and_snapshot(tmp_path)


def test_a_rotation_is_followed_from_the_first_question(tmp_path: Path) -> None:
    privacy = PrivacySettings(key_file=tmp_path / "a.key")
    with BehaviourStore(tmp_path / "store", privacy=privacy) as store:
        fill(store)
        write_snapshot(store, tmp_path / "snapshot")
        with BehaviourSnapshot(tmp_path / "snapshot", privacy=privacy) as snapshot:
            before = snapshot.history("anna", LATER, limit=99)
            rotate(store, tmp_path / "store", privacy)
            write_snapshot(store, tmp_path / "snapshot")
            assert snapshot.history("anna", LATER, limit=99) == before != []


def test_without_the_new_key_no_question_is_answered(tmp_path: Path) -> None:
    one = "the first secret of this shop"
    older, newer = (
        PrivacySettings(key=SecretStr(key)) for key in (one, f"{one}, and the second secret")
    )
    with BehaviourStore(tmp_path / "store", privacy=older) as store:
        fill(store)
        write_snapshot(store, tmp_path / "snapshot")
    with BehaviourSnapshot(tmp_path / "snapshot", privacy=older) as snapshot:
        assert snapshot.history("anna", LATER, limit=99)
        with BehaviourStore(tmp_path / "store", privacy=newer) as store:
            rotate(store, tmp_path / "store", newer)
            write_snapshot(store, tmp_path / "snapshot")
        for _ in range(3):
            with pytest.raises(DataError, match="its pseudonyms were made with the key"):
                snapshot.history("anna", LATER, limit=99)


class Overtaken(BehaviourSnapshot):
    """While one question is on its way, something happens."""

    meanwhile: Callable[[], object] | None = None

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with super().reading() as connection:
            happens, self.meanwhile = self.meanwhile, None
            if happens is not None:
                connection.execute("BEGIN; FROM meta")  # it has seen which files to read
                happens()
            yield connection


def test_a_question_whose_files_are_gone_is_asked_again(folder: Path) -> None:
    with (
        BehaviourStore(folder / "store") as store,
        Overtaken(folder / "snapshot") as snapshot,
    ):
        before = snapshot.history("anna", LATER, limit=99)

        def overtake() -> None:
            write_snapshot(store, folder / "snapshot")
            assert snapshot.history("ben", LATER, limit=99)  # so that the new one is followed

        snapshot.meanwhile = overtake
        assert snapshot.history("anna", LATER, limit=99) == before != []


def test_a_generation_that_cannot_be_read_hinders_no_later_one(
    folder: Path,
) -> None:
    with (
        BehaviourStore(folder / "store") as store,
        BehaviourSnapshot(folder / "snapshot") as snapshot,
    ):
        (folder / "snapshot" / CURRENT).write_text("f" * 16)
        with pytest.raises(duckdb.IOException, match="No files found"):
            snapshot.count()
        write_snapshot(store, folder / "snapshot")
        assert snapshot.count() == store.count()
