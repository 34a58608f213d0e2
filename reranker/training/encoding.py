"""From an example to tokens, by the code that serving uses."""

import logging
import random
from collections.abc import Sequence

from reranker.models.rendering import PromptRenderer, RenderedPrompt
from reranker.ports import ModelSpec, Tokenizer
from reranker.prompting import PromptBudget, build_prompt, draft_prompt
from reranker.schema import Prompt, Readout, TemplateRef, Value
from reranker.training.examples import Logged, TrainingExample

logger = logging.getLogger(__name__)


class EncodedList(Value):
    """One list as the model reads it; grades, item weights and scores are in slot order.

    Attributes:
        item_weights: see `TrainingExample`.
        written: token ids of the ranking written out behind the prompt; empty where none is learnt.
        logged: None where no propensity was logged.
        weight: of the list in the loss.
    """

    prompt: RenderedPrompt
    grades: tuple[float, ...]
    item_weights: tuple[float, ...] | None = None
    teacher: tuple[float, ...] | None
    written: tuple[int, ...] = ()
    logged: Logged | None = None
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.prompt.token_ids) + len(self.written)

    @property
    def with_written(self) -> RenderedPrompt:
        """The prompt and the ranking behind it, whose tokens are read as verdicts are."""
        token_ids = self.prompt.token_ids + self.written
        places = range(len(self.prompt.token_ids), len(token_ids))
        return RenderedPrompt(token_ids=token_ids, verdict_positions=tuple(places))


class PromptMaker:
    """Makes the prompts of examples as serving would."""

    def __init__(
        self, tokenizer: Tokenizer, spec: ModelSpec, *, readout: Readout, budget: PromptBudget
    ) -> None:
        """Take what serving would take.

        Args:
            tokenizer: of the model.
            spec: of the model.
            readout: ``verdict`` or ``labels``.
            budget: longest card and profile.
        """
        self._tokenizer = tokenizer
        self._spec = spec
        self._readout = readout
        self._budget = budget

    def prompt(self, example: TrainingExample, order: Sequence[int]) -> Prompt:
        """Return the prompt of an example whose candidates are shown in an order.

        Raises:
            ContextOverflow: the list is longer than the model's context.
        """
        request = example.request
        draft = draft_prompt(
            request,
            example.told,
            example.candidates,
            language=request.language or "en",
            readout=self._readout,
            spec=self._spec,
            tokenizer=self._tokenizer,
            budget=self._budget,
        )
        return build_prompt(draft, order)

    @property
    def context_length(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self._spec.context_length


class ExampleEncoder:
    """Encodes examples for one model and readout."""

    def __init__(self, prompts: PromptMaker, renderer: PromptRenderer, *, seed: int = 0) -> None:
        """Take what serving would take.

        Args:
            prompts: makes the prompts.
            renderer: of the model.
            seed: of the orders in which lists are shown.
        """
        self._prompts = prompts
        self._renderer = renderer
        self._seed = seed
        self._warned = False
        self.templates: dict[str, TemplateRef] = {}

    def encode(self, example: TrainingExample, *, writes: bool = False) -> EncodedList:
        """Return an example with its candidates in an order of its own.

        The order depends on the example's id alone, which names the visit: at every visit each
        candidate stands in another slot, and a slot tells nothing.

        Args:
            example: the list.
            writes: put the ranking behind the prompt, which is to ask for labels, where the
                model's context has room for it.

        Raises:
            ContextOverflow: the list is longer than the model's context.
            ConfigError: the model cannot be asked in this way.
        """
        order = list(range(len(example.candidates)))
        random.Random(f"{self._seed}/{example.example_id}").shuffle(order)
        prompt = self._prompts.prompt(example, order)
        self.templates[prompt.template.language] = prompt.template
        teacher, logged = example.teacher, example.logged
        rendered = self._renderer.render(prompt)
        weights = example.item_weights
        grades = tuple(example.grades[index] for index in order)
        taught = None if teacher is None else tuple(teacher[index] for index in order)
        written: tuple[int, ...] = ()
        if writes:
            ranking = ranked(grades, taught, seed=example.example_id)
            written = self._written(prompt, rendered, ranking)
        return EncodedList(
            prompt=rendered,
            grades=grades,
            item_weights=None if weights is None else tuple(weights[index] for index in order),
            teacher=taught,
            written=written,
            logged=logged and Logged(place=order.index(logged.place), propensity=logged.propensity),
            weight=example.weight,
        )

    def _written(
        self, prompt: Prompt, rendered: RenderedPrompt, ranking: Sequence[int]
    ) -> tuple[int, ...]:
        """Return the tokens of a ranking of slots, going on with the answer that has begun.

        Raises:
            ConfigError: see `PromptRenderer.continued`.
        """
        if not ranking:
            return ()
        labels = [prompt.labels[slot] for slot in ranking]
        ids = self._renderer.continued(prompt, rendered, labels)
        if len(rendered.token_ids) + len(ids) <= self._prompts.context_length:
            return ids
        if not self._warned:
            self._warned = True
            logger.warning(
                "there is no room in the model's context for the written ranking of a list of %d: "
                "such lists teach their order alone; lower training.candidates or "
                "ranking.card_tokens",
                len(prompt.order),
            )
        return ()


def ranked(
    grades: Sequence[float], teacher: Sequence[float] | None, *, seed: str = ""
) -> list[int]:
    """Return the slots that are known to be good, best first: by grade, then by the teacher.

    Without a teacher those with a grade; with one all of them. Equals stand in an order drawn by
    the seed: where they are shown tells nothing.
    """
    known = [n for n, grade in enumerate(grades) if grade > 0 or teacher is not None]
    random.Random(f"{seed}/written").shuffle(known)
    return sorted(known, key=lambda slot: (-grades[slot], -(teacher[slot] if teacher else 0.0)))


def by_length(lists: Sequence[EncodedList], most_tokens: int) -> list[list[EncodedList]]:
    """Group lists of similar length so that each group, padded, has at most so many tokens.

    A list that is longer alone makes a group of its own.
    """
    groups: list[list[EncodedList]] = []
    for one in sorted(lists, key=len, reverse=True):
        group = groups[-1] if groups else []
        if group and (len(group) + 1) * len(group[0]) <= most_tokens:
            group.append(one)
        else:
            groups.append([one])
    return groups
