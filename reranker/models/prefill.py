"""One pass of a causal language model over prompts, read at a few places.

To score prompts nothing is generated: a prompt costs its prefill, and the vocabulary is computed
only where a score is read. What the prompts of a batch start with is computed once, and kept for
later batches of the same scope, that is, of the same shopper.

Importing this module loads torch and transformers.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from reranker.models.rendering import RenderedPrompt

CPU_PASS_TOKENS = 1024
"""Rows times tokens, padding included, that one pass computes at most on a CPU: wider passes are no
quicker there, and only between passes can a batch be given up that nobody waits for."""

GPU_PASS_TOKENS = 16_384
_SHORTEST_PREFIX = 16
KeyValues = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each layer, each of shape (1, heads, tokens, width)."""

_PrefixKey = tuple[str | None, tuple[int, ...]]


class Interrupted(Exception):  # noqa: N818 - not an error: nobody waits for the answer any more
    """The caller has gone."""


class ScoreHead(nn.Module):
    """A model's output layer, computed in float32 and only where a score is read.

    Half precision would round log-probabilities to steps of about 0.1: candidates would tie, and
    ties are broken by place.
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(head.weight.detach().float(), requires_grad=False)
        bias = head.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), False)
        self.positions: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits of shape (rows, positions, vocabulary) for (rows, tokens, width)."""
        if self.positions is None:
            hidden = hidden[:, :0]
        else:
            rows = torch.arange(len(hidden), device=hidden.device)[:, None]
            hidden = hidden[rows, self.positions]
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight, self.bias)


class PrefixCache:
    """The keys and values of the prompt starts used last. Entries are never written to.

    An entry only serves prompts of the scope that it was computed for: how long an answer takes
    must not tell one shopper what another has asked.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._kept: OrderedDict[_PrefixKey, KeyValues] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(
        self, tokens: Sequence[int], scope: str | None, *, before: int = 0
    ) -> tuple[int, KeyValues]:
        """Return how many of the first tokens are known, and their keys and values.

        With those of ``before`` places that stand before every prompt.
        """
        lengths = {key: common_prefix([key[1], tokens]) for key in self._kept if key[0] == scope}
        best = max(lengths, key=lengths.__getitem__, default=None)
        if best is None or lengths[best] < _SHORTEST_PREFIX:
            return 0, ()
        self._kept.move_to_end(best)
        return lengths[best], cut(self._kept[best], before + lengths[best])

    def keep(self, tokens: Sequence[int], scope: str | None, values: KeyValues) -> None:
        """Keep keys and values, in place of entries that they contain."""
        new = tuple(tokens)
        if not self._entries or len(new) < _SHORTEST_PREFIX:
            return
        for key in [key for key in self._kept if key[0] == scope and key[1] == new[: len(key[1])]]:
            del self._kept[key]
        # A copy: a view would hold on to the memory of the whole pass that it is part of.
        self._kept[scope, new] = tuple((keys.clone(), kept.clone()) for keys, kept in values)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)


class CausalScorer:
    """Scores rendered prompts with one model. Not thread-safe."""

    def __init__(
        self,
        model: Any,
        *,
        prefixes: int,
        pass_tokens: int | None = None,
        learned: KeyValues = (),
    ) -> None:
        """Take over a loaded model; its output layer is replaced.

        Args:
            model: a causal `PreTrainedModel` in evaluation mode, on its device.
            prefixes: number of prompt starts kept between calls.
            pass_tokens: rows times tokens of one pass; None suits it to the device.
            learned: stands before every prompt; of layers that look back without bounds.
        """
        self._model = model
        self._learned = learned
        self._before = learned[0][0].shape[2] if learned else 0
        widest = CPU_PASS_TOKENS if model.device.type == "cpu" else GPU_PASS_TOKENS
        self._pass_tokens = pass_tokens or widest
        self.prefixes = PrefixCache(prefixes)
        self._head = ScoreHead(self._model.get_output_embeddings())
        self._model.set_output_embeddings(self._head)
        # Windowed and recurrent layers forget tokens, so their state cannot be cut to a prefix.
        layers = DynamicCache(config=model.config).layers
        self._reuses = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)

    @torch.inference_mode()
    def score(
        self,
        prompts: Sequence[RenderedPrompt],
        stopped: Callable[[], bool] = lambda: False,
        *,
        scope: str | None = None,
    ) -> list[tuple[float, ...]]:
        """Return for each prompt the natural-log probability of each slot.

        Args:
            prompts: at least one.
            stopped: asked between passes whether nobody waits for the answer any more.
            scope: whose kept prompt starts may serve these, and may be replaced by theirs.

        Raises:
            Interrupted: it said so.
        """
        shared, values = self._shared(prompts, scope)
        scores: dict[int, tuple[float, ...]] = {}
        for group in self._groups([len(prompt.token_ids) for prompt in prompts]):
            if stopped():
                raise Interrupted
            rows = [prompts[index] for index in group]
            logits, cache = self._pass(rows, shared, values, keep=len(prompts) == 1)
            if cache is not None:
                length = rows[0].score_positions[0]
                start = rows[0].token_ids[:length]
                self.prefixes.keep(start, scope, cut(_values(cache), self._before + length))
            for index, prompt, row in zip(group, rows, logits, strict=True):
                scores[index] = tuple(slot_logprobs(prompt, row).tolist())
        return [scores[index] for index in range(len(prompts))]

    @torch.inference_mode()
    def write(
        self,
        prompt: RenderedPrompt,
        *,
        max_tokens: int,
        end_ids: Sequence[int],
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[int]:
        """Return the tokens that the model writes behind a prompt, the likeliest each time.

        Args:
            prompt: nothing of it is kept.
            max_tokens: longest answer.
            end_ids: tokens that end an answer; they are not part of it.
            stopped: asked before each token whether nobody waits for the answer any more.

        Raises:
            Interrupted: it said so.
        """
        device = self._model.device
        cache = self._cache((), rows=1)
        tokens = torch.tensor([prompt.token_ids], device=device)
        places = torch.arange(tokens.shape[1], device=device) + self._before
        written: list[int] = []
        self._head.positions = torch.tensor([[tokens.shape[1] - 1]], device=device)
        while len(written) < max_tokens:
            if stopped():
                raise Interrupted
            output = self._model(
                input_ids=tokens, position_ids=places[None], past_key_values=cache, use_cache=True
            )
            best = int(output.logits[0, -1].argmax())
            if best in end_ids:
                break
            written.append(best)
            tokens = torch.tensor([[best]], device=device)
            places = places[-1:] + 1
            self._head.positions = torch.zeros((1, 1), dtype=torch.long, device=device)
        return written

    def _shared(
        self, prompts: Sequence[RenderedPrompt], scope: str | None
    ) -> tuple[int, KeyValues]:
        """Return how many first tokens all prompts share, computed, and their keys and values."""
        if not self._reuses:
            return 0, ()
        limit = min(prompt.score_positions[0] for prompt in prompts)
        length = min(common_prefix([prompt.token_ids for prompt in prompts]), limit)
        tokens = prompts[0].token_ids[:length]
        known, values = self.prefixes.find(tokens, scope, before=self._before)
        # A single prompt is computed in one pass from what is known, and kept afterwards.
        if len(prompts) == 1 or known == length or length < _SHORTEST_PREFIX:
            return known, values
        cache = self._cache(values, rows=1)
        self._forward(torch.tensor([tokens[known:]]), known, cache, None)
        values = _values(cache)
        self.prefixes.keep(tokens, scope, values)
        return length, values

    def _pass(
        self, rows: Sequence[RenderedPrompt], shared: int, values: KeyValues, *, keep: bool
    ) -> tuple[Tensor, DynamicCache | None]:
        """Return the logits of a pass, and its cache if that is to be kept and can be."""
        tokens, positions = padded(rows, shared)
        keep = keep and self._reuses
        kept = keep or values or self._learned
        cache = self._cache(values, rows=len(rows)) if kept else None
        logits = self._forward(tokens, shared, cache, positions)
        return logits, cache if keep else None

    def _forward(
        self, tokens: Tensor, start: int, cache: DynamicCache | None, positions: Tensor | None
    ) -> Tensor:
        device = self._model.device
        self._head.positions = None if positions is None else positions.to(device)
        places = torch.arange(start, start + tokens.shape[1], device=device) + self._before
        output = self._model(
            input_ids=tokens.to(device),
            position_ids=places.expand(len(tokens), -1),
            past_key_values=cache,
            use_cache=cache is not None,
        )
        logits: Tensor = output.logits
        return logits

    def _cache(self, values: KeyValues, *, rows: int) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        for layer, (keys, kept) in enumerate(values or self._learned):
            cache.update(keys.expand(rows, -1, -1, -1), kept.expand(rows, -1, -1, -1), layer)
        return cache

    def _groups(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield indices of prompts of similar length that fit one pass together."""
        group: list[int] = []
        for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
            if group and (len(group) + 1) * lengths[group[0]] > self._pass_tokens:
                yield group
                group = []
            group.append(index)
        yield group


