"""What a ranker is, and what it answers."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from eval.cases.values import Case
from eval.statistics.estimates import Floats
from reranker.schema import Outcome, Value

Hashes = npt.NDArray[np.uint64]


class Ranked(Value):
    """One ranker's answer to one case.

    Attributes:
        product_ids: best first. Of a case with candidates all of them; of one without, as many as
            recall is asked for.
        scores: one each, higher is better; empty where the order has none.
        interest: whether the scores are interests from 0 to 1.
        outcome: of a language model, see `RerankResult`; None where none was asked.
        issues: codes of what did not go as planned.
        personalised: whether the model was told of the shopper.
        instability: mean absolute change of rank between the model's shuffles.
        model_ms: time spent on waiting for the model.
    """

    product_ids: tuple[str, ...]
    scores: tuple[float, ...] = ()
    interest: bool = False
    outcome: Outcome | None = None
    issues: tuple[str, ...] = ()
    personalised: bool = False
    instability: float | None = None
    label_mass: float | None = None
    model_ms: float = 0.0


class Ranker(Protocol):
    """Ranks the candidates of cases. Thread-safe."""

    @property
    def concurrency(self) -> int:
        """Return how many cases it is worth asking about at the same time."""
        ...

    def rank(self, case: Case) -> Ranked:
        """Return the order of a case's candidates."""
        ...


def tie_breakers(id_hashes: Hashes, case_id: str, seed: int) -> Hashes:
    """Return a pseudo-random number for each product of a case, the same on every machine.

    Ties go by it. Not by the order of the file, which may give the target away; not by product id,
    which may tell how old or how popular a product is.
    """
    from hashlib import blake2b

    digest = blake2b(f"{seed}\n{case_id}".encode(), digest_size=8).digest()
    mixed: Hashes = id_hashes ^ np.uint64(int.from_bytes(digest, "little"))
    # The finaliser of SplitMix64 (Steele et al. 2014); overflow is meant.
    with np.errstate(over="ignore"):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result: Hashes = mixed ^ (mixed >> np.uint64(31))
    return result


def best_first(scores: Floats | Sequence[float], ties: Hashes) -> list[int]:
    """Return places by score, the highest first; equal ones by their tie breaker."""
    order: list[int] = np.lexsort((ties, -np.asarray(scores, np.float64))).tolist()
    return order
