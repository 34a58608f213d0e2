"""Ask the language model about windows of candidates, in several orders each, at the same time."""

import time
from collections.abc import Sequence

from reranker.at_once import at_once
from reranker.cards import Told, card_names
from reranker.deadlines import Stopwatch
from reranker.errors import ModelError, OutputError
from reranker.parsing import (
    RepairCode,
    WrittenRanking,
    answer_schema,
    answer_tokens,
    parse_ranking,
    supported_reasons,
)
from reranker.ports import LanguageModel
from reranker.prompting import PromptBudget, PromptDraft, build_prompt, draft_prompt
from reranker.schema import (
    Candidate,
    Issue,
    IssueCode,
    Language,
    Prompt,
    Readout,
    SearchRequest,
    SlotScores,
    TemplateRef,
    UserProfile,
    Value,
)
from reranker.settings import RankingSettings
from reranker.shuffles import instability, means, shuffled_orders, slots_to_candidates
from reranker.workers import in_worker

_OF_THE_ORDER: frozenset[RepairCode] = frozenset(
    {"duplicate", "out_of_range", "omitted", "several", "truncated", "too_long"}
)


class WindowAnswer(Value):
    """What the model said about one window.

    Attributes:
        scores: one a candidate in the window's order, higher is better; None for a lost window.
        logprobs: whether the scores are log-probabilities; else they come from written places.
        reasons: one a candidate, None where the model gave none that stands.
        repaired: whether a written ranking left the order open somewhere. Slips of form alone (talk
            around the answer, other brackets) are issues and no repair of the order.
        prompts: number of prompts answered.
        instability: mean absolute change of rank between the shuffles; None for one shuffle.
    """

    scores: tuple[float, ...] | None
    logprobs: bool = True
    reasons: tuple[str | None, ...] = ()
    repaired: bool = False
    issues: tuple[Issue, ...] = ()
    label_mass: float | None = None
    instability: float | None = None
    prompts: int = 0
    template: TemplateRef | None = None
    personalised: bool = False


class WindowJudge:
    """Asks one language model about the windows of one request."""

    def __init__(
        self,
        model: LanguageModel,
        settings: RankingSettings,
        budget: PromptBudget,
        *,
        readout: Readout,
        request: SearchRequest,
        language: Language,
        profile: UserProfile | None,
        candidates: Sequence[Candidate],
    ) -> None:
        """Take what all windows of a request share."""
        self._model = model
        self._settings = settings
        self._budget = budget
        self._readout = readout
        self._request = request
        self._language = language
        self._told = Told.of(profile) if profile else None
        self._candidates = candidates
        self.stopwatch = Stopwatch()

    def questions(self, windows: Sequence[tuple[int, ...]]) -> "Questions":
        """Make the prompts of windows: milliseconds of cleaning and counting text.

        Args:
            windows: each the indices of its candidates.
        """
        with self.stopwatch.making_prompts():
            return [self._question(window) for window in windows]

    async def answers(self, questions: "Questions", deadline: float) -> list[WindowAnswer]:
        """Have windows judged at the same time; one that fails is lost, its issue tells why.

        Args:
            questions: of the windows.
            deadline: moment of `time.monotonic` that the model is told of.
        """
        with self.stopwatch.asking():
            return await at_once(lambda one: self._answer(one, deadline), questions)

    def _question(self, window: tuple[int, ...]) -> "_Question | WindowAnswer":
        shown = [self._candidates[index] for index in window]
        try:
            draft = draft_prompt(
                self._request,
                self._told,
                shown,
                language=self._language,
                readout=self._readout,
                spec=self._model.spec,
                tokenizer=self._model.tokenizer,
                budget=self._budget,
                reasons=self._settings.reasons,
            )
        except ModelError as error:
            return _lost("model_error", str(error))
        key = [candidate.product.product_id for candidate in shown]
        seed = f"{self._settings.seed}\n{self._request.query}\n{key}"
        orders = shuffled_orders(len(window), self._settings.shuffles, seed)
        named = shown if self._readout == "generate" else ()
        return _Question(
            draft=draft,
            prompts=tuple(build_prompt(draft, order) for order in orders),
            names=frozenset(name for each in named for name in card_names(each.product)),
        )

    async def _answer(self, question: "_Question | WindowAnswer", deadline: float) -> WindowAnswer:
        if isinstance(question, WindowAnswer):
            return question
        prompts = question.prompts
        scope = self._request.user_id
        seconds = deadline - time.monotonic()
        try:
            if self._readout != "generate":
                scores = await self._model.read(prompts, scope=scope, seconds=seconds)
                answer = self._from_scores(prompts, scores)
            else:
                labels, reasons = question.draft.labels, self._settings.reasons
                texts = await self._model.write(
                    prompts,
                    schema=answer_schema(labels, reasons),
                    max_tokens=answer_tokens(len(labels), reasons),
                    scope=scope,
                    seconds=seconds,
                )
                # In a thread: a long answer takes a while to read, and others wait meanwhile.
                answer = await in_worker(_from_texts, question, texts)
        except ModelError as error:
            return _lost("model_error", str(error))
        except OutputError as error:
            return _lost("bad_output", str(error))
        return answer.model_copy(
            update={
                "issues": _cuts(question.draft) + answer.issues,
                "personalised": bool(question.draft.profile),
                "prompts": len(prompts),
                "template": prompts[0].template,
            }
        )

    def _from_scores(
        self, prompts: Sequence[Prompt], answers: Sequence[SlotScores]
    ) -> WindowAnswer:
        _check_count(prompts, answers)
        by_shuffle = [slots_to_candidates(*pair) for pair in zip(prompts, answers, strict=True)]
        masses = [answer.label_mass for answer in answers if answer.label_mass is not None]
        mass = sum(masses) / len(masses) if masses else None
        if mass is not None and mass < self._settings.min_label_mass:
            detail = (
                f"the model put {mass:.3f} of its probability on the labels, below "
                f"ranking.min_label_mass = {self._settings.min_label_mass}"
            )
            return _lost("low_label_mass", detail).model_copy(update={"label_mass": mass})
        return WindowAnswer(
            scores=means(by_shuffle), label_mass=mass, instability=instability(by_shuffle)
        )


