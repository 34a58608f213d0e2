"""What each shopper has agreed to: a record for a purpose, or else what the shop's settings say."""

from collections.abc import Collection, Mapping, Sequence
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
from retrieval.behaviour.pseudonyms import Pseudonym, Pseudonyms
from retrieval.event_formats.sql import source
from retrieval.files import expand, is_zipped, kind

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".parquet")
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
    table = pa.table(
        {
            "shopper": [str(shopper) for shopper, _ in records],
            "purpose": [purpose for _, purpose in records],
            "granted": list(records.values()),
        },
        schema=pa.schema([("shopper", "string"), ("purpose", "string"), ("granted", "bool")]),
    )
    connection.register("said", table)
    connection.execute(
        """DELETE FROM consent USING said
        WHERE consent.shopper = said.shopper::UUID AND consent.purpose = said.purpose"""
    )
    connection.execute(
        "INSERT INTO consent SELECT shopper::UUID, purpose, granted, $now FROM said", {"now": now}
    )
    connection.unregister("said")


def import_files(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[Path | str],
    pseudonyms: Pseudonyms,
    mapping: Mapping[str, str],
) -> ConsentReport:
    """Import records: ``user_id``, ``purpose`` and, unless all are granted, ``granted``.

    Args:
        connection: of the store, inside the caller's transaction.
        paths: files, folders and glob patterns.
        pseudonyms: of the store.
        mapping: field to column, where the names differ.

    Raises:
        DataError: a file cannot be read, or a row lacks its shopper or says what is not known; the
            caller then has to roll back.
    """
    found = expand(paths, _SUFFIXES)
    records: dict[tuple[UUID, Purpose], bool] = {}
    for path in found:
        rows = _rows(connection, path, mapping)
        for number, (user_id, purpose, granted) in enumerate(rows, start=1):
            name, answer = _checked(path, number, user_id, purpose, granted)
            records[pseudonyms.of(str(user_id)).uuid, name] = answer
    write(connection, records)
    shoppers = len({shopper for shopper, _ in records})
    return ConsentReport(files=len(found), records=len(records), shoppers=shoppers)


def _rows(
    connection: duckdb.DuckDBPyConnection, path: Path, mapping: Mapping[str, str]
) -> list[tuple[str | None, str | None, str | None]]:
    relation = _relation(path)
    wanted = {name: mapping.get(name, name) for name in ("user_id", "purpose", "granted")}
    try:
        present = [column[0] for column in connection.execute(f"DESCRIBE {relation}").fetchall()]
        for name in ("user_id", "purpose"):
            if wanted[name] not in present:
                raise DataError(
                    f"{path}: missing column {wanted[name]}; the file has {', '.join(present)}; if "
                    f"it goes by another name, say `--map {name}=COLUMN`"
                )
        taken = ", ".join(
            f'trim("{column}"::VARCHAR)' if column in present else "NULL"
            for column in (each.replace('"', '""') for each in wanted.values())
        )
        rows: list[tuple[str | None, str | None, str | None]] = connection.execute(
            f"SELECT {taken} FROM ({relation})"
        ).fetchall()
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read ({first}); write it anew") from error
    return rows


def _relation(path: Path) -> str:
    kind_ = kind(path, _SUFFIXES)
    if kind_ == ".parquet":
        return f"FROM read_parquet({source(path)})"
    compression = "gzip" if is_zipped(path) else "none"
    if kind_ in (".jsonl", ".ndjson"):
        return f"FROM read_json({source(path)}, format = 'nd', compression = '{compression}')"
    return f"""FROM read_csv({source(path)}, all_varchar = true, header = true,
        compression = '{compression}')"""


def _checked(
    path: Path, number: int, user_id: str | None, purpose: str | None, granted: str | None
) -> tuple[Purpose, bool]:
    if not user_id:
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
