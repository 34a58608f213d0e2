"""Turn a request, a profile and candidates into the question for the language model.

Training, evaluation and serving all call `build_prompt`, so that what is measured is what is
served. The order is made for the prefix cache: task, profile, query, candidates. What is said of
one product is made in `reranker.cards`.
"""

import re
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from pydantic import Field

from prompts import PromptTemplate, load_template
from reranker.cards import TEMPLATE_VERSION, Told, card_evidence, card_text, clean, cut_card
from reranker.errors import ContextOverflow
from reranker.parsing import answer_tokens
from reranker.ports import ModelSpec, Tokenizer
from reranker.schema import (
    VERDICT_SLOT,
    Candidate,
    Language,
    Prompt,
    Readout,
    SearchRequest,
    TemplateRef,
    Value,
)

_MESSAGES: dict[str, type[BaseMessage]] = {
    "system": SystemMessage,
    "user": HumanMessage,
    "assistant": AIMessage,
}
_VERDICT_PHRASE = re.compile(r"(buys it|会购买)(?:\s*[:：])+", re.IGNORECASE)
_QUERY_TOKENS = 64
_CONTEXT_TOKENS = 16
_CONTEXT_FACTS = 8
_SMALLEST_CARD = 6
_SPARE_TOKENS = 16
_MESSAGE_TOKENS = 8


class PromptBudget(Value):
    """How long the parts of a prompt may become, in the model's tokens.

    Attributes:
        card: longest product card.
        profile: longest profile text.
    """

    card: int = Field(ge=8)
    profile: int = Field(ge=16)


class PromptDraft(Value):
    """What all prompts of one window share, whatever order the candidates are shown in.

    Attributes:
        cards: card text by candidate of the window.
        reasons: products that a written answer gives a reason for.
        shortened: number of cards cut below the budget because the context was too short.
        profile_shortened: whether the profile lost words to its budget or to the cards' room.
        query_shortened: whether the query is longer than any prompt takes.
        context_cut: number of facts of the moment that were cut or left out.
    """

    profile: str
    query: str | None
    context: tuple[tuple[str, str], ...]
    cards: tuple[str, ...]
    language: Language
    readout: Readout
    labels: tuple[str, ...]
    answer_prefix: str
    token_count: int
    reasons: int = 0
    shortened: int = 0
    profile_shortened: bool = False
    query_shortened: bool = False
    context_cut: int = 0


def detect_language(query: str | None) -> Language:
    """Return ``zh`` for a query with Chinese characters, ``en`` for another and for none."""
    return "zh" if any("\u4e00" <= c <= "\u9fff" for c in query or "") else "en"


def draft_prompt(
    request: SearchRequest,
    told: Told | None,
    candidates: Sequence[Candidate],
    *,
    language: Language,
    readout: Readout,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    budget: PromptBudget,
    reasons: int = 0,
) -> PromptDraft:
    """Clean and cut everything that one window of candidates needs.

    Long profiles and queries are cut before the cards, and room is shared so that every card
    keeps what it needs up to an equal share. Room is left for a written answer.

    Args:
        request: the search.
        told: of its shopper; None says nothing about anybody.
        candidates: of the window.
        language: of the prompt.
        readout: how the answer will be read.
        spec: of the model.
        tokenizer: of the model.
        budget: longest card and profile.
        reasons: products that a written answer gives a reason for.

    Raises:
        ContextOverflow: even the shortest cards would not fit the model's context.
    """
    template = _template(readout, language)
    query = None if request.query is None else _cut(request.query, tokenizer, _QUERY_TOKENS)
    facts = [(clean(name), clean(value)) for name, value in request.context.items()]
    context = tuple(
        (_cut(name, tokenizer, _CONTEXT_TOKENS), _cut(value, tokenizer, _CONTEXT_TOKENS))
        for name, value in facts[:_CONTEXT_FACTS]
    )
    labels = _labels(readout, spec, len(candidates))
    reasons = min(reasons, len(candidates)) if readout == "generate" else 0
    evidence = [card_evidence(candidate, told, language) for candidate in candidates]
    bare = _variables(
        readout,
        profile="",
        query=query,
        context=context,
        cards=_cards(evidence, labels),
        answer_prefix=spec.answer_prefix,
        reasons=reasons,
    )
    profile = _lines(told.summary if told else "")
    whole = [card_text(candidate.product) for candidate in candidates]
    if readout == "verdict":  # no card may look like one that has been judged
        whole = [_VERDICT_PHRASE.sub(r"\1", card) for card in whole]
    messages = [text for _, text in template.render_messages(**bare)]
    # One call takes half as long as many.
    counted = tokenizer.count_all([*messages, *whole])
    fixed = sum(counted[: len(messages)]) + _MESSAGE_TOKENS * len(messages)
    answer = answer_tokens(len(candidates), reasons) if readout == "generate" else 0
    room = spec.context_length - fixed - answer - _SPARE_TOKENS
    smallest = _SMALLEST_CARD * len(candidates)
    if room < smallest:
        message = (
            f"{len(candidates)} candidates need at least "
            f"{fixed + answer + smallest + _SPARE_TOKENS} tokens and the model's context has "
            f"{spec.context_length}: lower ranking.window"
        )
        raise ContextOverflow(message)
    text = tokenizer.truncate(profile, min(budget.profile, room - smallest)).strip()
    room -= tokenizer.count(text)
    full = [
        card if count <= budget.card else cut_card(card, tokenizer, budget.card)
        for card, count in zip(whole, counted[len(messages) :], strict=True)
    ]
    counts = tokenizer.count_all(full)
    share = fair_share(counts, room)
    cards = tuple(
        (card if count <= share else cut_card(card, tokenizer, share)) + known
        for card, count, known in zip(full, counts, evidence, strict=True)
    )
    return PromptDraft(
        profile=text,
        query=query,
        context=context,
        cards=cards,
        language=language,
        readout=readout,
        labels=labels,
        answer_prefix=spec.answer_prefix,
        token_count=fixed + tokenizer.count(text) + sum(min(c, share) for c in counts),
        reasons=reasons,
        shortened=sum(count > share for count in counts),
        profile_shortened=text != profile,
        query_shortened=request.query is not None and query != clean(request.query),
        context_cut=len(set(facts).difference(context)),
    )


