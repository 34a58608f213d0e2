"""Measure a model as it is served: prompts, shuffles and readout of serving, on held-back lists."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from reranker.ports import LanguageModel, Progress, no_progress
from reranker.schema import Prompt, Readout, SlotScores, Value
from reranker.training.encoding import PromptMaker
from reranker.training.examples import TrainingExample
from reranker.training.validation import by_score, summary


class ServedMeasures(Value):
    """How a model ranks.

    Attributes:
        measures: nDCG at 1, 5 and 10, and the number of lists.
        instability: mean absolute change of rank between orders in which a list was shown, all
            pairs of them; None for a single one.
        first_slots: how often the product in each slot of a prompt was ranked first; without a bias
            all alike.
    """

    measures: dict[str, float]
    instability: float | None
    first_slots: tuple[int, ...] = ()


async def measure_served(
    model: LanguageModel,
    prompts: PromptMaker,
    examples: Sequence[TrainingExample],
    *,
    shuffles: int,
    readout: Readout,
    progress: Progress = no_progress,
) -> ServedMeasures:
    """Ask a model about lists, each in several orders, and average as serving does.

    Args:
        model: to ask.
        prompts: makes the prompts of a list.
        examples: at least one.
        shuffles: orders in which each list is shown.
        readout: by which the model is asked.
        progress: told of the lists judged.
    """
    rankings, changes = [], []
    first: Counter[int] = Counter()
    for done, example in enumerate(examples, start=1):
        size = len(example.candidates)
        orders = [list(range(size)) for _ in range(shuffles)]
        for number, order in enumerate(orders):
            random.Random(f"{example.example_id}/{number}").shuffle(order)
        asked: list[Prompt] = [prompts.prompt(example, order) for order in orders]
        answers = await model.read(asked)
        rows = [_by_candidate(order, answer) for order, answer in zip(orders, answers, strict=True)]
        means = [sum(column) / shuffles for column in zip(*rows, strict=True)]
        rankings.append(by_score(means, example.grades))
        first.update(max(range(size), key=answer.logprobs.__getitem__) for answer in answers)
        for one, other in combinations(map(_ranks, rows), 2):
            moved = [abs(a - b) for a, b in zip(one, other, strict=True)]
            changes.append(sum(moved) / size)
        progress(f"judging lists ({readout})", done, len(examples))
    instability = sum(changes) / len(changes) if changes else None
    return ServedMeasures(
        measures=dict(summary(rankings)),
        instability=instability,
        first_slots=tuple(first[slot] for slot in range(max(first) + 1)),
    )


def _by_candidate(order: Sequence[int], answer: SlotScores) -> list[float]:
    found = dict(zip(order, answer.logprobs, strict=True))
    return [found[candidate] for candidate in range(len(order))]


def _ranks(scores: Sequence[float]) -> list[int]:
    order = sorted(range(len(scores)), key=lambda candidate: -scores[candidate])
    return [order.index(candidate) for candidate in range(len(scores))]
