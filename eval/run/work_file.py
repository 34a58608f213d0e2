"""What was ranked already, on the disk by case: a killed evaluation goes on from it.

One file for each ranker and key; the key is a hash of everything that the order may depend on, so
that a change of files, settings or seed starts anew. A line is written when its case is done; a
line that a kill cut off in the middle is dropped.
"""

from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pydantic import ValidationError

from eval.rankers.ranked import Ranked
from reranker.errors import DataError
from reranker.schema import Value


class RankedCase(Value):
    """One line of a work file.

    Attributes:
        milliseconds: that the ranker took, as seen from outside.
    """

    case_id: str
    milliseconds: float
    ranked: Ranked


class WorkFile:
    """The cases that one ranker has ranked. Use it as a context manager."""

    def __init__(self, folder: Path, ranker: str, key: str, *, fresh: bool = False) -> None:
        """Open the file, and make it where there is none.

        Raises:
            DataError: it cannot be read or written.
        """
        self._path = folder / f"{ranker}-{key}.jsonl"
        self.done: dict[str, RankedCase] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                self._path.unlink(missing_ok=True)
            self._mend()
            self._file: IO[bytes] = self._path.open("ab")
        except OSError as error:
            raise DataError(f"{self._path}: cannot be used: {error}") from error

    def add(self, line: RankedCase) -> None:
        """Keep what was ranked; it is with the operating system when this returns."""
        self._file.write(line.model_dump_json(exclude_defaults=True).encode() + b"\n")
        self._file.flush()
        self.done[line.case_id] = line

    def _mend(self) -> None:
        """Read the whole lines, and cut off what comes behind the last of them."""
        if not self._path.exists():
            return
        sound = 0
        with self._path.open("rb") as file:
            for line in file:
                try:
                    if not line.endswith(b"\n"):
                        break
                    found = RankedCase.model_validate_json(line)
                except ValidationError:
                    break
                self.done[found.case_id] = found
                sound += len(line)
        with self._path.open("rb+") as file:
            file.truncate(sound)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
