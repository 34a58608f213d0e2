"""Tables and views of PostgreSQL as files of events: streamed out in batches, through ADBC.

The rows come in one statement, so that they are of one moment, and by PostgreSQL's binary COPY;
what is copied then goes through the same import as any other Parquet file. The password stays where
libpq looks for it (``PGPASSWORD``, ``~/.pgpass``, a service file), or in the URL, and is in no
message.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from reranker.errors import ConfigError, DataError
from retrieval.event_formats.sql import quoted

if TYPE_CHECKING:
    import pyarrow as pa

_SCHEMES = ("postgresql://", "postgres://")
_AS_THEY_ARE = frozenset(
    f"{array}{name}" for array in ("", "_") for name in ("text", "varchar", "int4", "int8")
) | {"bool", "int2", "float4", "float8", "bpchar", "date", "timestamp", "timestamptz"}
"""Types that the importer reads; all others come as PostgreSQL writes them."""


def is_table(text: str) -> bool:
    """Tell whether a text names a database, not a file."""
    return text.startswith(_SCHEMES)


@dataclass(frozen=True)
class Table:
    """A table or view with events.

    Attributes:
        url: of the database, as libpq takes it.
        table: as SQL.
        name: for messages, and for the quarantine; nobody's account or password is in it.
    """

    url: str = field(repr=False)
    table: str
    name: str

    @classmethod
    def of(cls, text: str) -> "Table":
        """Return the table of ``postgresql://USER@HOST/DATABASE#SCHEMA.TABLE``.

        Raises:
            ConfigError: no table is named.
        """
        url, _, table = text.partition("#")
        parts = urlsplit(url)
        host = parts.hostname or "".join(parse_qs(parts.query).get("host", [])) or "localhost"
        port = f":{parts.port}" if parts.port else ""
        name = f"postgresql://{host}{port}{parts.path}#{table}"
        if not table:
            raise ConfigError(
                f"{name}: which table or view? write it behind the database: {name}events"
            )
        return cls(url, ".".join(map(quoted, table.split("."))), name)

    def fetch(self, target: Path) -> None:
        """Write all rows to a Parquet file, a few megabytes of them in memory at a time.

        Raises:
            ConfigError: the driver is not installed.
            DataError: the database or the table cannot be reached or read.
        """
        import pyarrow.parquet as pq

        with self._reading() as cursor:
            cursor.execute(f"SELECT * FROM {self.table} LIMIT 0")
            columns = ", ".join(map(_column, cursor.fetch_record_batch().schema))
            cursor.execute(f"SELECT {columns} FROM {self.table}")
            batches = cursor.fetch_record_batch()
            with pq.ParquetWriter(target, batches.schema) as sink:
                for batch in _filled(batches):
                    sink.write_batch(batch)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            from adbc_driver_manager import Error
            from adbc_driver_postgresql import dbapi
        except ImportError as error:
            raise ConfigError(
                f"{self.name}: reading PostgreSQL needs its driver: "
                "uv pip install 'shelfwise[postgres]'"
            ) from error
        try:
            with dbapi.connect(self.url) as connection, connection.cursor() as cursor:
                yield cursor
        except Error as error:
            first = str(error).partition("\n")[0]
            raise DataError(f"{self.name}: cannot be read ({first})") from error


def _column(given: "pa.Field") -> str:
    kind = (given.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
    name = quoted(given.name)
    return name if kind in _AS_THEY_ARE else f"{name}::text AS {name}"


def _filled(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """Leave out empty batches, of which each would be a row group."""
    return (batch for batch in batches if batch.num_rows)
