"""Files: which ones an import means and how they are cut, and how one is written whole."""

import errno
import glob
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reranker.errors import DataError

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")
"""Endings of the files that are read, in any case."""
_DELIMITERS = ",;\t|"
_QUOTED = re.compile(r'"[^"]*"')


def expand(paths: Iterable[Path | str], suffixes: Sequence[str] = SUFFIXES) -> tuple[Path, ...]:
    """Return the files meant by files, folders (searched in depth) and glob patterns, each once.

    Raises:
        DataError: one does not exist, is empty or of an unknown kind, or there are none.
    """
    found: dict[Path, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_expand_one(Path(path), suffixes)))
    if not found:
        raise DataError("no files were given: name files, folders or glob patterns")
    for path in found:
        if not kind(path, suffixes):
            raise DataError(f"{path}: unknown kind of file; use one of {', '.join(suffixes)}")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty; leave it out or export it again")
    return tuple(found)


def kind(path: Path, suffixes: Sequence[str] = SUFFIXES) -> str:
    """Return the suffix that tells how a file is read, without .gz; empty if it is unknown."""
    name = path.name.lower()
    suffix = next((each for each in suffixes if name.endswith(each)), "")
    return suffix.removesuffix(".gz")


def is_zipped(path: Path) -> bool:
    """Tell whether a file is compressed, by its name."""
    return path.name.lower().endswith(".gz")


def delimiter(path: Path, header: str) -> str:
    """Return what parts the columns of a text file: a tab in .tsv, else as its header shows."""
    if kind(path) == ".tsv":
        return "\t"
    return max(_DELIMITERS, key=_QUOTED.sub("", header).count)


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary file in the same folder that replaces ``path`` if all goes well.

    The content is on the disk before the name changes hands, so that a crash leaves the old file.

    Args:
        path: of the file.
        private: none but its owner may read it: for whatever is about shoppers. Of others the
            process's umask decides.

    Raises:
        OSError: nothing can be written there; told before the block begins.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "this is a folder; name a file in it", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    mode = 0o600 if private else 0o666
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        yield temporary
        if private:
            temporary.chmod(mode)  # some writers, as DuckDB, put a file of their own in its place
        for synced in (temporary, path.parent):
            if synced == path.parent:
                temporary.replace(path)
            descriptor = os.open(synced, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    finally:
        temporary.unlink(missing_ok=True)


def _expand_one(path: Path, suffixes: Sequence[str]) -> Iterable[Path]:
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if kind(file, suffixes) and file.is_file())
        if not inside:
            raise DataError(f"{path}: the folder holds no file with {', '.join(suffixes)}")
        return inside
    if path.exists():
        return [path]
    matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - patterns may be absolute
    matches = [match for match in matches if match.is_file()]
    if not matches:
        raise DataError(f"{path}: there is no such file; check the path or the pattern")
    return matches
