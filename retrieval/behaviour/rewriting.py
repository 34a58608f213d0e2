"""Writes a behaviour store anew without some of its rows: deleting alone leaves their bytes behind.

DuckDB marks deleted rows, and neither CHECKPOINT nor VACUUM takes their bytes out of the file. So
what is to be kept goes into a new file beside the old one, which then takes its name. Killed before
that, the old file is as it was; afterwards the new one is whole.
"""

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import duckdb

from reranker.errors import DataError
from reranker.ports import Progress
from retrieval.behaviour.opening import temp_folder
from retrieval.behaviour.schema import SORTED_BY, TABLES, store_ddl
from retrieval.behaviour.scratch import SCRATCH
from retrieval.event_formats.sql import literal

_NEW = "rewriting"
_STAGE = "writing the store anew"


def rewrite(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    kept: Mapping[str, str],
    fingerprint: str,
    progress: Progress,
) -> None:
    """Replace the file of a store by one with the rows that are kept.

    The connection is still to the old file, which has no name any more: close it.

    Args:
        connection: the only one that has the store open, for writing.
        path: of the file.
        kept: table to SELECT of its rows; of the others all are kept.
        fingerprint: of the key behind the pseudonyms in the new file.
        progress: told what is being done.

    Raises:
        DataError: there is no room on the disk or in memory.
    """
    remove_leftovers(path, spilled=False)
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.{_NEW}")
    copied = [name for name in TABLES if name != "meta"]
    (old,) = connection.execute("SELECT current_database()").fetchall()[0]
    try:
        # Nothing is left in the log then, which would be read into the new file.
        connection.execute("CHECKPOINT")
        connection.execute(f"ATTACH {literal(new)} AS fresh")
        connection.execute(f'USE fresh; {store_ddl(fingerprint)} USE "{old}"')
        for done, name in enumerate(copied):
            progress(_STAGE, done, len(copied))
            order = f"ORDER BY {SORTED_BY[name]}" if name in SORTED_BY else ""
            connection.execute(f"INSERT INTO fresh.{name} {kept.get(name, f'FROM {name}')} {order}")
        connection.execute("UPDATE fresh.meta SET runs = 1; CHECKPOINT fresh; DETACH fresh")
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise DataError(
            f"{path}: could not be written anew ({first}); nothing of it has changed: make room "
            "for a copy of it beside it, then run this again"
        ) from error
    shutil.copymode(path, new)
    _sync(new)
    # The old file stays locked until it has lost its name, so that nobody writes into it meanwhile.
    new.replace(path)
    _sync(path.parent)
    progress(_STAGE, len(copied), len(copied))


def remove_leftovers(path: Path, *, spilled: bool = True) -> None:
    """Remove what a killed process has left beside a store.

    Args:
        path: of the file, which no other process has open.
        spilled: also what DuckDB had no memory for; then nobody at all may have it open.
    """
    for leftover in (*path.parent.glob(f"{path.name}.*.{_NEW}*"), *path.parent.glob(f"{SCRATCH}*")):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    if spilled:
        shutil.rmtree(temp_folder(path), ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
