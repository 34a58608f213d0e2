"""A record batch as an Arrow file, and the checksum of that file."""

import io
from hashlib import blake2b
from typing import Any

import pyarrow as pa


class _HashingSink(io.RawIOBase):
    """A file that keeps nothing but the hash of what is written to it."""

    def __init__(self) -> None:
        self.digest = blake2b(digest_size=16)

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return len(content)


def checksum(batch: Any, head: str) -> str:
    """Return the hash of a text and of the file that a batch makes without its metadata.

    It is the same for the batch that was written and for the one that is mapped from the file.
    """
    sink = _HashingSink()
    sink.write(head.encode())
    write(batch.replace_schema_metadata(None), pa.PythonFile(sink, "w"))
    return sink.digest.hexdigest()


def write(batch: Any, sink: Any) -> None:
    """Write a batch to an open Arrow file."""
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