class _Question(Value):
    """The prompts of a window; where reasons are written, with its brands and categories."""

    draft: PromptDraft
    prompts: tuple[Prompt, ...]
    names: frozenset[str]


Questions = Sequence[_Question | WindowAnswer]
"""Of each window of a round; the answer already where its prompts cannot be made."""


def _from_texts(question: _Question, texts: Sequence[str]) -> WindowAnswer:
    """Read written rankings: a candidate's score is its mean place, negated."""
    prompts = question.prompts
    _check_count(prompts, texts)
    written = [parse_ranking(text, question.draft.labels) for text in texts]
    by_shuffle = []
    issues: tuple[Issue, ...] = ()
    for prompt, ranking in zip(prompts, written, strict=True):
        scores = [0.0] * len(prompt.order)
        for place, slot in enumerate(ranking.order):
            scores[prompt.order[slot]] = -float(place)
        by_shuffle.append(scores)
        issues += tuple(
            Issue(code="repaired", detail=f"{repair.code}: {repair.detail}")
            for repair in ranking.repairs
        )
    reasons, dropped = _reasons(question, written)
    return WindowAnswer(
        scores=means(by_shuffle),
        logprobs=False,
        reasons=reasons,
        repaired=any(
            repair.code in _OF_THE_ORDER for ranking in written for repair in ranking.repairs
        ),
        issues=issues + dropped,
        instability=instability(by_shuffle),
    )


def _reasons(
    question: _Question, written: Sequence[WrittenRanking]
) -> tuple[tuple[str | None, ...], tuple[Issue, ...]]:
    """Return the first reason that stands of each candidate, and what was wrong with the others."""
    draft = question.draft
    kept: list[str | None] = [None] * len(draft.cards)
    issues: list[Issue] = []
    for prompt, ranking in zip(question.prompts, written, strict=True):
        cards = [draft.cards[index] for index in prompt.order]
        standing, dropped = supported_reasons(
            ranking,
            profile=draft.profile,
            cards=cards,
            names=question.names,
            query=draft.query,
        )
        issues += [Issue(code="reason_dropped", detail=cause) for cause in dropped]
        for reason in standing:
            candidate = prompt.order[reason.slot]
            kept[candidate] = kept[candidate] or reason.text
    return tuple(kept), tuple(issues)


def _check_count(prompts: Sequence[Prompt], answers: Sequence[object]) -> None:
    if len(answers) != len(prompts):
        raise OutputError(f"the model answered {len(answers)} of {len(prompts)} prompts")


def _lost(code: IssueCode, detail: str) -> WindowAnswer:
    return WindowAnswer(scores=None, issues=(Issue(code=code, detail=detail),))


def _cuts(draft: PromptDraft) -> tuple[Issue, ...]:
    issues: tuple[Issue, ...] = ()
    if draft.shortened:
        detail = f"{draft.shortened} of {len(draft.cards)} product cards were cut to the context"
        issues += (Issue(code="cards_shortened", detail=detail),)
    if draft.profile_shortened:
        detail = "the profile was cut to profile.max_tokens or to the room beside the cards"
        issues += (Issue(code="profile_shortened", detail=detail),)
    if draft.query_shortened:
        detail = "the query was cut to its first words"
        issues += (Issue(code="query_shortened", detail=detail),)
    if draft.context_cut:
        detail = f"{draft.context_cut} facts of the context were too long or too many"
        issues += (Issue(code="context_cut", detail=detail),)
    return issues
