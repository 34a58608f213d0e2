"""A language model whose answers are scripted, for tests of what becomes of them."""

import json
import math
import re
from collections.abc import Callable, Sequence

import anyio

from reranker.listwise import Judgement, ListwiseRanker
from reranker.models.tokenizing import HFTokenizer
from reranker.ports import ModelSpec
from reranker.schema import Product, Prompt, SearchRequest, SlotScores
from reranker.settings import RankingSettings
from shop import candidates

Answer = Callable[[Sequence[Prompt]], tuple[SlotScores, ...]]


class ScriptedModel:
    """Answers by a function, and keeps what it was asked and for whom.

    A written answer ranks in the order shown.
    """

    spec = ModelSpec(
        name="scripted",
        context_length=4096,
        labels=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        readouts=frozenset({"labels", "verdict", "generate"}),
    )

    def __init__(self, tokenizer: HFTokenizer, answer: Answer) -> None:
        self.tokenizer = tokenizer
        self.prompts: list[Prompt] = []
        self.scopes: list[str | None] = []
        self._answer = answer

    async def read(
        self, prompts: Sequence[Prompt], *, scope: str | None = None, seconds: float = math.inf
    ) -> tuple[SlotScores, ...]:
        self.prompts += prompts
        self.scopes.append(scope)
        return self._answer(prompts)

    async def write(
        self, prompts: Sequence[Prompt], *, scope: str | None = None, **_how: object
    ) -> tuple[str, ...]:
        self.prompts += prompts
        self.scopes.append(scope)
        return tuple(json.dumps({"ranking": prompt.labels}) for prompt in prompts)

    async def aclose(self) -> None: ...


def prefer_last_product(prompts: Sequence[Prompt]) -> tuple[SlotScores, ...]:
    """Score by the candidate, so that the shown order must not matter."""
    return tuple(
        SlotScores(logprobs=tuple(float(candidate) for candidate in prompt.order), label_mass=0.9)
        for prompt in prompts
    )


def prefer_last_product_by_title(prompts: Sequence[Prompt]) -> tuple[SlotScores, ...]:
    """Score by what the card says, as a model would, with an offset of the window's own."""
    answers = []
    for prompt in prompts:
        numbers = [float(title.split()[1]) for title in titles(prompt)]
        offset = float(min(numbers))
        logprobs = tuple(number - offset for number in numbers)
        answers.append(SlotScores(logprobs=logprobs, label_mass=0.9))
    return tuple(answers)


def titles(prompt: Prompt) -> list[str]:
    return re.findall(r"thing \d+", str(prompt.messages[1].content).split("<products>")[1])


def shown(model: ScriptedModel) -> set[str]:
    return {title for prompt in model.prompts for title in titles(prompt)}


def judge(
    model: ScriptedModel,
    size: int = 6,
    deadline: float = math.inf,
    query: str = "thing",
    user_id: str | None = None,
    **settings: object,
) -> Judgement:
    ranker = ListwiseRanker(model, RankingSettings.model_validate(settings), profile_tokens=64)
    items = candidates(tuple(Product(product_id=str(n), title=f"thing {n}") for n in range(size)))
    request = SearchRequest(query=query, user_id=user_id)

    async def ask() -> Judgement:
        return await ranker.judge(request, None, items, deadline=deadline)

    return anyio.run(ask)


def fails(error: Exception) -> Answer:
    def answer(prompts: Sequence[Prompt]) -> tuple[SlotScores, ...]:
        raise error

    return answer
