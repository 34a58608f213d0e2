"""The ranker that is recall alone."""

from dataclasses import dataclass

from eval.cases.values import Case
from eval.rankers.bench import Bench
from eval.rankers.ranked import Ranked


@dataclass(frozen=True)
class RecallRanker:
    """Ranks as recall does; see `eval.rankers.recall`."""

    bench: Bench
    concurrency: int = 1

    def rank(self, case: Case) -> Ranked:
        """Return the candidates in recall order."""
        return Ranked(product_ids=self.bench.recall.order(case))


def recall(bench: Bench) -> RecallRanker:
    """Rank as recall does."""
    return RecallRanker(bench)
