"""Do two ways of running one model say the same? The embedded model beside a served one."""

from collections.abc import Sequence

import numpy as np

from eval.benchmarks.ranking_lists import RankingList
from reranker.cards import Told
from reranker.errors import ConfigError
from reranker.ports import LanguageModel, Progress, no_progress
from reranker.prompting import PromptBudget, build_prompt, draft_prompt
from reranker.schema import Prompt, Readout, Value

_TOGETHER = 8


class Agreement(Value):
    """How far two models agree on the same prompts.

    Attributes:
        same_order: lists that both put into the same order.
        ties: lists of the others in which the two orders differ only between candidates whose
            log-probabilities lie within ``largest_difference`` of each other.
        largest_difference: of the log-probabilities of any candidate.
        mean_difference: their mean absolute difference.
    """

    readout: Readout
    lists: int
    candidates: int
    same_order: int
    ties: int
    largest_difference: float
    mean_difference: float


class Equality(Value):
    """The agreement in each readout."""

    readouts: tuple[Agreement, ...]


async def compare(
    lists: Sequence[RankingList],
    first: LanguageModel,
    second: LanguageModel,
    *,
    progress: Progress = no_progress,
) -> Equality:
    """Compare two models in what both can be read by that tells log-probabilities.

    See `agreement`.
    """
    both = {"labels", "verdict"} & first.spec.readouts & second.spec.readouts
    if not both:
        raise ConfigError(
            f"{first.spec.name} and {second.spec.name} have no readout of log-probabilities in "
            "common: serve without --lora, or set model.adapter = none"
        )
    how: tuple[Readout, ...] = ("labels", "verdict")
    found = [
        await agreement(lists, first, second, readout=readout, progress=progress)
        for readout in how
        if readout in both
    ]
    return Equality(readouts=tuple(found))


async def agreement(
    lists: Sequence[RankingList],
    first: LanguageModel,
    second: LanguageModel,
    *,
    readout: Readout,
    card_tokens: int = 24,
    profile_tokens: int = 64,
    progress: Progress = no_progress,
) -> Agreement:
    """Ask both about the same lists and compare what they say.

    Args:
        lists: each is one prompt, in recall order.
        first: its specification makes the prompts.
        second: the same model, run in another way.
        readout: ``labels`` or ``verdict``.
        card_tokens: longest product card.
        profile_tokens: longest profile.
        progress: told what is being done.
    """
    budget = PromptBudget(card=card_tokens, profile=profile_tokens)
    prompts = [_prompt(entry, first, readout, budget) for entry in lists]
    same = ties = 0
    differences = []
    for start in range(0, len(prompts), _TOGETHER):
        progress(f"equality of {readout}", start, len(prompts))
        batch = prompts[start : start + _TOGETHER]
        ours, theirs = await first.read(batch), await second.read(batch)
        for one, other in zip(ours, theirs, strict=True):
            a, b = np.array(one.logprobs), np.array(other.logprobs)
            differences.append(np.abs(a - b))
            if (_order(a) == _order(b)).all():
                same += 1
            else:
                ties += bool((np.abs(a[_order(a)] - a[_order(b)]) <= differences[-1].max()).all())
    progress(f"equality of {readout}", len(prompts), len(prompts))
    flat = np.concatenate(differences)
    return Agreement(
        readout=readout,
        lists=len(prompts),
        candidates=len(flat),
        same_order=same,
        ties=ties,
        largest_difference=float(flat.max()),
        mean_difference=float(flat.mean()),
    )


def _order(scores: np.ndarray) -> np.ndarray:
    return np.argsort(-scores, kind="stable")


def _prompt(
    entry: RankingList, model: LanguageModel, readout: Readout, budget: PromptBudget
) -> Prompt:
    draft = draft_prompt(
        entry.request,
        Told.of(entry.profile) if entry.profile else None,
        entry.candidates,
        language="en",
        readout=readout,
        spec=model.spec,
        tokenizer=model.tokenizer,
        budget=budget,
    )
    return build_prompt(draft, range(len(entry.candidates)))
