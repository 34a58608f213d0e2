"""From a prompt's messages to token ids, through the model's own chat template.

The embedded model and the vLLM client share this module, so that both ask exactly the same.

Messages may hold what shops and shoppers wrote. Where such text spells one of the model's special
tokens (``<|im_end|>`` and the like), it is broken up, so that no text can end a message.
"""

import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage

from reranker.errors import ConfigError, ModelUnavailable
from reranker.schema import VERDICT_SLOT, Prompt, Value

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER_PREFIXES = ("[", "")
"""What the answer to a `labels` prompt may start with, the best first: behind the bracket of the
cards a model puts its probability on labels. Some tokenizers (Qwen's) have ``[A`` as one token."""

LABELS = string.ascii_uppercase + string.ascii_lowercase
VERDICTS = (" yes", "yes")
_PROBE = "Which one?"
_ROLES = {"human": "user", "ai": "assistant", "system": "system"}


class RenderedPrompt(Value):
    """A prompt as the model reads it.

    Attributes:
        token_ids: up to the place where the first label or the answer would be written, or up to
            the last verdict.
        verdict_positions: index in `token_ids` of each slot's verdict token, in slot order; its
            log-probability is read from the logits one place before. Only for `verdict`.
        label_ids: token id of each slot's label, in slot order. Only for `labels`.
    """

    token_ids: tuple[int, ...]
    verdict_positions: tuple[int, ...] = ()
    label_ids: tuple[int, ...] = ()

    @property
    def score_positions(self) -> tuple[int, ...]:
        """Indices in `token_ids` whose logits tell the scores."""
        if self.verdict_positions:
            return tuple(position - 1 for position in self.verdict_positions)
        return (len(self.token_ids) - 1,)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a model folder with its chat template.

    Raises:
        ModelUnavailable: its files are missing or damaged.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            # Quicker to import by seconds than AutoTokenizer, and the same for such a folder.
            from transformers import PreTrainedTokenizerFast

            loaded: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(str(folder))
            return loaded
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:  # the tokenizers library raises no narrower class
        raise ModelUnavailable(f"{folder}: its tokenizer cannot be loaded: {error}") from error
    return loaded


