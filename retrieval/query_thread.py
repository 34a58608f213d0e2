"""A thread for computing what is short, which torch would spread over all cores."""

from concurrent.futures import ThreadPoolExecutor


def one_torch_thread() -> ThreadPoolExecutor:
    """Return a pool of one thread in which torch computes alone; other threads keep their number.

    A query is too short to gain much from more cores, and on busy ones the helpers wait for each
    other. MiniLM on two cores, 200 queries at a time: with two threads the median was 7 ms where
    nothing else ran, but beside other work 17 to 25 ms, the 95th percentile 130 to 350 ms and the
    slowest 830 ms; with one thread the median was 9 to 13 ms, the 95th percentile 12 to 24 ms and
    the slowest 32 ms.
    """
    import torch

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shelfwise-query")
    threads = torch.get_num_threads()
    # A thread's first use of torch takes over the common number, so it must not come later.
    pool.submit(torch.get_num_threads).result()
    pool.submit(torch.set_num_threads, 1).result()
    # That made it the common number, too: threads to come are to begin with the old one.
    torch.set_num_threads(threads)
    return pool
