"""Copies of what is imported, which lie beside the store only as long as the import runs."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRATCH = "behaviour-import-"
"""How the names of scratch folders begin."""


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder in the store's that goes afterwards, with those of imports killed before.

    Only the one that may write the store may call it.
    """
    for leftover in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch:
        yield Path(scratch)
