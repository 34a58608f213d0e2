"""Behaviour in PostgreSQL: the same answers as from the file, by a real server if there is one."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from postgres_server import PostgresServer, postgres_server, programs
from profile_cases import NOW, Words
from reranker import SearchRequest, build
from reranker.cli.app import app
from reranker.errors import ConfigError, DataError, StoreUnavailable
from reranker.models.embedded import EmbeddedModel
from reranker.settings import Database, PrivacySettings, Settings
from reranker.wiring import import_events, open_behaviour, open_profiles, snapshot_behaviour
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.postgres import connected
from retrieval.behaviour.postgres_snapshot import PostgresSnapshot, write_postgres_snapshot
from retrieval.privacy.rotation import rotate
from snapshot_cases import LATER, answers, event, fill, log_of_two

AT = datetime(2026, 3, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    folder = programs()
    if folder is None:
        pytest.skip("there is no PostgreSQL server: install Debian's package postgresql")
    pytest.importorskip("adbc_driver_postgresql.dbapi")
    with postgres_server(folder) as running:
        yield running


@pytest.fixture
def address(server: PostgresServer) -> Iterator[Database]:
    address = Database(f"{server.url}#Some shop")
    yield address
    with connected(address, "cannot be cleared") as cursor:
        for schema in schemas(address):
            cursor.execute(f'DROP SCHEMA "{schema}" CASCADE')


@pytest.fixture
def both(address: Database, tmp_path: Path) -> Iterator[tuple[BehaviourStore, PostgresSnapshot]]:
    with BehaviourStore(tmp_path / "store") as store:
        fill(store)
        write_postgres_snapshot(store, address)
        with PostgresSnapshot(address) as snapshot:
            yield store, snapshot


def ask(address: Database, query: str) -> list[Any]:
    with connected(address, "cannot be asked") as cursor:
        cursor.execute(query)
        rows: list[Any] = cursor.fetchall()
    return rows


def schemas(address: Database) -> list[str]:
    query = "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^(pg_|information|public)'"
    return [row[0] for row in ask(address, query)]


def test_whatever_is_asked_the_answer_is_the_same(
    both: tuple[BehaviourStore, PostgresSnapshot], tmp_path: Path
) -> None:
    store, snapshot = both
    given = answers(snapshot, tmp_path / "labels.parquet")
    assert given == answers(store, tmp_path / "labels.parquet")
    anna, _, cem = given["profiles"]
    assert anna is not None
    assert cem is None  # of whom there is no consent


def test_look_ups_are_answered_in_place(both: tuple[BehaviourStore, PostgresSnapshot]) -> None:
    """Nothing but the store's description has been copied when profiles are read."""
    store, snapshot = both
    assert snapshot.history("anna", NOW, limit=9) == store.history("anna", NOW, limit=9)
    assert snapshot.popular(NOW, days=28, k=3) == store.popular(NOW, days=28, k=3)
    tables = snapshot._connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    assert tables == [("meta",)]


def test_readers_follow_and_one_generation_is_kept(
    both: tuple[BehaviourStore, PostgresSnapshot], address: Database
) -> None:
    store, snapshot = both
    before = snapshot.history("anna", LATER, limit=99)
    assert snapshot.count() == len(answers_of(snapshot))
    store.append([event("anna", 1, "cart", 9)])
    assert snapshot.history("anna", LATER, limit=99) == before
    done = write_postgres_snapshot(store, address)
    assert snapshot.history("anna", LATER, limit=99) == store.history("anna", LATER, limit=99)
    assert snapshot.generation == 1
    assert len(answers_of(snapshot)) == snapshot.count() == done.events
    assert sorted(schemas(address)) == sorted(["Some shop", done.generation])


def answers_of(snapshot: PostgresSnapshot) -> list[Any]:
    with snapshot.reading() as connection:
        return connection.execute("FROM event").fetchall()


def test_texts_are_kept(address: Database, tmp_path: Path) -> None:
    rows = 'user_id,kind,at,product_id,query\nü,search,2025-05-01,,绿茶 "a" \\n\n'
    (tmp_path / "e.csv").write_text(rows + "ü,view,2025-05-01,p\0q,\n", encoding="utf-8")
    with BehaviourStore(tmp_path / "store") as store:
        store.import_events([tmp_path / "e.csv"])
        write_postgres_snapshot(store, address)
    with PostgresSnapshot(address) as snapshot:
        found = snapshot.history("ü", LATER, limit=9)
    assert {(each.product_id, each.query) for each in found} == {
        (None, '绿茶 "a" \\n'),
        ("pq", None),  # PostgreSQL's texts hold no NUL
    }


