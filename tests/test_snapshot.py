"""Behaviour as Parquet files: the same answers as from the file, while another process writes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from profile_cases import NOW, TABLE, Words
from reranker.cli.app import app
from reranker.errors import ConfigError, DataError
from reranker.settings import PrivacySettings, Settings
from reranker.wiring import build_labels, import_events, open_behaviour, open_profiles
from retrieval.behaviour import BehaviourSnapshot, BehaviourStore
from retrieval.behaviour.snapshot import CURRENT, write_snapshot
from snapshot_cases import LATER, SECRET, answers, event, fill, log_of_two, store_and_snapshot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return store_and_snapshot(tmp_path)


@pytest.fixture
def both(folder: Path) -> Iterator[tuple[BehaviourStore, BehaviourSnapshot]]:
    with (
        BehaviourStore(folder / "store") as store,
        BehaviourSnapshot(folder / "snapshot") as snapshot,
    ):
        yield store, snapshot


def test_whatever_is_asked_the_answer_is_the_same(
    both: tuple[BehaviourStore, BehaviourSnapshot], tmp_path: Path
) -> None:
    store, snapshot = both
    given = answers(snapshot, tmp_path / "labels.parquet")
    assert given == answers(store, tmp_path / "labels.parquet")
    anna, _, cem = given["profiles"]
    assert anna is not None
    assert cem is None  # of whom there is no consent


def test_readers_follow_without_being_opened_again(
    both: tuple[BehaviourStore, BehaviourSnapshot], folder: Path
) -> None:
    store, snapshot = both
    before = snapshot.history("anna", LATER, limit=99)
    store.append([event("anna", 1, "cart", 9)])
    assert snapshot.history("anna", LATER, limit=99) == before
    write_snapshot(store, folder / "snapshot")
    assert snapshot.history("anna", LATER, limit=99) == store.history("anna", LATER, limit=99)
    assert snapshot.generation == 1
    assert len(snapshot.history("anna", LATER, limit=99)) == len(before) + 1


READ = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from retrieval.behaviour import BehaviourSnapshot
with BehaviourSnapshot(Path(sys.argv[1])) as snapshot:
    for _ in sys.stdin:
        print(len(snapshot.history("anna", datetime(2030, 1, 1, tzinfo=UTC), limit=99)), flush=True)
"""


