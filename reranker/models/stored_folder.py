"""Folders of downloaded files that are either whole or not there.

A folder is built beside its place, gets the size and SHA-256 of every file in ``complete.json``
last, and is then renamed into place. What an interrupted process leaves behind can therefore never
be taken for a whole folder; the next process removes it. A lock file beside the folder lets one
process at a time build it.
"""

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from reranker.errors import ModelUnavailable
from reranker.ports import Progress
from reranker.schema import Value

Make = Callable[[Path, Path], None]
"""Fills its first folder with the final files; its second one is for what is thrown away after."""

MANIFEST = "complete.json"
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger(__name__)


class StoredFile(Value):
    """One file of a manifest."""

    size: int
    sha256: str


class Manifest(Value):
    """The content of ``complete.json``.

    Attributes:
        source: what the folder was built from; another source means another folder.
        files: by path inside the folder, with forward slashes.
    """

    source: str
    files: dict[str, StoredFile]


def defect(folder: Path, source: str) -> str | None:
    """Return the first thing wrong with a stored folder, None for a whole one.

    Every file is read: about 0.2 s for 270 MB on a processor with SHA instructions.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValidationError, OSError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    if manifest.source != source:
        return f"it was built from {manifest.source}, not {source}"
    problems = (_file_defect(folder / name, file) for name, file in manifest.files.items())
    return next((problem for problem in problems if problem), None)


def build_once(
    folder: Path, source: str, make: Make, *, needs: int = 0, progress: Progress | None = None
) -> Path:
    """Return a folder, building it unless it is there and whole.

    Args:
        folder: its place.
        source: identity of its content.
        make: builds the content.
        needs: free bytes that building takes.
        progress: is told when another process is building the folder.

    Raises:
        ModelUnavailable: the disk is full or refuses to be written; also whatever `make` raises.
    """
    if defect(folder, source) is None:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder, progress):
            _remove_leftovers(folder)
            problem = defect(folder, source)
            if problem is not None:
                if folder.exists():
                    _log.warning("%s: %s; building it again", folder, problem)
                _check_space(folder, needs)
                _build(folder, source, make)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_defect(path: Path, expected: StoredFile) -> str | None:
    try:
        size = path.stat().st_size
        if size != expected.size:
            return f"{path.name} has {size} bytes instead of {expected.size}"
        if file_sha256(path) != expected.sha256:
            return f"{path.name} is damaged: its SHA-256 is not the one recorded"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    return None


@contextmanager
def _locked(folder: Path, progress: Progress | None) -> Iterator[None]:
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if progress is not None:
            progress(f"waiting for another process that fetches {folder.name}", 0, 0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_leftovers(folder: Path) -> None:
    # Only the holder of the lock builds, so all of these belong to processes that have died.
    for leftover in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _build(folder: Path, source: str, make: Make) -> None:
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    work = partial.with_name(f"{partial.name}.work")
    try:
        partial.mkdir()
        work.mkdir()
        make(partial, work)
        _write_manifest(partial, source)
        if folder.exists():
            folder.replace(partial.with_name(f"{partial.name}.old"))
        partial.replace(folder)
    finally:
        _remove_leftovers(folder)


def _write_manifest(folder: Path, source: str) -> None:
    files = {
        path.relative_to(folder).as_posix(): StoredFile(
            size=path.stat().st_size, sha256=file_sha256(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = Manifest(source=source, files=files)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")


def _check_space(folder: Path, needs: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < needs:
        message = (
            f"{folder}: building it needs {needs >> 20} MB and the disk has {free >> 20} MB free: "
            "make room, or name another folder in the environment variable SHELFWISE_CACHE"
        )
        raise ModelUnavailable(message)


def _unwritable(folder: Path, error: OSError) -> ModelUnavailable:
    remedy = "name another folder in the environment variable SHELFWISE_CACHE"
    if error.errno in _FULL_DISK:
        return ModelUnavailable(f"{folder}: the disk is full: make room, or {remedy}")
    return ModelUnavailable(f"{folder}: it cannot be written ({error}): {remedy}")
