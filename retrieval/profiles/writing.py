"""Has a language model write a summary of the facts of a profile, and keeps what they bear out."""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from prompts import PromptTemplate, load_template
from reranker.parsing.loose_json import find_values
from reranker.ports import LanguageModel
from reranker.schema import Prompt, TemplateRef, UserProfile, one_line
from retrieval.profiles.evidence import DropCause, Statement, fault
from retrieval.profiles.written import WrittenSentence, WrittenSummary, statements

_TEMPLATE_VERSION = 1
_MOST_SENTENCES = 5
_MOST_CHARACTERS = 200
_ANSWER_TOKENS = 480
_NEUTRAL = str.maketrans({"<": "‹", ">": "›"})


class SummaryWriter:
    """Writes summaries with one model."""

    def __init__(self, model: LanguageModel, *, answer_tokens: int = _ANSWER_TOKENS) -> None:
        """Take the model, and the longest answer in its tokens; a cut one gives fewer sentences."""
        self._model = model
        self._answer_tokens = answer_tokens

    async def write(
        self, profile: UserProfile, *, earlier: WrittenSummary | None = None
    ) -> WrittenSummary:
        """Return a summary of the facts of a profile, in its language.

        Args:
            profile: with facts of any kind.
            earlier: returned as it is if facts, template and model are what it was written from.

        Raises:
            ModelError: the model does not answer.
        """
        facts = statements(profile)
        template = load_template("profile_written", profile.language, _TEMPLATE_VERSION)
        spec = self._model.spec
        key = _key(facts, template, f"{spec.name}+{spec.adapter or ''}")
        if earlier is not None and earlier.key == key:
            return earlier
        answer = ""
        if facts:
            (answer,) = await self._model.write(
                [_prompt(facts, template, self._model)],
                schema=_schema(len(facts)),
                max_tokens=self._answer_tokens,
                scope=profile.user_id,
            )
        kept, dropped = read_answer(answer, facts)
        return WrittenSummary(
            key=key,
            model=spec.name,
            language=profile.language,
            sentences=kept,
            dropped=dropped,
        )


def read_answer(
    answer: str, facts: Sequence[Statement]
) -> tuple[tuple[WrittenSentence, ...], dict[DropCause, int]]:
    """Return the sentences of an answer that the facts bear out, and the causes of the others.

    Args:
        answer: as the model wrote it, in any form.
        facts: in the order of their numbers.
    """
    numbered = {str(number): fact for number, fact in enumerate(facts, start=1)}
    kept: list[WrittenSentence] = []
    dropped: Counter[DropCause] = Counter()
    for numbers, text in _sentences(answer):
        cited = [numbered[number] for number in numbers if number in numbered]
        cause = fault(text, cited)
        if cause is None:
            kept.append(WrittenSentence(text=text, facts=tuple(each.text for each in cited)))
        else:
            dropped[cause] += 1
    return tuple(kept[:_MOST_SENTENCES]), dict(dropped)


def _sentences(answer: str) -> list[tuple[list[str], str]]:
    found = []
    for value in find_values(answer):
        rows = value.value.get("sentences") if isinstance(value.value, dict) else value.value
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and isinstance(row.get("text"), str):
                numbers = row.get("facts")
                cited = numbers if isinstance(numbers, list) else [numbers]
                text = one_line(row["text"])[:_MOST_CHARACTERS]
                found.append(([str(each).strip() for each in cited], text))
    return found


def _prompt(facts: Sequence[Statement], template: PromptTemplate, model: LanguageModel) -> Prompt:
    listed = [
        {"number": number, "text": each.text.translate(_NEUTRAL)}
        for number, each in enumerate(facts, start=1)
    ]
    rendered = template.render_messages(facts=listed, sentences=_MOST_SENTENCES)
    kinds: dict[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage}
    return Prompt(
        messages=tuple(kinds[role](content=text) for role, text in rendered),
        order=(),
        labels=(),
        readout="generate",
        template=TemplateRef(
            name=template.name,
            version=template.version,
            language="zh" if template.language == "zh" else "en",
            sha256=template.sha256,
        ),
        token_count=sum(model.tokenizer.count(text) for _, text in rendered),
    )


def _schema(facts: int) -> dict[str, Any]:
    """Return the JSON Schema of an answer; everything is bounded, so that it comes to an end."""
    numbers = {"type": "string", "enum": [str(number) for number in range(1, facts + 1)]}
    sentence = {
        "type": "object",
        "properties": {
            "facts": {"type": "array", "items": numbers, "minItems": 1, "maxItems": 6},
            "text": {"type": "string", "minLength": 1, "maxLength": _MOST_CHARACTERS},
        },
        "required": ["facts", "text"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "sentences": {"type": "array", "items": sentence, "maxItems": _MOST_SENTENCES}
        },
        "required": ["sentences"],
        "additionalProperties": False,
    }


def _key(facts: Sequence[Statement], template: PromptTemplate, model: str) -> str:
    parts = [template.sha256, model, *(each.text for each in facts)]
    return blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()
