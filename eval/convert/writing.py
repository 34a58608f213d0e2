"""What every converter writes: products, cases and past purchases, each file whole or not."""

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.cases.reading import write_cases
from eval.cases.values import Case
from reranker.errors import ConfigError, DataError
from reranker.ports import Progress
from reranker.schema import Value
from retrieval.catalogue_files import header, records
from retrieval.files import replacing


class Converted(Value):
    """The files that a converter wrote, and how to evaluate on them.

    Attributes:
        files: by option of `shelfwise evaluate`, such as ``--cases``.
        notes: what a reader should know of the data.
        command: takes the files.
    """

    files: Mapping[str, Path]
    notes: tuple[str, ...]
    command: str


@dataclass
class Target:
    """The folder that a converter writes into, and what it has written so far.

    Attributes:
        options: what the user chose, such as ``split=test``; each is to be taken by `option`.
    """

    folder: Path
    options: dict[str, str]
    progress: Progress
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    def option(self, name: str, default: str, choices: Iterable[str] = ()) -> str:
        """Take an option.

        Raises:
            ConfigError: its value is none of the choices.
        """
        value, among = self.options.pop(name, default), tuple(choices)
        if among and value not in among:
            raise ConfigError(f"--option {name}={value}: choose one of {', '.join(among)}")
        return value

    def number(self, name: str, default: int) -> int:
        """Take an option that is a whole number of 0 or more.

        Raises:
            ConfigError: it is not.
        """
        value = self.options.pop(name, str(default))
        if not value.isdecimal():
            raise ConfigError(f"--option {name}={value}: write a whole number")
        return int(value)

    def products(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Write products: fields of `Product`; attributes as a mapping."""
        return self._table("--products", "products.parquet", rows, _PRODUCT_FIELDS)

    def cases(self, cases: Iterable[Case]) -> int:
        """Write cases.

        Raises:
            DataError: there is none.
        """
        path = self.folder / "cases.parquet"
        number = write_cases(path, cases)
        if not number:
            raise DataError(f"{self.folder}: the data made no case; check its files and options")
        self.files["--cases"] = path
        return number

    def purchases(self, option: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """Write past purchases in the wide form of `eval.past.reading`."""
        name = f"{option.removeprefix('--')}.parquet"
        return self._table(option, name, rows, _PURCHASE_FIELDS)

    def use(self, option: str, path: Path) -> None:
        """Take a file of the source as it is."""
        self.files[option] = path

    def result(self) -> Converted:
        """Return what was written.

        Raises:
            ConfigError: an option was given that the converter does not have.
        """
        if self.options:
            raise ConfigError(f"--option {next(iter(self.options))}: this converter has none such")
        words = [w for option, path in self.files.items() for w in (option, str(path))]
        extra = ["--json", "evaluation.json", "--report", "evaluation.html"]
        command = shlex.join(["shelfwise", "evaluate", *words, *self.arguments, *extra])
        return Converted(files=self.files, notes=tuple(self.notes), command=command)

    def _table(
        self, option: str, name: str, rows: Iterable[Mapping[str, Any]], fields: Mapping[str, str]
    ) -> int:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {
            "text": pa.string(),
            "texts": pa.list_(pa.string()),
            "number": pa.float64(),
            "numbers": pa.list_(pa.float64()),
            "facts": pa.map_(pa.string(), pa.string()),
        }
        schema = pa.schema([(field, types[kind]) for field, kind in fields.items()])
        path = self.folder / name
        written = 0
        with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for part in _batches(rows):
                writer.write_table(pa.Table.from_pylist(part, schema=schema))
                written += len(part)
                self.progress(f"writing {name}", written, 0)
        self.files[option] = path
        return written


_PRODUCT_FIELDS = {
    "product_id": "text",
    "title": "text",
    "description": "text",
    "brand": "text",
    "category": "text",
    "price": "number",
    "currency": "text",
    "attributes": "facts",
}
_PURCHASE_FIELDS = {
    "user_id": "text",
    "history": "texts",
    "history_at": "numbers",
    "target": "text",
    "at": "number",
}
_BATCH = 10_000


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(dict(row))
        if len(part) == _BATCH:
            yield part
            part = []
    yield part


def the_file(folder: Path, *names: str) -> Path:
    """Return the first of some files that a folder, or its ``dataset`` folder, has.

    Raises:
        DataError: it has none of them.
    """
    for name in names:
        for path in (folder / name, folder / "dataset" / name):
            if path.is_file():
                return path
    raise DataError(f"{folder}: holds none of {', '.join(names)}; name the folder that has them")


def rows_of(path: Path, columns: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file with some columns, or all; unreadable rows are passed over."""
    wanted = columns if columns is not None else header(path) or ()
    for record in records(path, wanted):
        if record.fault is None:
            yield dict(record.values)
