"""Ask the language model about a window of candidates and read one score for each.

The model judges the whole window at once. The same window is shown in several seeded orders, sent
as one batch, and the log-probabilities are averaged per product, which takes out most of the
position bias (permutation self-consistency, Tang et al. 2023, arXiv 2310.07712). Every second order
is the reverse of the one before, so that a bias that runs evenly along the list cancels exactly.

Whatever the model does, the answer is a `Judgement`: a failure is an outcome with its reason, not
an exception.
"""

import math
import random
import time
from collections.abc import Sequence

import anyio
import anyio.to_thread

from reranker.errors import ConfigError, ModelError, OutputError
from reranker.ports import LanguageModel
from reranker.prompting import (
    PromptBudget,
    PromptDraft,
    build_prompt,
    detect_language,
    draft_prompt,
)
from reranker.schema import (
    Candidate,
    Issue,
    IssueCode,
    Language,
    Outcome,
    Prompt,
    SearchRequest,
    SlotScores,
    TemplateRef,
    UserProfile,
    Value,
)
from reranker.settings import RankingSettings

_LATE = "the deadline passed before the model answered"


class Judgement(Value):
    """What the model said about the candidates of a request.

    Attributes:
        logprobs: one a candidate in the candidates' order; None where the model was not asked or
            its answer was not believed.
        outcome: as in `RerankResult`.
        instability: mean absolute change of rank between the shuffles; None for one shuffle.
        windows: number of prompts answered.
        personalised: whether the prompt spoke of the shopper.
        prompt_ms: time spent on making the prompts, in milliseconds.
        model_ms: time spent on waiting for the model, in milliseconds.
    """

    logprobs: tuple[float | None, ...]
    outcome: Outcome
    issues: tuple[Issue, ...] = ()
    label_mass: float | None = None
    instability: float | None = None
    windows: int = 0
    template: TemplateRef | None = None
    personalised: bool = False
    deadline_hit: bool = False
    prompt_ms: float = 0.0
    model_ms: float = 0.0


