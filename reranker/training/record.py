"""The record of a training: one JSON line an event, and TensorBoard files where it is installed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reranker.errors import DataError

RECORD_FILE = "record.jsonl"


class TrainingRecord:
    """Writes what happens at which step. A training that goes on goes on with its record."""

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        """Open the record of a run.

        Args:
            folder: of the run; made where it is missing.
            after: step that the training goes on after; what came later is taken out, since it
                will happen again.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / RECORD_FILE
        kept = [line for line in read_record(folder) if line["step"] <= after] if after else []
        temporary = self._file.with_suffix(".part")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self._file)
        self._board = _board(folder / "tensorboard", after)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one event; numbers among its values go to TensorBoard, too."""
        line = json.dumps({"kind": kind, "step": step, **values})
        with self._file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Finish the TensorBoard files."""
        if self._board is not None:
            self._board.close()


def read_record(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a run, oldest first; a line that a kill cut short is left out.

    Raises:
        DataError: a line is no event.
    """
    file = folder / RECORD_FILE
    if not file.is_file():
        return []
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if not isinstance(event, dict) or "kind" not in event:
            raise DataError(f"{file}, line {number}: no event of a run: the field kind is missing")
        found.append(event)
    return found


def _board(folder: Path, after: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # tensorboard is optional: the JSON lines say the same
        return None
    writer: Any = SummaryWriter
    return writer(str(folder), purge_step=after + 1 if after else None)
