"""Recall by words: BM25 in tantivy, with Chinese cut into words and filters inside the query.

The text of a product is one field in which the title stands twice, not several weighted fields:
only a plain union of terms lets tantivy skip postings that cannot reach the best k (block-max
WAND), which is what keeps frequent words quick.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tantivy

from reranker.errors import DataError
from reranker.schema import Filters
from retrieval.lexical_fields import (
    EXACT,
    WORDS,
    analyse,
    any_of,
    conditions_of,
    document,
    schema,
    word_analyser,
)
from retrieval.product_table import ProductTable, Rows

Hits = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]

MAX_QUERY_TERMS = 64
"""Distinct words of a query that are looked up; a longer one is a pasted text."""
_BATCH = 4096
_HEAP_BYTES = 256_000_000
_MAX_TIED = 8
_REMEDY = "run `shelfwise index build`"


class LexicalIndex:
    """Finds products by the words of a query. Reading is thread-safe; writing is for one thread.

    `add` and `remove` take effect together with `commit`. A changed product is removed and added.
    """

    def __init__(self, index: Any, folder: Path) -> None:
        self._index = index
        self._folder = folder
        self._writer: Any = None
        self._words = word_analyser()
        index.register_tokenizer(WORDS, self._words)
        whole = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw()).build()
        index.register_tokenizer(EXACT, whole)
        # Our own commits reload; a reader that changes by itself would not fit its product table.
        index.config_reader("manual")
        index.reload()

    @classmethod
    def create(cls, folder: Path) -> "LexicalIndex":
        """Make an empty index in a folder, which is made where it is missing.

        Raises:
            DataError: the folder holds an index already, or cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if tantivy.Index.exists(str(folder)):
                raise DataError(f"{folder}: there is a word index already; delete it first")
            return cls(tantivy.Index(schema(), str(folder), sort_by_field="key"), folder)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: cannot make a word index here: {error}") from error

    @classmethod
    def open(cls, folder: Path) -> "LexicalIndex":
        """Open an index as its last commit left it.

        Raises:
            DataError: the folder is missing, holds no index of this version, or is corrupt.
        """
        if not folder.is_dir() or not tantivy.Index.exists(str(folder)):
            raise DataError(f"{folder}: there is no word index; {_REMEDY}")
        try:
            index = tantivy.Index.open(str(folder))
            if index.schema != schema():
                raise DataError(f"{folder}: made by another version; delete it and {_REMEDY}")
            return cls(index, folder)
        except (OSError, ValueError) as error:
            if "Lockfile" in str(error):
                raise DataError(
                    f"{folder}: the word index makes a lock there even to be read, and cannot "
                    f"({error}); let this user write there"
                ) from error
            raise _corrupt(folder, error) from error

    def __len__(self) -> int:
        return int(self._index.searcher().num_docs)

    def deleted(self) -> int:
        """Return the number of removed products that the last commit still holds.

        Their words count in the scores of the others, and they take up space, until tantivy merges
        the part of the index that they lie in.

        Raises:
            DataError: the index is corrupt.
        """
        try:
            segments = json.loads((self._folder / "meta.json").read_text("utf-8"))["segments"]
            deletes = [part["deletes"] for part in segments if part["deletes"]]
            return sum(each["num_deleted_docs"] for each in deletes)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise _corrupt(self._folder, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder; what was not committed is dropped."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.rollback()
            writer.wait_merging_threads()

    def add(
        self,
        table: ProductTable,
        rows: Rows,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Add some rows of a table under their keys, to be seen after the next commit.

        Args:
            table: the products.
            rows: its rows; none of their keys may be in the index, unless it was just removed.
            progress: called with the numbers of rows done and in all.

        Raises:
            DataError: another process is writing the index.
        """
        writer = self._open_writer()
        wanted = np.asarray(rows, np.int64)
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            for key, product in zip(table.keys[batch], table.products(batch), strict=True):
                writer.add_document(document(int(key), product))
            if progress is not None:
                progress(min(start + _BATCH, len(wanted)), len(wanted))

    def remove(self, keys: Iterable[int] | npt.NDArray[np.int64]) -> None:
        """Remove products by key, to take effect with the next commit; unknown keys are fine.

        Raises:
            DataError: another process is writing the index.
        """
        writer = self._open_writer()
        for key in keys:
            writer.delete_documents_by_term("key", int(key))

    def commit(self) -> None:
        """Make what was added and removed durable and visible, as one step.

        Raises:
            DataError: it could not be written.
        """
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            writer.commit()
            # Waiting leaves few segments to search and frees the lock for other processes.
            writer.wait_merging_threads()
            self._index.reload()
        except (OSError, ValueError) as error:
            raise DataError(f"{self._folder}: the word index cannot be written: {error}") from error

    def search(self, query: str, *, k: int, filters: Filters) -> Hits:
        """Find the products that share words with a query and meet the filters.

        Returns:
            Keys and BM25 scores of at most k products, best first, equal scores by key. Should
            more than 8 k tie for the last places, the layout of the index decides between them.

        Raises:
            DataError: the index is corrupt.
        """
        terms = self._terms(query)
        conditions = conditions_of(self._index.schema, filters)
        if not terms or conditions is None or k < 1:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        wanted = any_of(self._index.schema, "text", terms, "freq")
        if conditions:
            must = [(tantivy.Occur.Must, each) for each in (wanted, *conditions)]
            wanted = tantivy.Query.boolean_query(must)
        try:
            return self._best(wanted, k)
        except (OSError, ValueError) as error:
            raise _corrupt(self._folder, error) from error

    def holding(self, query: str, texts: Sequence[str]) -> list[bool]:
        """Tell of each text whether it has every word of a query, as this index tells words."""
        words = set(self._terms(query))
        return [bool(words) and words.issubset(self._stems(text)) for text in texts]

    def _terms(self, query: str) -> list[str]:
        return list(dict.fromkeys(self._stems(query)))[:MAX_QUERY_TERMS]

    def _stems(self, text: str) -> list[str]:
        stems: list[str] = self._words.analyze(" ".join(analyse(text)))
        return stems

    def _best(self, query: Any, k: int) -> Hits:
        """Return the best k, with as many of the products that tie for the last place as needed.

        tantivy settles ties by place in the index, which is by key only inside a segment.
        """
        searcher = self._index.searcher()
        for limit in (2 * k, _MAX_TIED * k) if searcher.num_segments > 1 else (k,):
            hits = searcher.search(query, limit=limit, count=False).hits
            if len(hits) < limit or hits[-1][0] != hits[k - 1][0]:
                break
        scores = np.array([score for score, _ in hits], np.float64)
        addresses = [address for _, address in hits]
        keys = np.array(searcher.fast_field_values("key", addresses), np.int64)
        order = np.lexsort((keys, -scores))[:k]
        return keys[order], scores[order]

    def _open_writer(self) -> Any:
        if self._writer is None:
            try:
                # One thread keeps documents in order of key and segments few.
                self._writer = self._index.writer(_HEAP_BYTES, 1)
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{self._folder}: the word index cannot be written ({error}); is another "
                    "`shelfwise index build` running?"
                ) from error
        return self._writer


def _corrupt(folder: Path, error: Exception) -> DataError:
    return DataError(f"{folder}: the word index is corrupt ({error}); delete it and {_REMEDY}")
