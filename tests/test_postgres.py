"""Events in PostgreSQL go through the same import as files: a real server, where there is one."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from postgres_server import postgres_server, programs
from reranker.cli.app import app
from reranker.errors import ConfigError, DataError
from reranker.settings import Settings
from reranker.wiring import import_events
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.postgres_table import Table
from shop import stored

LATER = datetime(2030, 1, 1, tzinfo=UTC)
CREATE = """
    CREATE SCHEMA logs;
    CREATE TYPE deed AS ENUM ('view', 'buy');
    CREATE TABLE logs."Sales" (who int, kind deed, at timestamptz, product_id bigint,
        value numeric(10, 2), quantity smallint, cart uuid);
    INSERT INTO logs."Sales" VALUES
        (7, 'buy', '2025-05-01 12:00+02', 11, 3.50, 2, '00000000-0000-0000-0000-00000000000a'),
        (7, 'view', '2025-05-01 12:01+02', 12, NULL, NULL, NULL),
        (7, 'buy', NULL, 12, 1, 1, NULL);
    CREATE VIEW sold AS SELECT who, at, product_id FROM logs."Sales" WHERE kind = 'buy';
    CREATE TABLE ubi_queries (query_id text, user_query text, client_id text, "timestamp" text,
        query_response_hit_ids text[]);
    INSERT INTO ubi_queries VALUES
        ('q1', 'green tea', 'c1', '2025-05-01T10:00:00Z', ARRAY['11', '12']);
    CREATE TABLE ubi_events (action_name text, query_id text, client_id text,
        "timestamp" timestamptz, event_attributes jsonb);
    INSERT INTO ubi_events VALUES ('click', 'q1', 'c1', '2025-05-01T10:00:05Z',
        '{"object": {"object_id": "12"}, "position": {"ordinal": 2}}');
    CREATE TABLE many AS SELECT 'u' || n % 100 AS user_id, 'click' AS kind,
        TIMESTAMPTZ '2025-01-01Z' + n * INTERVAL '1 minute' AS at, 'p' || n AS product_id
        FROM generate_series(1, 200000) t(n);
"""
SALES = {"user_id": "who", "session_id": "cart"}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    folder = programs()
    if folder is None:
        pytest.skip("there is no PostgreSQL server: install Debian's package postgresql")
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    with postgres_server(folder) as server:
        url = server.url
        with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in CREATE.split(";")[:-1]:
                cursor.execute(statement)
        yield url


def test_a_table_is_imported_like_the_same_rows_in_a_file(
    database: str, tmp_path: Path, store: BehaviourStore
) -> None:
    settings = Settings.load(None, {"store.path": tmp_path / "other"})
    report = import_events(settings, [f"{database}#logs.Sales"], mapping=SALES)
    assert (report.rows, report.imported, report.rejected_count) == (3, 2, 1)
    assert (report.rejected[0].row, report.rejected[0].reason) == (3, "missing")
    file = tmp_path / "sales.csv"
    file.write_text(
        "who,kind,at,product_id,value,quantity,cart\n"
        "7,buy,2025-05-01T12:00+02:00,11,3.50,2,00000000-0000-0000-0000-00000000000a\n"
        "7,view,2025-05-01T12:01+02:00,12,,,\n7,buy,,12,1,1,\n"
    )
    store.import_events([file], mapping=SALES)
    with BehaviourStore(tmp_path / "other", read_only=True) as imported:
        assert stored(imported) == stored(store)
        assert len(stored(store)) == 2


def test_what_is_there_already_is_passed_over(database: str, store: BehaviourStore) -> None:
    table = f"{database}#logs.Sales"
    store.import_events([table], mapping=SALES)
    again = store.import_events([table], mapping=SALES)
    assert (again.imported, again.duplicates) == (0, 2)
    (row,) = store.rejected()
    assert row.file.startswith("postgresql://")
    assert row.file.endswith("/postgres#logs.Sales")
    assert "shop@" not in row.file


def test_a_view_says_which_rows_and_no_kind(database: str, tmp_path: Path) -> None:
    words = ["behaviour", "import", f"{database}#sold", "--map", "user_id=who"]
    words += ["--kind", "purchase", "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(app, words)
    assert "2 rows read (1 native): 1 events imported" in result.output, result.output
    assert "logs" not in result.output


def test_user_behavior_insights_in_tables(database: str, store: BehaviourStore) -> None:
    report = store.import_events([f"{database}#ubi_queries", f"{database}#ubi_events"])
    assert (report.formats, report.imported) == ({"ubi": 2}, 4)
    assert stored(store, "kind", "product_id", "position", "query") == [
        ("search", None, None, "green tea"),
        ("impression", "11", 1, "green tea"),
        ("impression", "12", 2, "green tea"),
        ("click", "12", 2, "green tea"),
    ]


def test_rows_are_streamed(database: str, tmp_path: Path, store: BehaviourStore) -> None:
    Table.of(f"{database}#many").fetch(tmp_path / "many.parquet")
    written = pq.ParquetFile(tmp_path / "many.parquet")
    assert (written.metadata.num_rows, written.num_row_groups) == (200_000, 1)
    report = store.import_events([f"{database}#many", tmp_path / "many.parquet"])
    assert (report.imported, report.duplicates, store.users()) == (200_000, 200_000, 100)
    assert len(store.history("u7", LATER, limit=9999)) == 2000


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ("#nowhere", DataError, r'#nowhere: cannot be read \(.*relation "nowhere" does not exist'),
        ("#logs.Sales", DataError, "#logs.Sales: missing column user_id; the file has who, kind"),
        ("", ConfigError, "which table or view"),
        ('#a"; DROP TABLE many; --', DataError, "cannot be read"),
    ],
)
def test_errors_name_the_table(
    database: str, store: BehaviourStore, table: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        store.import_events([database + table])
    assert store.count() == 0


def test_no_message_holds_a_password(store: BehaviourStore) -> None:
    pytest.importorskip("adbc_driver_postgresql")
    url = "postgresql://clerk:hunter2secret@127.0.0.1:1/shop#events"
    with pytest.raises(DataError, match=r"^postgresql://127.0.0.1:1/shop#events: cannot") as caught:
        store.import_events([url])
    assert "hunter2secret" not in str(caught.value)
    assert "hunter2secret" not in repr(Table.of(url))


def test_a_missing_driver_is_named(store: BehaviourStore, monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", missing)
    with pytest.raises(ConfigError, match=r"uv pip install 'shelfwise\[postgres\]'"):
        store.import_events(["postgresql://localhost/shop#events"])