def build_prompt(draft: PromptDraft, order: Sequence[int]) -> Prompt:
    """Render a draft with its candidates shown in the given order.

    Args:
        draft: what the prompts of one window share.
        order: a permutation; slot i shows candidate ``order[i]``.
    """
    template = _template(draft.readout, draft.language)
    variables = _variables(
        draft.readout,
        profile=draft.profile,
        query=draft.query,
        context=draft.context,
        cards=_cards([draft.cards[index] for index in order], draft.labels),
        answer_prefix=draft.answer_prefix,
        reasons=draft.reasons,
    )
    messages = template.render_messages(**variables)
    return Prompt(
        messages=tuple(_MESSAGES[role](content=text) for role, text in messages if text),
        order=tuple(order),
        labels=draft.labels,
        readout=draft.readout,
        template=TemplateRef(
            name=template.name,
            version=template.version,
            language=draft.language,
            sha256=template.sha256,
        ),
        token_count=draft.token_count,
    )


def fair_share(needs: Sequence[int], room: int) -> int:
    """Return the largest cap such that the needs, each cut to it, fit the room together.

    What short ones leave over goes to the long ones (max-min fairness).
    """
    left, share = room, 0
    for index, need in enumerate(sorted(needs)):
        share = left // (len(needs) - index)
        if need > share:
            return share
        left -= need
    return max(needs, default=share)


def _template(readout: Readout, language: Language) -> PromptTemplate:
    return load_template(f"listwise_{readout}", language, TEMPLATE_VERSION)


def _labels(readout: Readout, spec: ModelSpec, count: int) -> tuple[str, ...]:
    if readout == "verdict":
        return ()
    if count > len(spec.labels):
        message = (
            f"{count} candidates in one window, but {spec.name} has {len(spec.labels)} labels: "
            "lower ranking.window"
        )
        raise ContextOverflow(message)
    return spec.labels[:count]


def _cards(texts: Sequence[str], labels: Sequence[str]) -> list[dict[str, str]]:
    if not labels:
        return [{"text": text, "slot": VERDICT_SLOT} for text in texts]
    return [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]


def _variables(
    readout: Readout, *, answer_prefix: str, reasons: int, **common: Any
) -> dict[str, Any]:
    """Return what the template of a readout takes: a verdict answers in its cards' places."""
    own: dict[Readout, dict[str, Any]] = {
        "labels": {"answer_prefix": answer_prefix},
        "verdict": {},
        "generate": {"reasons": reasons},
    }
    return common | own[readout]


def _cut(text: str, tokenizer: Tokenizer, max_tokens: int) -> str:
    return tokenizer.truncate(clean(text), max_tokens).strip()


def _lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.splitlines() if line.strip())