def test_what_cannot_be_written_leaves_what_was_there(
    both: tuple[BehaviourStore, PostgresSnapshot],
    address: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, snapshot = both
    before, there = snapshot.count(), schemas(address)
    store.append([event("anna", 1, "cart", 9)])
    monkeypatch.setattr(
        "retrieval.behaviour.postgres_snapshot._INDEXED", {"consent": ("(no_such_column)",)}
    )
    with pytest.raises(DataError, match=r"#Some shop: the snapshot cannot be written .*no_such"):
        write_postgres_snapshot(store, address)
    assert (snapshot.count(), schemas(address)) == (before, there)


def test_it_is_read_only_and_needs_its_key(
    both: tuple[BehaviourStore, PostgresSnapshot], server: PostgresServer, address: Database
) -> None:
    _, snapshot = both
    with pytest.raises(DataError, match="a snapshot is read-only"):
        snapshot.append([event("anna", 1, "cart", 9)])
    other = PrivacySettings.model_validate({"key": "another secret of the tests"})
    with pytest.raises(DataError, match="its pseudonyms were made with the key"):
        PostgresSnapshot(address, privacy=other)
    with pytest.raises(DataError, match="#none: holds no snapshot: run shelfwise behaviour"):
        PostgresSnapshot(Database(f"{server.url}#none"))
    with pytest.raises(StoreUnavailable, match=r"postgresql://nowhere/none#: cannot be read"):
        PostgresSnapshot(Database("postgresql://me:hush@/none?host=nowhere"))


def test_a_server_that_went_away_and_came_back(
    both: tuple[BehaviourStore, PostgresSnapshot],
    server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, snapshot = both
    expected = store.history("anna", NOW, limit=9)
    assert snapshot.history("anna", NOW, limit=9) == expected
    server.stop()
    server.start()
    assert snapshot.history("anna", NOW, limit=9) == expected  # by another connection
    with server.away():
        with pytest.raises(StoreUnavailable, match="it does not answer"):
            snapshot.history("anna", NOW, limit=9)
        with pytest.raises(StoreUnavailable, match="could not be reached just now"):
            snapshot.history("anna", NOW, limit=9)
    monkeypatch.setattr(snapshot._server, "_rests_until", 0.0)
    assert snapshot.history("anna", NOW, limit=9) == expected


def test_a_server_that_says_nothing_is_not_waited_for(
    both: tuple[BehaviourStore, PostgresSnapshot],
    server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, snapshot = both
    expected = snapshot.history("anna", NOW, limit=9)
    monkeypatch.setattr("retrieval.behaviour.postgres_snapshot._LOOK_UP_SECONDS", 0.5)
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match=r"has not answered within 0\.5 seconds"):
            snapshot.history("anna", NOW, limit=9)
    finally:
        server.signal(signal.SIGCONT)
    monkeypatch.setattr(snapshot._server, "_rests_until", 0.0)
    assert snapshot.history("anna", NOW, limit=9) == expected


def test_whoever_reads_all_of_it_holds_up_nobody(
    both: tuple[BehaviourStore, PostgresSnapshot],
    address: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, snapshot = both
    monkeypatch.setattr("retrieval.behaviour.postgres_snapshot._DROP_TRIES", 2)
    monkeypatch.setattr("retrieval.behaviour.postgres_snapshot._DROP_SECONDS", 1)
    earlier = snapshot._shown
    store.append([event("anna", 1, "cart", 9)])
    with connected(address, "cannot be asked") as reader:
        reader.execute(f'SELECT count(*) FROM "{earlier}".event')
        assert reader.fetchall() == [(57,)]
        with pytest.raises(DataError, match="the new snapshot is read from now on, but"):
            write_postgres_snapshot(store, address)
        assert snapshot.count() == 58
    assert earlier in schemas(address)
    done = write_postgres_snapshot(store, address)
    assert sorted(schemas(address)) == sorted(["Some shop", done.generation])


def test_a_reader_that_could_not_follow_follows_later(
    both: tuple[BehaviourStore, PostgresSnapshot],
    address: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, snapshot = both
    expected = snapshot.history("anna", NOW, limit=9)
    rotate(store, tmp_path / "store", PrivacySettings())
    write_postgres_snapshot(store, address)
    with monkeypatch.context() as failing:
        failing.setattr(snapshot, "_pseudonyms_of", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            snapshot.history("anna", NOW, limit=9)
    assert snapshot.history("anna", NOW, limit=9) == expected


def test_who_may_use_the_schema_may_read(
    both: tuple[BehaviourStore, PostgresSnapshot], server: PostgresServer, address: Database
) -> None:
    store, _ = both
    with connected(address, "cannot be asked") as cursor:
        cursor.execute("CREATE ROLE reader LOGIN")
        cursor.execute('GRANT USAGE ON SCHEMA "Some shop" TO reader')
    reader = Database(address.replace("//shop@", "//reader@"))
    try:
        with pytest.raises(DataError, match="permission denied"):
            PostgresSnapshot(reader)
        write_postgres_snapshot(store, address)
        with PostgresSnapshot(reader) as snapshot:
            assert snapshot.history("anna", NOW, limit=9) == store.history("anna", NOW, limit=9)
            assert len(answers_of(snapshot)) == store.count()
    finally:
        with connected(address, "cannot be asked") as cursor:
            cursor.execute("DROP OWNED BY reader")
            cursor.execute("DROP ROLE reader")


def test_before_the_first_import_there_are_no_profiles(
    server: PostgresServer, address: Database, tmp_path: Path
) -> None:
    given = {"store.path": tmp_path / "store", "store.snapshot": f"{server.url}#Some shop"}
    with ExitStack() as resources:
        assert open_profiles(Settings.load(None, given), resources, tokenizer=Words()) is None


def test_who_is_forgotten_while_the_database_is_away_is_told_of_it(
    server: PostgresServer, address: Database, tmp_path: Path
) -> None:
    given = {"store.path": tmp_path / "store", "store.snapshot": f"{server.url}#Some shop"}
    words = [f"--set={name}={value}" for name, value in given.items()]
    with BehaviourStore(tmp_path / "store") as store:
        fill(store)
    CliRunner().invoke(app, ["behaviour", "snapshot", *words], catch_exceptions=False)
    with (
        server.away(),
        pytest.raises(StoreUnavailable, match=r"is changed, but .*run shelfwise behaviour"),
    ):
        raise CliRunner().invoke(app, ["privacy", "forget", "anna", *words]).exception or (
            AssertionError
        )
    with PostgresSnapshot(address) as snapshot:
        assert len(snapshot.history("anna", LATER, limit=99)) > 0
        CliRunner().invoke(app, ["behaviour", "snapshot", *words], catch_exceptions=False)
        assert snapshot.history("anna", LATER, limit=99) == []


def test_a_search_goes_on_without_the_shopper_while_the_database_is_away(
    server: PostgresServer, address: Database, seed_store: Path, model: EmbeddedModel
) -> None:
    given = {"store.path": seed_store, "store.snapshot": f"{server.url}#Some shop"}
    settings = Settings.load(None, given)
    assert snapshot_behaviour(settings).events > 0
    drawing = SearchRequest(query="tablet for drawing", user_id="B", at=AT)
    with build(settings, model=model) as shelf:
        there = shelf.search(drawing)
        assert there.personalised
        with server.away():
            away = shelf.search(drawing)
            recommended = shelf.search(drawing.model_copy(update={"query": None}))
            nobody = {"query": None, "user_id": None}
            anonymous = shelf.search(drawing.model_copy(update=nobody))
    for result in (away, recommended, anonymous):
        assert not result.personalised
        assert [each.code for each in result.issues].count("profile_unavailable") == 1
        assert str(server.url) not in result.model_dump_json()
        products = {item.product.product_id for item in result.items}
        assert products == {item.product.product_id for item in there.items}
    assert away.outcome == there.outcome


def test_the_commands_keep_it_up_to_date(address: Database, tmp_path: Path) -> None:
    given = {"store.path": tmp_path / "store", "store.snapshot": f"{address.url}#Some shop"}
    settings = Settings.load(None, given)
    words = [f"--set={name}={value}" for name, value in given.items()]

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, *words])
        assert done.exit_code == 0, done.output
        return done.output

    (tmp_path / "e.csv").write_text(log_of_two())
    import_events(settings, [tmp_path / "e.csv"])
    with open_behaviour(settings, read_only=True) as behaviour:
        assert isinstance(behaviour, PostgresSnapshot)
        assert (behaviour.count(), behaviour.users()) == (20, 2)
        run("privacy", "consent", "ben", "--revoke", "personalisation")
        assert behaviour.history("ben", LATER, limit=9) == []
        assert len(behaviour.history("anna", LATER, limit=99)) == 10
        run("privacy", "forget", "anna")
        assert behaviour.count() == 10
        assert behaviour.history("anna", LATER, limit=99) == []
        run("privacy", "rotate")
        assert behaviour.count() == 10
        run("privacy", "consent", "ben", "--grant", "personalisation")
        assert len(behaviour.history("ben", LATER, limit=99)) == 10
    assert "10 events: postgresql://" in run("behaviour", "snapshot")


def test_the_password_is_not_for_the_settings() -> None:
    for address, reason in (
        ("postgresql://me:hush@host/shop", r"PGPASSWORD or ~/\.pgpass"),
        ("POSTGRESQL://me:hush@host/shop", r"PGPASSWORD or ~/\.pgpass"),
        ("postgresql://host/shop?user=me&password=hush", r"PGPASSWORD or ~/\.pgpass"),
        ("postgresql://me:12#hush@host/shop", "write # as %23"),
        ("postgresql://me:hu#sh@host/shop", "write # as %23"),
    ):
        with pytest.raises(ConfigError, match=reason) as refused:
            Settings.load(None, {"store.snapshot": address})
        assert not any(part in str(refused.value) for part in ("hush", "hu#sh", "12#"))
    settings = Settings.load(None, {"store.snapshot": "postgresql://me@host/shop#a"})
    assert isinstance(settings.store.snapshot, Database)
    assert settings.store.snapshot.name == "postgresql://host/shop#a"
    assert Settings.load(None, {"store.snapshot": "some/folder"}).store.snapshot == Path(
        "some/folder"
    )
