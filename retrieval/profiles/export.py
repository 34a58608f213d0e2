"""Profiles as a file, one row a shopper."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reranker.errors import ConfigError
from reranker.ports import Progress, no_progress
from reranker.schema import UserProfile
from retrieval.files import replacing

_BATCH = 2000
_STAGE = "making profiles"
_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("as_of", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("event_count", pa.int64(), nullable=False),
        pa.field("summary", pa.string(), nullable=False),
        pa.field("profile", pa.string(), nullable=False),
    ]
)


def export_profiles(
    profiles: Iterable[UserProfile],
    target: Path,
    *,
    shoppers: int = 0,
    progress: Progress = no_progress,
) -> int:
    """Write profiles to a file, which is replaced as a whole; return how many there were.

    Args:
        profiles: consumed once and in batches.
        target: ``.jsonl`` holds a `reranker.schema.UserProfile` a line; ``.parquet`` its main
            fields as columns, and all of it as JSON in the column ``profile``.
        shoppers: about how many there will be; 0: not known.
        progress: told how many are done.

    Raises:
        ConfigError: the file's name ends otherwise.
    """
    if target.suffix not in (".jsonl", ".parquet"):
        raise ConfigError(f"{target}: profiles are written to .parquet or .jsonl files")
    counted = _counted(_batches(profiles), shoppers, progress)
    with replacing(target, private=True) as temporary:
        if target.suffix == ".jsonl":
            return _write_lines(counted, temporary)
        return _write_parquet(counted, temporary)


def _batches(profiles: Iterable[UserProfile]) -> Iterator[list[UserProfile]]:
    rest = iter(profiles)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _counted(
    batches: Iterator[list[UserProfile]], shoppers: int, progress: Progress
) -> Iterator[list[UserProfile]]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        progress(_STAGE, done, max(done, shoppers) if shoppers else 0)
    progress(_STAGE, done, done)


def _write_lines(batches: Iterator[list[UserProfile]], path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as sink:
        for batch in batches:
            sink.writelines(f"{profile.model_dump_json()}\n" for profile in batch)
            count += len(batch)
    return count


def _write_parquet(batches: Iterator[list[UserProfile]], path: Path) -> int:
    count = 0
    with pq.ParquetWriter(path, _SCHEMA) as sink:
        for batch in batches:
            sink.write_table(pa.Table.from_pylist([_row(each) for each in batch], schema=_SCHEMA))
            count += len(batch)
    return count


def _row(profile: UserProfile) -> dict[str, Any]:
    row = {name: getattr(profile, name) for name in _SCHEMA.names if name != "profile"}
    return {**row, "profile": profile.model_dump_json()}
