"""Rank all cases with one ranker, from where an earlier run was interrupted."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from eval.cases.values import Case
from eval.rankers import Bench, Ranker, make_ranker
from eval.run.work_file import RankedCase, WorkFile
from reranker.errors import DataError
from reranker.ports import Progress


def rank_cases(
    name: str, bench: Bench, cases: Sequence[Case], work: WorkFile, progress: Progress
) -> dict[str, RankedCase]:
    """Return what a ranker says of each case, asking only about those not in the work file.

    Raises:
        ConfigError: the ranker cannot be had.
        DataError: it did not return each candidate exactly once.
    """
    todo = [case for case in cases if case.case_id not in work.done]
    done, stage = len(cases) - len(todo), f"ranking: {name}"
    progress(stage, done, len(cases))
    if todo:
        ranker = make_ranker(name, bench)
        for line in _ranked(ranker, name, todo):
            work.add(line)
            done += 1
            progress(stage, done, len(cases))
    return {case.case_id: work.done[case.case_id] for case in cases}


def _ranked(ranker: Ranker, name: str, cases: Sequence[Case]) -> Iterator[RankedCase]:
    if ranker.concurrency <= 1:
        for case in cases:
            yield _rank_one(ranker, name, case)
        return
    waiting = iter(cases)
    with ThreadPoolExecutor(ranker.concurrency) as pool:
        under_way: set[Future[RankedCase]] = set()
        try:
            while True:
                for case in waiting:
                    under_way.add(pool.submit(_rank_one, ranker, name, case))
                    if len(under_way) >= ranker.concurrency:
                        break
                if not under_way:
                    return
                finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _rank_one(ranker: Ranker, name: str, case: Case) -> RankedCase:
    started = time.perf_counter()
    ranked = ranker.rank(case)
    milliseconds = (time.perf_counter() - started) * 1000
    given = case.candidates
    if given is not None and sorted(ranked.product_ids) != sorted(given):
        raise DataError(
            f"ranker {name}, case {case.case_id!r}: returned {len(ranked.product_ids)} products "
            f"for {len(given)} candidates; a ranker returns each of them exactly once"
        )
    return RankedCase(case_id=case.case_id, milliseconds=milliseconds, ranked=ranked)
