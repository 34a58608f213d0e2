"""Threads for computing what is short, which torch would spread over all cores."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier


def query_threads(count: int) -> ThreadPoolExecutor:
    """Return a pool of threads in each of which torch computes alone; others keep their number.

    A query is too short to gain much from more cores, and on busy ones the helpers wait for each
    other. MiniLM on two cores, 200 queries at a time: with two threads the median was 7 ms where
    nothing else ran, but beside other work 17 to 25 ms, the 95th percentile 130 to 350 ms and the
    slowest 830 ms; with one thread the median was 9 to 13 ms, the 95th percentile 12 to 24 ms and
    the slowest 32 ms.

    Args:
        count: number of threads, 1 or more.
    """
    import torch

    threads = torch.get_num_threads()
    together = Barrier(count)

    def begin() -> None:
        # A thread's first use of torch takes over the common number, so it must not come later.
        torch.get_num_threads()
        torch.set_num_threads(1)
        together.wait()

    pool = ThreadPoolExecutor(max_workers=count, thread_name_prefix="shelfwise-query")
    for started in [pool.submit(begin) for _ in range(count)]:
        started.result()
    # That made it the common number, too: threads to come are to begin with the old one.
    torch.set_num_threads(threads)
    return pool
