"""Rankers that ask the language model, through the code that serves.

`llm` is the model alone: what it says is the order, and where it says nothing (a fallback) the
order is random, so that no other stage's merit is taken for the model's. `full` is what is served.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from eval.cases.values import Case
from eval.rankers.bench import Bench
from eval.rankers.other_shoppers import other_shoppers
from eval.rankers.profiles import CaseProfiles
from eval.rankers.ranked import Ranked
from reranker.fusion import Blend
from reranker.listwise import Judgement, ListwiseRanker
from reranker.sales import with_sales
from reranker.schema import (
    Candidate,
    Issue,
    Language,
    ProductInterest,
    SearchRequest,
    UserProfile,
)

ProfileOf = Callable[[Case, Language], UserProfile | None]


@dataclass(frozen=True)
class ModelRanker:
    """The language model alone, shown its candidates in a random order.

    Attributes:
        reshuffled: whether it is another random order.
    """

    bench: Bench
    ranker: ListwiseRanker
    profile: ProfileOf
    concurrency: int
    reshuffled: bool = False

    def rank(self, case: Case) -> Ranked:
        """Return the model's order; what it did not judge follows as it came."""
        request = _request(self.bench, case)
        profile = self.profile(case, self.ranker.language(request))
        candidates = with_sales(*_candidates(self.bench, self.bench.candidates(case), profile))
        depth = _depth(self.bench, case)
        # Given lists come in a random order; what was recalled comes in one that tells something.
        if self.reshuffled or case.candidates is None:
            first = list(candidates[:depth])
            seed = f"{self.bench.seed}/{case.case_id}/{self.reshuffled}"
            random.Random(seed).shuffle(first)
            candidates = (*first, *candidates[depth:])
        judged = self.bench.portal.call(self.ranker.judge, request, profile, candidates[:depth])
        last = len(candidates) + 1
        places = [place or last for place in judged.followed_by(len(candidates) - depth).places]
        order = sorted(range(len(candidates)), key=places.__getitem__)
        ids = tuple(candidates[place].product.product_id for place in order)
        return _ranked(ids, judged)


@dataclass(frozen=True)
class ServedRanker:
    """The blend as served: recall, the model's judgement of the most promising, interest."""

    bench: Bench
    ranker: ListwiseRanker | None
    profiles: CaseProfiles
    concurrency: int

    def rank(self, case: Case) -> Ranked:
        """Return the order that the shopper would have seen."""
        bench = self.bench
        request = _request(bench, case)
        language = self.ranker.language(request) if self.ranker else "en"
        profile = self.profiles.of(case, language)
        found, interest = _candidates(bench, bench.recall.order(case), profile)
        blend = Blend(found, profile, interest, bench.settings.fusion)
        depth = _depth(bench, case)
        shown = blend.shown(depth)
        judged = Judgement.nothing(len(shown))
        if self.ranker is not None:
            judged = bench.portal.call(self.ranker.judge, request, profile, shown)
        items = blend.items(judged.followed_by(len(found) - len(shown)))
        ids = tuple(item.product.product_id for item in items)
        ranked = _ranked(ids, judged)
        return ranked.model_copy(update={"scores": tuple(item.score for item in items)})


def llm(bench: Bench) -> ModelRanker:
    """Ask the model, telling it of the shopper."""
    return _model_ranker(bench, bench.profiles.of)


def llm_without_profile(bench: Bench) -> ModelRanker:
    """Ask the model about nobody in particular."""
    return _model_ranker(bench, lambda _case, _language: None)


def llm_with_other_profile(bench: Bench) -> ModelRanker:
    """Ask the model, telling it of another shopper: what is left of the gain is not personal."""
    others = other_shoppers(bench.everyone, bench.seed)

    def profile(case: Case, language: Language) -> UserProfile | None:
        other = others.get(case.case_id)
        return None if other is None else bench.profiles.of(other, language)

    return _model_ranker(bench, profile)


def llm_with_written_profile(bench: Bench) -> ModelRanker:
    """Ask the model, telling it what a model has written on the shopper: is that worth it?"""
    _prepare(bench)
    return _model_ranker(bench, bench.written_profiles.of)


def llm_reshuffled(bench: Bench) -> ModelRanker:
    """Show the model the same candidates in another order: how much of its own is chance."""
    return replace(_model_ranker(bench, bench.profiles.of), reshuffled=True)


def full(bench: Bench) -> ServedRanker:
    """Rank as served."""
    _prepare(bench)
    bench.recall.warm_up()
    return ServedRanker(bench, _listwise(bench), bench.profiles, _concurrency(bench))


def full_without_model(bench: Bench) -> ServedRanker:
    """Rank as served while the model is down."""
    _ = bench.profiles, bench.learned
    return ServedRanker(bench, None, bench.profiles, concurrency=1)


def _model_ranker(bench: Bench, profile: ProfileOf) -> ModelRanker:
    _prepare(bench)
    return ModelRanker(bench, _listwise(bench), profile, _concurrency(bench))


def _prepare(bench: Bench) -> None:
    """Make what several threads will share, before there are several."""
    _ = bench.portal, bench.profiles, bench.learned
    if any(case.candidates is None for case in bench.cases):
        bench.recall.warm_up()


def _listwise(bench: Bench) -> ListwiseRanker:
    tokens = bench.settings.profile.max_tokens
    return ListwiseRanker(bench.model, bench.settings.ranking, profile_tokens=tokens)


def _concurrency(bench: Bench) -> int:
    """Several cases at once pay off where a server batches them."""
    return bench.settings.evaluation.concurrency if bench.settings.server.urls else 1


def _depth(bench: Bench, case: Case) -> int:
    """Return how many candidates the model judges: a given list whole, of recall what is served."""
    if case.candidates is not None:
        return len(case.candidates)
    return max(bench.settings.ranking.depth or bench.depth, bench.settings.evaluation.k)


def _request(bench: Bench, case: Case) -> SearchRequest:
    moment: datetime = bench.moment(case)
    return SearchRequest(
        request_id=case.case_id,
        query=case.query,
        user_id=case.user_id or case.case_id,
        k=bench.settings.evaluation.k,
        at=moment,
    )


def _candidates(
    bench: Bench, ids: Sequence[str], profile: UserProfile | None
) -> tuple[tuple[Candidate, ...], tuple[ProductInterest, ...] | None]:
    """Return candidates as a search finds them, and the learned interest in each."""
    known = bench.learned.of(profile, ids) if bench.learned else None
    found = tuple(
        Candidate(product=product, recall_rank=rank, recall_score=1 / rank)
        for rank, product in enumerate(bench.products(ids), 1)
    )
    return found, known


def _ranked(ids: tuple[str, ...], judged: Judgement) -> Ranked:
    issues: tuple[Issue, ...] = judged.issues
    return Ranked(
        product_ids=ids,
        outcome=judged.outcome,
        issues=tuple(dict.fromkeys(issue.code for issue in issues)),
        personalised=judged.personalised,
        instability=judged.instability,
        label_mass=judged.label_mass,
        model_ms=judged.model_ms,
    )
