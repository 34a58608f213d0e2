"""What each shopper has agreed to: a record for a purpose, or else what the shop's settings say."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from uuid import UUID

import duckdb
import pyarrow as pa
from pydantic import AwareDatetime, Field

from reranker.errors import DataError
from reranker.schema import Value
from reranker.settings import Purpose
from retrieval.behaviour.csv_records import MALFORMED_DDL
from retrieval.behaviour.event_files import prepare, unreadable
from retrieval.behaviour.pseudonyms import Pseudonym, Pseudonyms
from retrieval.behaviour.scratch import scratch_folder
from retrieval.event_formats.reading import Reading
from retrieval.event_formats.sql import EVENT_SUFFIXES
from retrieval.files import expand

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
_FIELDS = ("user_id", "purpose", "granted")
_BATCH = 20_000
_WORDS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


class Consent(Value):
    """Whether a shopper's behaviour may be used for a purpose.

    Attributes:
        recorded_at: when this was said; None where nothing was, and the settings decide.
    """

    purpose: Purpose
    granted: bool
    recorded_at: AwareDatetime | None = None


class ConsentReport(Value):
    """What an import of consent has done.

    Attributes:
        records: read and kept; of several of one shopper and purpose the last one.
    """

    files: int = Field(ge=0)
    records: int = Field(ge=0)
    shoppers: int = Field(ge=0)


def read(
    connection: duckdb.DuckDBPyConnection, shopper: Pseudonym, default: Collection[Purpose]
) -> tuple[Consent, ...]:
    """Return what holds of one shopper, for every purpose."""
    rows = connection.execute(
        'SELECT purpose, granted, "at" FROM consent WHERE shopper = $shopper',
        {"shopper": shopper.uuid},
    ).fetchall()
    said = {purpose: (granted, at.replace(tzinfo=UTC)) for purpose, granted, at in rows}
    return tuple(
        Consent(purpose=name, granted=said[name][0], recorded_at=said[name][1])
        if name in said
        else Consent(purpose=name, granted=name in default)
        for name in PURPOSES
    )


def write(
    connection: duckdb.DuckDBPyConnection, records: Mapping[tuple[UUID, Purpose], bool]
) -> None:
    """Keep records in place of those that there were of the same shoppers and purposes."""
    now = datetime.now(UTC).replace(tzinfo=None)
    connection.register("said", _table(records))
    connection.execute(
        """DELETE FROM consent USING said
        WHERE consent.shopper = said.shopper::UUID AND consent.purpose = said.purpose"""
    )
    connection.execute(
        "INSERT INTO consent SELECT shopper::UUID, purpose, granted, $now FROM said", {"now": now}
    )
    connection.unregister("said")


def _table(records: Mapping[tuple[UUID, Purpose], bool]) -> pa.Table:
    return pa.table(
        {
            "shopper": [str(shopper) for shopper, _ in records],
            "purpose": [purpose for _, purpose in records],
            "granted": list(records.values()),
        },
        schema=pa.schema([("shopper", "string"), ("purpose", "string"), ("granted", "bool")]),
    )


def import_files(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[Path | str],
    pseudonyms: Pseudonyms,
    mapping: Mapping[str, str],
    folder: Path,
) -> ConsentReport:
    """Import records: ``user_id``, ``purpose`` and, unless all are granted, ``granted``.

    Files are read as those of events are, so that the same shopper is meant by an id in both. What
    a shopper says also holds for own clients, as `with_clients` has it.

    Args:
        connection: of the store, inside the caller's transaction.
        paths: files (with `retrieval.event_formats.sql.EVENT_SUFFIXES`), folders and globs.
        pseudonyms: of the store.
        mapping: field to column, where the names differ.
        folder: takes the scratch files.

    Raises:
        ConfigError: the mapping names an unknown field.
        DataError: a file cannot be read, or a row lacks its shopper or says what is not known; the
            caller then has to roll back.
    """
    found = expand(paths, EVENT_SUFFIXES)
    reading = Reading(mapping=mapping, format="native", fields=_FIELDS, needed=_FIELDS[:2])
    records: dict[tuple[UUID, Purpose], bool] = {}
    with scratch_folder(folder) as scratch:
        for path in found:
            for number, user_id, purpose, granted in _rows(connection, path, reading, scratch):
                name, answer = _checked(path, number, user_id, purpose, granted)
                records[pseudonyms.of(str(user_id)).uuid, name] = answer
    write(connection, with_clients(connection, records))
    shoppers = len({shopper for shopper, _ in records})
    return ConsentReport(files=len(found), records=len(records), shoppers=shoppers)


def with_clients(
    connection: duckdb.DuckDBPyConnection, records: Mapping[tuple[UUID, Purpose], bool]
) -> dict[tuple[UUID, Purpose], bool]:
    """Return records with those of clients (browsers) that nobody else has signed in from.

    What is refused is refused there, too. What is granted is granted where nothing is on record: a
    refusal that came from a client itself stays. What the records say of a client goes before both.
    """
    connection.register("said", _table(records))
    rows = connection.execute(
        """SELECT client, said.purpose, said.granted FROM said JOIN (SELECT client,
            min(shopper) AS shopper FROM client GROUP BY client
            HAVING min(shopper) = max(shopper)) own ON said.shopper::UUID = own.shopper
        ANTI JOIN consent AS old
            ON said.granted AND old.shopper = client AND old.purpose = said.purpose"""
    ).fetchall()
    connection.unregister("said")
    return {**{(client, purpose): granted for client, purpose, granted in rows}, **records}


def _rows(
    connection: duckdb.DuckDBPyConnection, path: Path, reading: Reading, scratch: Path
) -> Iterator[tuple[int, str | None, str | None, str | None]]:
    """Yield number and fields of each row, as an import of events takes them."""
    connection.execute(f"DROP TABLE IF EXISTS malformed; {MALFORMED_DDL}")
    file = prepare(connection, path, reading, scratch)
    faults = "SELECT row, reason FROM malformed"
    if file.staged:
        faults += f""" UNION ALL SELECT file_row_number + 1, fault
            FROM {file.relation} WHERE fault IS NOT NULL"""
    fault = connection.execute(f"{faults} ORDER BY row LIMIT 1").fetchall()
    if fault:
        raise DataError(f"{path}: row {fault[0][0]}: {fault[0][1]}; nothing was imported")
    taken = ", ".join(file.text_of(name) for name in _FIELDS)
    try:
        rows = connection.execute(
            f"SELECT file_row_number + 1, {taken} FROM {file.relation} ORDER BY 1"
        )
        while batch := rows.fetchmany(_BATCH):
            yield from batch
    except duckdb.Error as error:
        raise unreadable(path, error) from error


def _checked(
    path: Path, number: int, user_id: str | None, purpose: str | None, granted: str | None
) -> tuple[Purpose, bool]:
    if not (user_id or "").strip():
        raise DataError(f"{path}: row {number}, user_id: missing; nothing was imported")
    name = next((known for known in PURPOSES if known == (purpose or "").lower()), None)
    if name is None:
        raise DataError(
            f"{path}: row {number}, purpose: unknown; the purposes are {', '.join(PURPOSES)}; "
            "nothing was imported"
        )
    answer = True if granted is None else _WORDS.get(granted.lower())
    if answer is None:
        raise DataError(
            f"{path}: row {number}, granted: neither true nor false; nothing was imported"
        )
    return name, answer