def test_another_process_reads_while_this_one_writes(folder: Path) -> None:
    with (
        BehaviourStore(folder / "store") as store,
        subprocess.Popen(
            [sys.executable, "-c", READ, str(folder / "snapshot")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as reader,
    ):  # fmt: skip
        assert reader.stdin is not None
        assert reader.stdout is not None

        def read() -> int:
            reader.stdin.write("\n")
            reader.stdin.flush()
            return int(reader.stdout.readline())

        first = read()
        for number in range(1, 6):
            store.append([event("anna", 1, "cart", number)])
            write_snapshot(store, folder / "snapshot")
            assert read() == first + number
        reader.stdin.close()


def test_only_the_newest_generation_is_kept(folder: Path) -> None:
    (folder / "snapshot" / "0123456789abcdef" / "event").mkdir(parents=True)  # of a killed writer
    with BehaviourStore(folder / "store") as store:
        done = write_snapshot(store, folder / "snapshot")
    names = {each.name for each in (folder / "snapshot").iterdir()}
    assert names == {done.generation, CURRENT, "lock"}
    assert done.events == 57


def test_the_readers_keep_a_snapshot_that_could_not_be_followed_up(
    both: tuple[BehaviourStore, BehaviourSnapshot], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, snapshot = both
    before = snapshot.count()
    store.append([event("anna", 1, "cart", 9)])
    monkeypatch.setattr("retrieval.behaviour.snapshot.SORTED_BY", {"event": "error('no room')"})
    with pytest.raises(Exception, match="no room"):
        write_snapshot(store, folder / "snapshot")
    assert snapshot.count() == before


def test_a_snapshot_is_read_only_and_needs_its_key(folder: Path) -> None:
    with (
        BehaviourSnapshot(folder / "snapshot") as snapshot,
        pytest.raises(DataError, match="read-only"),
    ):
        snapshot.append([event("anna", 1, "cart", 9)])
    other = PrivacySettings.model_validate({"key": "another secret of the tests"})
    with pytest.raises(DataError, match="its pseudonyms were made with the key"):
        BehaviourSnapshot(folder / "snapshot", privacy=other)
    with pytest.raises(DataError, match="holds no snapshot: run shelfwise behaviour snapshot"):
        BehaviourSnapshot(folder / "nowhere")


@pytest.mark.parametrize("name", ["photos", "0123456789abcdef", "notes.txt", "lock.old"])
def test_what_is_not_of_a_snapshot_is_not_cleared_up(folder: Path, name: str) -> None:
    other = folder / "other" / name
    if other.suffix:
        other.parent.mkdir()
        other.write_text("mine")
    else:
        (other / "album").mkdir(parents=True)
        (other / "album" / "a.jpg").write_text("mine")
    with BehaviourStore(folder / "store") as store:
        with pytest.raises(DataError, match="holds other files"):
            write_snapshot(store, folder / "other")
        assert [each.name for each in (folder / "other").iterdir()] == [name]
        other.rename(folder / "snapshot" / name)
        write_snapshot(store, folder / "snapshot")
    assert (folder / "snapshot" / name).exists()


def test_the_store_s_own_folder_is_none_for_a_snapshot(folder: Path) -> None:
    with (
        BehaviourStore(folder / "store") as store,
        pytest.raises(DataError, match="holds other files"),
    ):
        write_snapshot(store, folder / "store")
    assert (folder / "store" / "behaviour.duckdb").exists()


def test_a_first_writer_that_was_killed_is_no_hindrance(folder: Path) -> None:
    (folder / "new" / "0123456789abcdef" / "event").mkdir(parents=True)
    (folder / "new" / f"{CURRENT}.1a2b.tmp").write_text("0123")
    with BehaviourStore(folder / "store") as store:
        done = write_snapshot(store, folder / "new")
    assert {each.name for each in (folder / "new").iterdir()} == {done.generation, CURRENT, "lock"}


def leftovers(folder: Path, sought: list[bytes]) -> list[str]:
    return [
        file.name
        for file in folder.rglob("*")
        if file.is_file() and any(each in file.read_bytes() for each in sought)
    ]


def test_the_commands_keep_it_up_to_date(tmp_path: Path) -> None:
    given = {"store.path": tmp_path / "store", "store.snapshot": tmp_path / "snapshot"}
    settings = Settings.load(None, given)
    words = [f"--set={name}={value}" for name, value in given.items()]

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, *words])
        assert done.exit_code == 0, done.output
        return done.output

    (tmp_path / "e.csv").write_text(log_of_two())
    import_events(settings, [tmp_path / "e.csv"])
    with open_behaviour(settings, read_only=True) as behaviour:
        assert isinstance(behaviour, BehaviourSnapshot)
        assert (behaviour.count(), behaviour.users()) == (20, 2)
        anna = behaviour.pseudonym("anna").uuid
        assert build_labels(settings, tmp_path / "l.parquet", LATER).sessions == 10
        run("privacy", "consent", "ben", "--revoke", "personalisation")
        assert behaviour.history("ben", LATER, limit=9) == []
        assert len(behaviour.history("anna", LATER, limit=99)) == 10
        # Parquet holds a UUID's bytes as they are; DuckDB's own form is in test_erasure.
        sought = [f"{SECRET} of anna".encode(), anna.bytes]
        assert len(leftovers(tmp_path / "snapshot", sought)) == 1
        run("privacy", "forget", "anna")
        assert behaviour.count() == 10
        for folder in given.values():
            assert leftovers(folder, sought) == []
        run("privacy", "rotate")
        assert behaviour.count() == 10
        assert behaviour.pseudonym("ben") == BehaviourSnapshot(given["store.snapshot"]).pseudonym(
            "ben"
        )
    assert "10 events:" in run("behaviour", "snapshot")
    with pytest.raises(ConfigError, match=r"set store\.snapshot"):
        raise (
            CliRunner()
            .invoke(app, ["behaviour", "snapshot", "--store", str(tmp_path / "store")])
            .exception
            or AssertionError
        )


def test_profiles_are_served_from_it(tmp_path: Path) -> None:
    from contextlib import ExitStack

    with BehaviourStore(tmp_path / "store") as store:
        fill(store)
        write_snapshot(store, tmp_path / "snapshot")
    (tmp_path / "store" / "behaviour.duckdb").unlink()  # as on a machine that only serves
    settings = Settings.load(
        None, {"store.path": tmp_path / "store", "store.snapshot": tmp_path / "snapshot"}
    )
    with ExitStack() as resources:
        profiles = open_profiles(settings, resources, table=TABLE, tokenizer=Words())
        assert profiles is not None
        found = profiles.profile("anna", NOW)
    assert found is not None
    assert found.event_count == 14
