"""Products as vectors of their words, without a model."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_WORDS = re.compile(r"\w+")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


def word_vectors(texts: Sequence[str]) -> Any:
    """Return a sparse row of length 1 for each text: its words, the rare ones weighing more.

    A word weighs log(texts / texts that have it). Scripts without spaces go by pairs of characters.
    """
    from scipy.sparse import csr_matrix, diags

    numbers: dict[str, int] = {}
    rows: list[int] = []
    columns: list[int] = []
    for row, text in enumerate(texts):
        for word in dict.fromkeys(_words(text.casefold())):
            rows.append(row)
            columns.append(numbers.setdefault(word, len(numbers)))
    shape = (len(texts), max(len(numbers), 1))
    found = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    having = np.maximum(np.asarray(found.sum(axis=0)).ravel(), 1.0)
    weighed = found @ diags(np.log(len(texts) / having))
    length = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return (diags(inverse) @ weighed).tocsr()


def _words(text: str) -> Iterator[str]:
    for word in _WORDS.findall(text):
        if _UNSPACED.fullmatch(word) and len(word) > 1:
            yield from (word[at : at + 2] for at in range(len(word) - 1))
        else:
            yield word
