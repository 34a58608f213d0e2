"""Python's garbage collector, kept from holding up requests.

A full collection walks through every object of the process. With the libraries and models loaded
that is a million, takes a quarter of a second (2 cores of an AMD EPYC), and all requests stand
still meanwhile. It comes up again and again where many requests are under way.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_YOUNG = 20_000
"""Objects made before those made last are looked through. A request makes thousands: with Python's
own 700, a twelfth of its computing time goes there."""

# What is passed over at the end of the process would be reported as leaked by native libraries.
atexit.register(gc.unfreeze)


class Collector:
    """The collector of this process, which several may want out of the way at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._usual: tuple[int, int, int] = gc.get_threshold()

    @contextmanager
    def out_of_the_way(self) -> Iterator[None]:
        """Collect once, then pass over all that exists now until nobody wants that any more."""
        with self._lock:
            self._enter()
        try:
            yield
        finally:
            with self._lock:
                self._leave()

    def _enter(self) -> None:
        gc.unfreeze()  # what others have let go of since
        gc.collect()
        gc.freeze()
        self._users += 1
        if self._users == 1:
            self._usual = gc.get_threshold()
            if self._usual[0]:  # 0: somebody has turned it off
                gc.set_threshold(max(_YOUNG, self._usual[0]), *self._usual[1:])

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            gc.unfreeze()
            gc.set_threshold(*self._usual)


collector = Collector()
