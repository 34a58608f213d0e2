"""The SHA-256 of a file that is gigabytes long and hardly ever changes, without reading it again.

A stamp, one small file a path, keeps the hash with the file's size and times. Whatever writes to
the file or puts another one in its place changes its times of modification or of status; then it is
read again.
"""

import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from reranker.models.stored_folder import file_sha256
from reranker.schema import Value

_SETTLED_NS = 2_000_000_000
"""The coarsest times of a common file system (FAT): a younger file could change unnoticed."""


class FileStamp(Value):
    """The hash of a file at one moment."""

    path: str
    size: int
    modified_ns: int
    changed_ns: int
    sha256: str = ""


def remembered_sha256(path: Path, stamps: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits, reading it only if it has changed.

    Args:
        path: the file.
        stamps: folder for the stamps. Where it cannot be written, the file is read every time.

    Raises:
        OSError: the file cannot be read.
    """
    now = _stamp(path.resolve())
    kept = stamps / f".{path.stem}-{sha256(now.path.encode()).hexdigest()[:12]}.sha256.json"
    with suppress(OSError, ValidationError):
        stamp = FileStamp.model_validate_json(kept.read_bytes())
        if stamp.sha256 and stamp.model_copy(update={"sha256": ""}) == now:
            return stamp.sha256
    started = time.time_ns()
    stamp = now.model_copy(update={"sha256": file_sha256(path)})
    if started - now.modified_ns > _SETTLED_NS:
        with suppress(OSError):
            _write(kept, stamp)
    return stamp.sha256


def _stamp(path: Path) -> FileStamp:
    found = path.stat()
    return FileStamp(
        path=str(path),
        size=found.st_size,
        modified_ns=found.st_mtime_ns,
        changed_ns=found.st_ctime_ns,
    )


def _write(path: Path, stamp: FileStamp) -> None:
    # Two processes may write at once: what they write is the same, and a broken stamp is ignored.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(stamp.model_dump_json(), encoding="utf-8")