class ListwiseRanker:
    """Ranks windows of candidates with one language model."""

    def __init__(
        self, model: LanguageModel, settings: RankingSettings, *, profile_tokens: int
    ) -> None:
        """Check that the model can be asked as the settings say.

        Raises:
            ConfigError: it lacks the readout, or has fewer labels than the window.
        """
        spec = model.spec
        if settings.readout not in spec.readouts:
            can = ", ".join(sorted(spec.readouts))
            raise ConfigError(
                f"ranking.readout = {settings.readout}: {spec.name} can only be read by {can}"
            )
        if settings.readout == "labels" and settings.window > len(spec.labels):
            raise ConfigError(
                f"ranking.window = {settings.window}: {spec.name} has {len(spec.labels)} labels; "
                "lower it, or set ranking.readout = verdict"
            )
        self.model = model
        self._settings = settings
        self._budget = PromptBudget(card=settings.card_tokens, profile=profile_tokens)

    def language(self, request: SearchRequest) -> Language:
        """Return the prompt language: the request's, else the setting's, else the query's."""
        if request.language is not None:
            return request.language
        if self._settings.language != "auto":
            return self._settings.language
        return detect_language(request.query)

    async def judge(
        self,
        request: SearchRequest,
        profile: UserProfile | None,
        candidates: Sequence[Candidate],
        *,
        deadline: float = math.inf,
    ) -> Judgement:
        """Ask the model about the first candidates, as many as one window holds.

        Args:
            request: the search.
            profile: of its shopper; None says nothing about anybody.
            candidates: most promising first; those beyond the window are not shown to the model.
            deadline: moment of `time.monotonic` at which waiting for the model ends.
        """
        size = min(len(candidates), self._settings.window)
        unseen: tuple[None, ...] = (None,) * (len(candidates) - size)
        if size < 2:
            return Judgement(logprobs=(None,) * len(candidates), outcome="model")
        clock = _Clock()
        try:
            # In a thread: cleaning and counting text would hold up other requests.
            draft, prompts = await anyio.to_thread.run_sync(
                self._prompts, request, profile, candidates[:size]
            )
            clock.prompts_made()
            with anyio.move_on_after(max(deadline - time.monotonic(), 0)) as waiting:
                answers = await self.model.read(prompts)
            if waiting.cancelled_caught:
                late = _fallback(len(candidates), "deadline", _LATE)
                return late.model_copy(update={**clock.read(), "deadline_hit": True})
            judged = self._read(prompts, answers, size)
        except ModelError as error:
            failed = _fallback(len(candidates), "model_error", str(error))
            return failed.model_copy(update=clock.read())
        except OutputError as error:
            failed = _fallback(len(candidates), "bad_output", str(error))
            return failed.model_copy(update=clock.read())
        return judged.model_copy(
            update={
                "logprobs": judged.logprobs + unseen,
                "issues": _cuts(draft) + judged.issues,
                "personalised": bool(draft.profile),
                **clock.read(),
            }
        )

    def _prompts(
        self,
        request: SearchRequest,
        profile: UserProfile | None,
        window: Sequence[Candidate],
    ) -> tuple[PromptDraft, list[Prompt]]:
        draft = draft_prompt(
            request,
            profile.summary if profile else None,
            window,
            language=self.language(request),
            readout=self._settings.readout,
            spec=self.model.spec,
            tokenizer=self.model.tokenizer,
            budget=self._budget,
        )
        key = [candidate.product.product_id for candidate in window]
        seed = f"{self._settings.seed}\n{request.query}\n{key}"
        orders = shuffled_orders(len(window), self._settings.shuffles, seed)
        return draft, [build_prompt(draft, order) for order in orders]

    def _read(
        self, prompts: Sequence[Prompt], answers: Sequence[SlotScores], size: int
    ) -> Judgement:
        if len(answers) != len(prompts):
            raise OutputError(f"the model answered {len(answers)} of {len(prompts)} prompts")
        by_shuffle = [
            slots_to_candidates(prompt, answer, size)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        masses = [answer.label_mass for answer in answers if answer.label_mass is not None]
        mass = sum(masses) / len(masses) if masses else None
        judged = Judgement(
            logprobs=tuple(sum(scores) / len(scores) for scores in zip(*by_shuffle, strict=True)),
            outcome="model",
            label_mass=mass,
            instability=instability(by_shuffle),
            windows=len(prompts),
            template=prompts[0].template,
        )
        if mass is None or mass >= self._settings.min_label_mass:
            return judged
        detail = (
            f"the model put {mass:.3f} of its probability on the labels, below "
            f"ranking.min_label_mass = {self._settings.min_label_mass}"
        )
        return judged.model_copy(
            update={
                "logprobs": (None,) * size,
                "outcome": "fallback",
                "issues": (Issue(code="low_label_mass", detail=detail),),
            }
        )


def shuffled_orders(size: int, count: int, seed: str) -> list[tuple[int, ...]]:
    """Return the orders in which a window is shown, the same for the same seed.

    A single order is recall order as it is. Of several, each odd one is a random permutation and
    each even one the reverse of its predecessor.
    """
    if count == 1:
        return [tuple(range(size))]
    generator = random.Random(seed)
    orders: list[tuple[int, ...]] = []
    while len(orders) < count:
        order = tuple(generator.sample(range(size), size))
        orders += [order, order[::-1]]
    return orders[:count]


def slots_to_candidates(prompt: Prompt, answer: SlotScores, size: int) -> list[float]:
    """Return the log-probabilities in candidate order.

    Raises:
        OutputError: the model scored another number of slots than the prompt has.
    """
    if len(answer.logprobs) != size:
        raise OutputError(f"the model scored {len(answer.logprobs)} of {size} candidates")
    scores = [0.0] * size
    for slot, candidate in enumerate(prompt.order):
        scores[candidate] = answer.logprobs[slot]
    return scores


def instability(by_shuffle: Sequence[Sequence[float]]) -> float | None:
    """Return the mean absolute difference of a candidate's rank between pairs of shuffles.

    0 means that the shown order does not matter; a random order gives about a third of the
    candidates' number.
    """
    if len(by_shuffle) < 2:
        return None
    ranks = []
    for scores in by_shuffle:
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        ranks.append({candidate: rank for rank, candidate in enumerate(order)})
    changes = [
        abs(first[candidate] - second[candidate])
        for position, first in enumerate(ranks)
        for second in ranks[position + 1 :]
        for candidate in first
    ]
    return sum(changes) / len(changes)


def _fallback(size: int, code: IssueCode, detail: str) -> Judgement:
    issues = (Issue(code=code, detail=detail),)
    return Judgement(logprobs=(None,) * size, outcome="fallback", issues=issues)


def _cuts(draft: PromptDraft) -> tuple[Issue, ...]:
    issues: tuple[Issue, ...] = ()
    if draft.shortened:
        detail = f"{draft.shortened} of {len(draft.cards)} product cards were cut to the context"
        issues += (Issue(code="cards_shortened", detail=detail),)
    if draft.profile_shortened:
        detail = "the profile was cut to profile.max_tokens or to the room beside the cards"
        issues += (Issue(code="profile_shortened", detail=detail),)
    return issues


class _Clock:
    """Splits the time of a judgement between making prompts and waiting for the model."""

    def __init__(self) -> None:
        self._started = self._made = time.monotonic()

    def prompts_made(self) -> None:
        self._made = time.monotonic()

    def read(self) -> dict[str, float]:
        return {
            "prompt_ms": (self._made - self._started) * 1000,
            "model_ms": (time.monotonic() - self._made) * 1000,
        }
