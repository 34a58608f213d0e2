"""Tables and views of PostgreSQL as files of events, streamed out in batches.

The rows come in one statement, so that they are of one moment, and by PostgreSQL's binary COPY;
what is copied then goes through the same import as any other Parquet file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.errors import ConfigError
from reranker.settings import Database
from retrieval.behaviour.postgres import connected
from retrieval.event_formats.sql import quoted

if TYPE_CHECKING:
    import pyarrow as pa

_AS_THEY_ARE = frozenset(
    f"{array}{name}" for array in ("", "_") for name in ("text", "varchar", "int4", "int8")
) | {"bool", "int2", "float4", "float8", "bpchar", "date", "timestamp", "timestamptz"}
"""Types that the importer reads; all others come as PostgreSQL writes them."""


@dataclass(frozen=True)
class Table:
    """A table or view with events."""

    database: Database

    @classmethod
    def of(cls, text: str) -> "Table":
        """Return the table of ``postgresql://USER@HOST/DATABASE#SCHEMA.TABLE``.

        Raises:
            ConfigError: this is no such address, or no table is named.
        """
        try:
            database = Database(text)
        except ValueError as error:
            raise ConfigError(f"the address of a table of PostgreSQL: {error}") from error
        if not database.within:
            raise ConfigError(
                f"{database.name}: which table or view? write it behind the database: "
                f"{database.name}events"
            )
        return cls(database)

    @property
    def name(self) -> str:
        """For messages, and for the quarantine."""
        return self.database.name

    def fetch(self, target: Path) -> None:
        """Write all rows to a Parquet file, a few megabytes of them in memory at a time.

        Raises:
            ConfigError: the driver is not installed.
            DataError: the database or the table cannot be reached or read.
        """
        import pyarrow.parquet as pq

        table = ".".join(map(quoted, self.database.within.split(".")))
        with connected(self.database, "cannot be read") as cursor:
            cursor.execute(f"SELECT * FROM {table} LIMIT 0")
            columns = ", ".join(map(_column, cursor.fetch_record_batch().schema))
            cursor.execute(f"SELECT {columns} FROM {table}")
            batches = cursor.fetch_record_batch()
            with pq.ParquetWriter(target, batches.schema) as sink:
                for batch in _filled(batches):
                    sink.write_batch(batch)


def _column(given: "pa.Field") -> str:
    kind = (given.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
    name = quoted(given.name)
    return name if kind in _AS_THEY_ARE else f"{name}::text AS {name}"


def _filled(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """Leave out empty batches, of which each would be a row group."""
    return (batch for batch in batches if batch.num_rows)
