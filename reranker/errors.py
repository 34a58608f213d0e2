"""The errors that Shelfwise raises, and nothing else.

ShelfwiseError
├── ConfigError            a setting is wrong or missing
├── DataError              a file, row or field cannot be used
│   └── StoreUnavailable   the database that holds the data cannot be asked
├── IndexMismatchError     an index does not fit the model or catalogue in use
├── ModelError             the language model did not answer
│   ├── ModelUnavailable   it cannot be reached or loaded
│   ├── ModelTimeout       it did not answer in time
│   └── ContextOverflow    the prompt is longer than its context
└── OutputError            the model answered, but not with what was asked

A message says what is wrong, where (file, row, field or setting), and what to do about it.
`reranker.listwise` turns `ModelError` and `OutputError` into a typed fallback, and
`reranker.look_up` does without a shopper's profile at a `StoreUnavailable`; all others reach the
caller.
"""


class ShelfwiseError(Exception):
    """Base of all errors raised on purpose by Shelfwise."""


class ConfigError(ShelfwiseError):
    """A setting, argument or template is wrong; the message names it."""


class DataError(ShelfwiseError):
    """A file, row or field cannot be used; the message names it."""


class StoreUnavailable(DataError):  # noqa: N818 - as ModelUnavailable
    """The database that holds the data cannot be reached, or does not answer."""


class IndexMismatchError(ShelfwiseError):
    """A saved index is of another embedding model, dimension, format or catalogue."""


class ModelError(ShelfwiseError):
    """The language model did not answer.

    Attributes:
        retryable: whether the same call may succeed a moment later.
    """

    retryable = False


class ModelUnavailable(ModelError):  # noqa: N818 - the names are the design's
    """The language model cannot be reached or loaded."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class ModelTimeout(ModelError):  # noqa: N818
    """The language model did not answer within the time that it was given."""

    retryable = True


class ContextOverflow(ModelError):  # noqa: N818
    """The prompt is longer than the model's context."""


class OutputError(ShelfwiseError):
    """The language model answered, but not with what it was asked for.

    Attributes:
        raw: the answer as it came.
    """

    def __init__(self, message: str, *, raw: str = "") -> None:
        super().__init__(message)
        self.raw = raw
