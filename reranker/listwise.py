"""Rank the candidates of a request with the language model, within a deadline.

The model judges whole windows at once (`reranker.windows`); a strategy (`reranker.strategies`)
puts the windows together. Whatever the model does, the answer is a `Judgement`: a failure is an
outcome with its reason, not an exception.
"""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Self

import anyio

from reranker.errors import ConfigError
from reranker.parsing import answer_tokens
from reranker.ports import LanguageModel, ModelSpec
from reranker.prompting import PromptBudget, detect_language
from reranker.schema import (
    Candidate,
    Issue,
    Language,
    Outcome,
    Readout,
    SearchRequest,
    TemplateRef,
    UserProfile,
    Value,
)
from reranker.settings import RankingSettings
from reranker.strategies import Ranking, Window
from reranker.windows import Questions, WindowAnswer, WindowJudge
from reranker.workers import in_worker

_LATE = "the deadline passed before the model answered"
_CUT_SHORT = "the deadline passed before the model had judged every window"
_PREFERRED: tuple[Readout, ...] = ("labels", "verdict", "generate")
_FIXED_TOKENS = 512
_SLOT_TOKENS = 8


class Judgement(Value):
    """What the model said about the candidates of a request.

    Attributes:
        places: the model's order: one a candidate, from 1; None where the model was not asked, was
            not heard in time, or its answer was not believed.
        logprobs: one a candidate, the mean over the prompts that showed it; None without any.
        reasons: one a candidate: what the model wrote on it, None where nothing stands.
        outcome: as in `RerankResult`.
        instability: mean absolute change of rank between the shuffles; None for one shuffle.
        windows: number of prompts answered.
        rounds: number of times that the model was asked one after the other.
        personalised: whether the prompts spoke of the shopper.
        prompt_ms: time spent on making the prompts, in milliseconds.
        model_ms: time spent on waiting for the model, in milliseconds.
    """

    places: tuple[int | None, ...]
    logprobs: tuple[float | None, ...]
    reasons: tuple[str | None, ...]
    outcome: Outcome
    issues: tuple[Issue, ...] = ()
    label_mass: float | None = None
    instability: float | None = None
    windows: int = 0
    rounds: int = 0
    template: TemplateRef | None = None
    personalised: bool = False
    deadline_hit: bool = False
    prompt_ms: float = 0.0
    model_ms: float = 0.0

    @classmethod
    def nothing(cls, size: int, outcome: Outcome = "fallback") -> Self:
        """Return the judgement of a model that was not asked about any of so many candidates."""
        nobody = (None,) * size
        return cls(places=nobody, logprobs=nobody, reasons=nobody, outcome=outcome)

    def followed_by(self, unseen: int) -> Self:
        """Return the judgement of a list that goes on with candidates that were not shown."""
        more = (None,) * unseen
        return self.model_copy(
            update={
                "places": self.places + more,
                "logprobs": self.logprobs + more,
                "reasons": self.reasons + more,
            }
        )