class PromptRenderer:
    """Renders prompts for one model."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, name: str = "the model") -> None:
        """Try the chat template.

        Args:
            tokenizer: of the model, with its chat template.
            name: of the model, for messages.

        Raises:
            ConfigError: the model has no chat template, or it cannot render a question.
        """
        if not tokenizer.chat_template:
            message = f"{name}: it has no chat template: use an instruction-tuned model"
            raise ConfigError(message)
        self._tokenizer = tokenizer
        self.name = name
        self._labels: dict[str, Mapping[str, int]] = {}
        self._special = _special_pattern(tokenizer)
        self._takes_system = self._keeps_system_message()
        self._apply([{"role": "user", "content": _PROBE}])

    def verdict_token(self) -> int:
        """Return the id of the verdict token.

        Raises:
            ConfigError: the model writes neither `` yes`` nor ``yes`` as one token.
        """
        for verdict in VERDICTS:
            ids = self.encode(verdict)
            if len(ids) == 1:
                return ids[0]
        message = f"{self.name}: 'yes' is no single token, so the verdict readout cannot be used"
        raise ConfigError(message)

    def answer_prefix(self) -> str:
        """Return the start of an answer behind which most labels can be used.

        Raises:
            ConfigError: none can be used behind any.
        """
        counts: dict[str, int] = {}
        for prefix in ANSWER_PREFIXES:
            try:
                counts[prefix] = len(self.labels(prefix))
            except ConfigError:  # some templates cannot continue an answer that has begun
                counts[prefix] = 0
        best = max(ANSWER_PREFIXES, key=counts.__getitem__)
        if not counts[best]:
            message = f"{self.name}: no letter is one token at the start of its answer"
            raise ConfigError(f"{message}, so the labels readout cannot be used")
        return best

    def labels(self, answer_prefix: str) -> Mapping[str, int]:
        """Return the labels A-Z, a-z that are one token behind a prefix, with their token ids.

        Each is tried behind a really rendered chat that ends with the prefix: a label whose tokens
        depend on what stands before it is left out.

        Raises:
            ConfigError: the chat template cannot render such a chat.
        """
        if answer_prefix not in self._labels:
            chat = [{"role": "user", "content": _PROBE}]
            if answer_prefix:
                chat.append({"role": "assistant", "content": answer_prefix})
            self._labels[answer_prefix] = self._single_tokens(self._apply(chat))
        return self._labels[answer_prefix]

    def render(self, prompt: Prompt) -> RenderedPrompt:
        """Return the token ids of a prompt.

        Where its last message is the assistant's, the model goes on with it.

        Raises:
            ConfigError: the model cannot be asked in this way; the message says why.
        """
        text = self._apply(self.conversation(prompt.messages))
        if prompt.readout == "verdict":
            return self._verdicts(text, slots=len(prompt.order))
        if prompt.readout == "generate":
            return RenderedPrompt(token_ids=tuple(self.encode(text)))
        last = prompt.messages[-1]
        known = self.labels(_content(last) if last.type == "ai" else "")
        unknown = [label for label in prompt.labels if label not in known]
        if unknown:
            message = (
                f"{self.name}: {', '.join(unknown)} cannot be labels behind the answer's start "
                f"{_content(last)[:20]!r}; usable are {''.join(known) or 'none'}"
            )
            raise ConfigError(message)
        ids = tuple(known[label] for label in prompt.labels)
        return RenderedPrompt(token_ids=tuple(self.encode(text)), label_ids=ids)

    def continued(
        self, prompt: Prompt, rendered: RenderedPrompt, labels: Sequence[str]
    ) -> tuple[int, ...]:
        """Return the tokens of a whole ranking behind a `labels` prompt, its end included.

        Args:
            prompt: whose answer may have begun with a bracket.
            rendered: the same as tokens.
            labels: best first.

        Raises:
            ConfigError: the model's tokens run the prompt's end, a label and what follows together.
        """
        last = prompt.messages[-1]
        prefix = _content(last) if last.type == "ai" else ""
        closing = "]" if prefix == "[" else ""
        answer = " > ".join(f"{prefix}{label}{closing}" for label in labels)
        text = self._apply(self.conversation(prompt.messages)) + answer[len(prefix) :]
        ids, start = self.encode(text), len(rendered.token_ids)
        begun = (*rendered.token_ids, rendered.label_ids[prompt.labels.index(labels[0])])
        if tuple(ids[: start + 1]) != begun:
            raise ConfigError(
                f"{self.name}: its tokens run a label and what is written behind it together, so "
                "training.written cannot be used"
            )
        end = () if self.end_id is None else (self.end_id,)
        return (*ids[start:], *end)

    def conversation(self, messages: Sequence[BaseMessage]) -> list[dict[str, str]]:
        """Return messages in the form that chat templates and servers take.

        Special tokens spelt in their text are broken up; a system message that the template does
        not take becomes the start of the user's.
        """
        chat = [
            {"role": _ROLES[message.type], "content": self._special.sub(_broken, _content(message))}
            for message in messages
        ]
        if chat[0]["role"] == "system" and not self._takes_system:
            task, question, *rest = chat
            content = f"{task['content']}\n\n{question['content']}"
            return [{"role": "user", "content": content}, *rest]
        return chat

    def encode(self, text: str) -> list[int]:
        """Return the ids of rendered text, special tokens recognised and none added."""
        # The template has written the BOS token already where the model wants one.
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of what a model has written, without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    @property
    def end_id(self) -> int | None:
        """The token that ends an answer, as far as the tokenizer names it."""
        found = self._tokenizer.eos_token_id
        return found if isinstance(found, int) else None

    def sample(self, question: str) -> str:
        """Return a rendered chat that asks a question, for comparing tokenizers."""
        return self._apply([{"role": "user", "content": question}])

    def probe(self, label_ids: Sequence[int]) -> RenderedPrompt:
        """Return a short question with these labels, for trying a server."""
        return RenderedPrompt(
            token_ids=tuple(self.encode(self.sample(_PROBE))), label_ids=tuple(label_ids)
        )

    def _verdicts(self, text: str, *, slots: int) -> RenderedPrompt:
        segments = text.split(VERDICT_SLOT)[:-1]
        if len(segments) != slots:
            message = f"the prompt shows {slots} candidates and marks {len(segments)} verdicts"
            raise ConfigError(message)
        verdict = self.verdict_token()
        ids: list[int] = []
        positions = []
        # Segments are encoded one by one: no token can then reach across a verdict's place.
        for segment in segments:
            ids += self.encode(segment)
            positions.append(len(ids))
            ids.append(verdict)
        return RenderedPrompt(token_ids=tuple(ids), verdict_positions=tuple(positions))

    def _single_tokens(self, text: str) -> Mapping[str, int]:
        start = self.encode(text)
        found: dict[str, int] = {}
        for label in LABELS:
            *before, last = self.encode(text + label)
            if before == start and last not in found.values():
                found[label] = last
        return found

    def _keeps_system_message(self) -> bool:
        chat = [{"role": "system", "content": "Task 7351"}, {"role": "user", "content": _PROBE}]
        try:
            return "Task 7351" in self._apply(chat)
        except ConfigError:  # some templates raise on it, others drop it
            return False

    def _apply(self, chat: list[dict[str, str]]) -> str:
        from jinja2 import TemplateError

        continues = chat[-1]["role"] == "assistant"
        options: dict[str, Any] = {
            "tokenize": False,
            "add_generation_prompt": not continues,
            "continue_final_message": continues,
            # Known to the templates of models that otherwise think aloud first; others ignore it.
            "enable_thinking": False,
        }
        try:
            return str(self._tokenizer.apply_chat_template(chat, **options))
        except (TemplateError, ValueError) as error:
            act = "continue an answer" if continues else "render a question"
            reason = str(error).split("\n", maxsplit=1)[0]
            message = f"{self.name}: its chat template cannot {act}: {reason}"
            raise ConfigError(message) from error


def _content(message: BaseMessage) -> str:
    if not isinstance(message.content, str):
        raise ConfigError(f"a {message.type} message of a prompt has to be plain text")
    return message.content


def _special_pattern(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    added |= {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if len(token.content) > 2 and token.content[0] in "<[" and token.content.isprintable()
    }
    names = sorted((name for name in added if name.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names)) or r"(?!)")


def _broken(match: re.Match[str]) -> str:
    return f"{match[0][0]} {match[0][1:]}"
