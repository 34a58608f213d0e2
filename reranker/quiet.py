"""Keeps libraries from writing between our lines: their bars beside ours, and advice."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and its messages below errors for a while.

    Import what imports transformers inside, too: where bitsandbytes is installed, that comes along,
    and advises on the console to install another package.
    """
    advisers = logging.getLogger("bitsandbytes")
    level = advisers.level
    advisers.setLevel(logging.ERROR)
    try:
        from transformers.utils import logging as transformers_logging

        verbosity = transformers_logging.get_verbosity()
        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity(logging.ERROR)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            if bars:
                transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    finally:
        advisers.setLevel(level)