class ListwiseRanker:
    """Ranks lists of candidates with one language model."""

    def __init__(
        self, model: LanguageModel, settings: RankingSettings, *, profile_tokens: int
    ) -> None:
        """Check that the model can be asked as the settings say.

        Raises:
            ConfigError: it lacks the readout, or has fewer labels than the window.
        """
        spec = model.spec
        readout = _readout(settings, spec)
        if readout != "verdict" and settings.window > len(spec.labels):
            other = ", or set ranking.readout = verdict" if "verdict" in spec.readouts else ""
            raise ConfigError(
                f"ranking.window = {settings.window}: {spec.name} has {len(spec.labels)} labels; "
                f"lower it{other}"
            )
        self.model = model
        self._settings = settings
        self._readout = readout
        self._budget = PromptBudget(card=settings.card_tokens, profile=profile_tokens)
        room = spec.context_length - _FIXED_TOKENS - profile_tokens
        if readout == "generate":
            room -= answer_tokens(settings.window, settings.reasons)
        self._window = max(min(settings.window, room // (settings.card_tokens + _SLOT_TOKENS)), 2)

    def language(self, request: SearchRequest) -> Language:
        """Return the prompt language: the request's, else the setting's, else the query's."""
        if request.language is not None:
            return request.language
        if self._settings.language != "auto":
            return self._settings.language
        return detect_language(request.query)

    def begin(
        self,
        request: SearchRequest,
        profile: UserProfile | None,
        candidates: Sequence[Candidate],
    ) -> "Asking":
        """Begin to ask the model about all candidates, in as many windows as that takes.

        Args:
            request: the search; the order of its first ``k`` places matters.
            profile: of its shopper; None says nothing about anybody.
            candidates: most promising first.

        Raises:
            ConfigError: the request names an adapter, and the model takes none by name.
        """
        judge = WindowJudge(
            self.model if request.adapter is None else self.model.with_adapter(request.adapter),
            self._settings,
            self._budget,
            readout=self._readout,
            request=request,
            language=self.language(request),
            profile=profile,
            candidates=candidates,
        )
        ranking = Ranking(
            len(candidates),
            strategy=self._settings.strategy,
            window=self._window,
            step=min(self._settings.step, self._window - 1),
            top_k=request.k,
        )
        return Asking(judge, ranking, len(candidates))

    async def judge(
        self,
        request: SearchRequest,
        profile: UserProfile | None,
        candidates: Sequence[Candidate],
        *,
        deadline: float = math.inf,
    ) -> Judgement:
        """Ask the model about all candidates; see `begin` and `Asking.judgement`."""
        return await self.begin(request, profile, candidates).judgement(deadline=deadline)


class Asking:
    """The asking of the model about the candidates of one request."""

    def __init__(self, judge: WindowJudge, ranking: Ranking, size: int) -> None:
        """Take a ranking at its start, and who judges its windows of so many candidates."""
        self._judge = judge
        self._ranking = ranking
        self._size = size
        self._prepared: Questions | None = None

    def prepare(self) -> None:
        """Make the prompts of the first round in this thread, so that no other has to."""
        self._prepared = self._judge.questions(self._ranking.windows)

    async def judgement(self, *, deadline: float = math.inf) -> Judgement:
        """Return what the model says, once.

        Args:
            deadline: moment of `time.monotonic` at which waiting for the model ends. What it has
                judged by then keeps its places.
        """
        if self._size < 2:
            return Judgement.nothing(self._size, "model")
        evidence = _Evidence(self._size)
        with anyio.move_on_after(max(deadline - time.monotonic(), 0)) as waiting:
            while windows := self._ranking.windows:
                answers = await self._judge.answers(await self._questions(windows), deadline)
                evidence.add(windows, answers)
                self._ranking.take([answer.scores for answer in answers])
        order = self._ranking.order
        # A model that was told of the deadline may give up by itself, just before it.
        late = waiting.cancelled_caught or (
            len(order) < self._size and time.monotonic() >= deadline
        )
        watch = self._judge.stopwatch
        return evidence.judgement(order, late=late).model_copy(
            update={
                "rounds": watch.rounds,
                "prompt_ms": watch.prompt_ms,
                "model_ms": watch.model_ms,
            }
        )

    async def _questions(self, windows: Sequence[Window]) -> Questions:
        questions, self._prepared = self._prepared, None
        if questions is not None:
            return questions
        # In a thread: cleaning and counting text would hold up other requests.
        return await in_worker(self._judge.questions, windows)


def _readout(settings: RankingSettings, spec: ModelSpec) -> Readout:
    """Return the way in which the model is asked.

    Raises:
        ConfigError: it cannot be asked as the settings say.
    """
    wanted = _PREFERRED if settings.readout == "auto" else (settings.readout,)
    for readout in wanted:
        if readout in spec.readouts:
            return readout
    can = ", ".join(sorted(spec.readouts)) or "nothing"
    tuned = f" with {spec.adapter} (model.adapter = none takes it away)" if spec.adapter else ""
    raise ConfigError(
        f"ranking.readout = {settings.readout}: {spec.name}{tuned} can only be read by {can}"
    )


class _Evidence:
    """What the windows of one request have said so far."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._logprobs: defaultdict[int, list[float]] = defaultdict(list)
        self._reasons: dict[int, str] = {}
        self._answers: list[WindowAnswer] = []

    def add(self, windows: Sequence[Window], answers: Sequence[WindowAnswer]) -> None:
        """Take the answers of a round."""
        for window, answer in zip(windows, answers, strict=True):
            self._answers.append(answer)
            if answer.scores is not None and answer.logprobs:
                for candidate, score in zip(window, answer.scores, strict=True):
                    self._logprobs[candidate].append(score)
            for candidate, reason in zip(window, answer.reasons, strict=False):
                if reason is not None:
                    self._reasons.setdefault(candidate, reason)

    def judgement(self, order: Sequence[int], *, late: bool) -> Judgement:
        """Sum up, with the best order known."""
        places: list[int | None] = [None] * self._size
        for place, candidate in enumerate(order, start=1):
            places[candidate] = place
        heard = [answer for answer in self._answers if answer.scores is not None]
        first = heard[0] if heard else None
        return Judgement(
            places=tuple(places),
            logprobs=tuple(_mean(self._logprobs.get(c, ())) for c in range(self._size)),
            reasons=tuple(self._reasons.get(candidate) for candidate in range(self._size)),
            outcome=self._outcome(order),
            issues=self._issues(order, late=late),
            label_mass=_mean([a.label_mass for a in self._answers if a.label_mass is not None]),
            instability=_mean([a.instability for a in heard if a.instability is not None]),
            windows=sum(answer.prompts for answer in heard),
            template=first.template if first else None,
            personalised=any(answer.personalised for answer in heard),
            deadline_hit=late,
        )

    def _outcome(self, order: Sequence[int]) -> Outcome:
        if not order:
            return "fallback"
        return "repaired" if any(answer.repaired for answer in self._answers) else "model"

    def _issues(self, order: Sequence[int], *, late: bool) -> tuple[Issue, ...]:
        """Return what went wrong; the same trouble of several windows once."""
        issues = [issue for answer in self._answers for issue in answer.issues]
        lost = sum(answer.scores is None for answer in self._answers)
        if lost and order:
            detail = f"{lost} of {len(self._answers)} windows got no usable answer"
            issues.append(Issue(code="window_lost", detail=detail))
        if late:
            issues.append(Issue(code="deadline", detail=_CUT_SHORT if order else _LATE))
        return tuple(dict.fromkeys(issues))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