def padded(rows: Sequence[RenderedPrompt], start: int = 0) -> tuple[Tensor, Tensor]:
    """Return the tokens of some prompts from a place on, and the places of their scores.

    Shapes are (rows, longest) and (rows, most scores); places count from the start. Padded is on
    the right: under causal attention no token that counts can see the padding.
    """
    tails = [row.token_ids[start:] for row in rows]
    width = max(map(len, tails))
    tokens = torch.tensor([[*tail, *[0] * (width - len(tail))] for tail in tails])
    places = [[place - start for place in row.score_positions] for row in rows]
    most = max(map(len, places))
    positions = torch.tensor([[*own, *[own[-1]] * (most - len(own))] for own in places])
    return tokens, positions


def slot_logprobs(prompt: RenderedPrompt, logits: Tensor) -> Tensor:
    """Return the natural-log probability of each slot of a prompt, shape (slots,).

    Args:
        prompt: that was read.
        logits: of its score positions, shape (positions or more, vocabulary).
    """
    places = len(prompt.score_positions)
    logprobs = torch.log_softmax(logits[:places].float(), dim=-1)
    if prompt.label_ids:
        return logprobs[0, torch.tensor(prompt.label_ids, device=logits.device)]
    verdicts = [prompt.token_ids[place] for place in prompt.verdict_positions]
    ids = torch.tensor(verdicts, dtype=torch.long, device=logits.device)
    return logprobs.gather(1, ids[:, None])[:, 0]


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Return the number of first tokens that all rows share."""
    shortest = min(map(len, rows))
    for first, second in pairwise(rows):
        for place in range(shortest):
            if first[place] != second[place]:
                shortest = place
                break
    return shortest


def cut(values: KeyValues, length: int) -> KeyValues:
    """Return views of the first tokens' keys and values."""
    return tuple((keys[..., :length, :], kept[..., :length, :]) for keys, kept in values)


def _values(cache: DynamicCache) -> KeyValues:
    layers: Any = cache.layers
    return tuple((layer.keys, layer.values) for layer in layers)
