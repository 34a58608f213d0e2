"""A simulated shop whose truth is known: to test estimators, and to plan experiments.

Shoppers belong to groups of taste and differ in how freely they click. A context is a group of
taste with a query; each query has its own candidates. Policies are Plackett-Luce over scores by
context. The click model is position-based (a click needs examination of the place and attraction
by the product) or a cascade (from the top down; after a click, or after a skip, the shopper goes
on with a certain probability). A policy's value is computed exactly, without simulation.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from math import perm
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from eval.counterfactual.target_policy import TargetPolicy
from eval.logs import LoggedLists
from eval.statistics.estimates import Floats, Integers
from reranker.errors import ConfigError
from reranker.exploration import all_propensities, normalised, prefix_propensities, sample
from reranker.schema import Value

_MOST_LISTS = 20_000

Share = Annotated[float, Field(ge=0, le=1)]
ClickModel = Literal["position-based", "cascade"]


class ShopDesign(Value):
    """What a simulated shop is like.

    Attributes:
        candidates: products that each query recalls.
        examination: of each place by the position-based model; its length is the list's length.
        after_click: probability to go on after a click (cascade).
        after_skip: probability to go on after a skip (cascade).
        attraction: lowest and highest chance of a click on an examined product, for a shopper of
            mean generosity.
        personal: share of taste, as against the query's common opinion, in attraction.
        generosity: how freely shoppers click, relative to the mean of 1; each is as frequent as
            the others. One value makes all shoppers alike.
    """

    queries: Annotated[int, Field(ge=1)] = 8
    tastes: Annotated[int, Field(ge=1)] = 10
    candidates: Annotated[int, Field(ge=2)] = 6
    click_model: ClickModel = "position-based"
    examination: Annotated[tuple[Share, ...], Field(min_length=1)] = (1.0, 0.6, 0.35)
    after_click: Share = 0.3
    after_skip: Share = 0.8
    attraction: tuple[Share, Share] = (0.05, 0.6)
    personal: Share = 0.5
    generosity: Annotated[tuple[float, ...], Field(min_length=1)] = (0.5, 1.0, 1.5)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.examination) > self.candidates:
            message = f"{len(self.examination)} places, but only {self.candidates} candidates"
            raise ValueError(message)
        if abs(sum(self.generosity) / len(self.generosity) - 1) > 1e-9 or min(self.generosity) < 0:
            message = f"generosity {self.generosity}: choose values of 0 and above of mean 1"
            raise ValueError(message)
        if self.attraction[1] * max(self.generosity) > 1:
            message = f"attraction {self.attraction[1]} times {max(self.generosity)} is above 1"
            raise ValueError(message)
        return self


@dataclass(frozen=True)
class Policy:
    """A Plackett-Luce policy by context.

    Attributes:
        logits: log weights, shape (contexts, candidates).
        places: P(candidate in place), shape (contexts, candidates, places).
    """

    logits: Floats
    places: Floats


@dataclass(frozen=True)
class Visits:
    """Simulated requests: the log that a shop would keep, and what only a simulation knows.

    Attributes:
        context: of each request.
        order: candidate numbers of each request's list, shape (requests, places).
    """

    logs: LoggedLists
    context: Integers
    order: Integers


class SimulatedShop:
    """A shop of known taste and click model.

    Attributes:
        attraction: of each candidate in each context at mean generosity, (contexts, candidates).
    """

    def __init__(self, design: ShopDesign, *, seed: int = 0) -> None:
        self.design = design
        rng = np.random.default_rng(seed)
        shape = (design.tastes, design.queries, design.candidates)
        common = rng.normal(size=(1, *shape[1:]))
        taste = rng.normal(size=shape)
        mixed = np.sqrt(1 - design.personal) * common + np.sqrt(design.personal) * taste
        low, high = design.attraction
        chance = low + (high - low) / (1 + np.exp(-1.5 * mixed))
        self.attraction: Floats = chance.reshape(-1, design.candidates)
        self._common = np.broadcast_to(common, shape).reshape(-1, design.candidates)
        self._noise = rng.normal(size=(design.queries, design.candidates))

    @property
    def places(self) -> int:
        """Length of the shown list."""
        return len(self.design.examination)

    def policy(
        self, kind: Literal["random", "common", "taste"], *, temperature: float = 1.0
    ) -> Policy:
        """Return a policy: at random, by what all shoppers like on average, or by known taste.

        ``common`` ranks by a noisy common opinion that depends on the query alone.
        """
        if kind == "random":
            scores = np.zeros_like(self.attraction)
        elif kind == "common":
            noise = np.tile(self._noise, (self.design.tastes, 1))
            scores = self._common + 0.5 * noise
        else:
            scores = np.log(self.attraction)
        logits = normalised(scores / temperature)
        return Policy(logits, all_propensities(logits, self.places))

    def best(self) -> Policy:
        """Return the fixed order by known taste, as a policy without chance."""
        ranks = np.argsort(np.argsort(-self.attraction, axis=1), axis=1)
        places = (ranks[:, :, None] == np.arange(self.places)).astype(np.float64)
        # Steps of 200 make every other list's weight vanish in double precision.
        return Policy(normalised(ranks.astype(np.float64) * -200.0), places)

    def visit(self, policy: Policy, shoppers: int, visits: int, rng: np.random.Generator) -> Visits:
        """Let new shoppers come, each so many times, and log what they see and click."""
        who = np.repeat(np.arange(shoppers), visits)
        taste = rng.integers(self.design.tastes, size=shoppers)[who]
        generous = rng.choice(self.design.generosity, size=shoppers)[who]
        query = rng.integers(self.design.queries, size=len(who))
        context = taste * self.design.queries + query
        order = sample(policy.logits[context], self.places, rng)
        chance = np.take_along_axis(self.attraction[context], order, axis=1) * generous[:, None]
        clicks = self._clicks(chance, rng)
        logs = LoggedLists(
            request_ids=tuple(map(str, range(len(who)))),
            shoppers=who,
            queries=query,
            query_names=tuple(f"query {i}" for i in range(self.design.queries)),
            products=self._products,
            request=np.repeat(np.arange(len(who)), self.places),
            product=(query[:, None] * self.design.candidates + order).ravel(),
            position=np.tile(np.arange(1, self.places + 1), len(who)),
            propensity=_places_of(policy, context, order).ravel(),
            prefix_propensity=prefix_propensities(policy.logits[context], order).ravel(),
            grade=clicks.ravel().astype(np.int64),
        )
        return Visits(logs, context, order)

    @cached_property
    def _products(self) -> tuple[str, ...]:
        design = self.design
        return tuple(f"p{q}.{i}" for q in range(design.queries) for i in range(design.candidates))

    def _clicks(self, chance: Floats, rng: np.random.Generator) -> Integers:
        draws = rng.random(chance.shape)
        if self.design.click_model == "position-based":
            chance = chance * np.array(self.design.examination)
            return np.asarray(draws < chance, np.int64)
        clicks = np.zeros(chance.shape, np.int64)
        present = np.ones(len(chance), bool)
        goes_on = rng.random(chance.shape)
        for place in range(self.places):
            clicked = present & (draws[:, place] < chance[:, place])
            clicks[:, place] = clicked
            limit = np.where(clicked, self.design.after_click, self.design.after_skip)
            present &= goes_on[:, place] < limit
        return clicks

    def target(self, visits: Visits, policy: Policy) -> TargetPolicy:
        """Return what a policy would have shown in the logged requests."""
        context, order = visits.context, visits.order
        shape = (len(context), self.design.candidates, self.places)
        request, candidate, place = (axis.ravel() for axis in np.indices(shape))
        query = visits.logs.queries[request]
        return TargetPolicy(
            propensity=_places_of(policy, context, order).ravel(),
            prefix_propensity=prefix_propensities(policy.logits[context], order).ravel(),
            request=request,
            product=query * self.design.candidates + candidate,
            position=place + 1,
            probability=policy.places[context].ravel(),
        )

    def value(self, policy: Policy) -> float:
        """Return the exact expected number of clicks on one list of a policy.

        Raises:
            ConfigError: a cascade with too many lists to go through one by one.
        """
        if self.design.click_model == "position-based":
            seen = policy.places * np.array(self.design.examination)
            return float((seen.sum(axis=2) * self.attraction).sum(axis=1).mean())
        count = perm(self.design.candidates, self.places)
        if count > _MOST_LISTS:
            message = f"{count} possible lists are too many: choose fewer candidates or places"
            raise ConfigError(message)
        lists = np.array(list(permutations(range(self.design.candidates), self.places)))
        return float(np.mean([self._cascade_value(policy, lists, row) for row in self._contexts]))

    @property
    def _contexts(self) -> range:
        return range(len(self.attraction))

    def _cascade_value(self, policy: Policy, lists: Integers, context: int) -> float:
        logits = np.broadcast_to(policy.logits[context], (len(lists), self.design.candidates))
        chance_of_list = prefix_propensities(logits, lists)[:, -1]
        total = 0.0
        for generosity in self.design.generosity:
            chance = self.attraction[context][lists] * generosity
            present, clicks = np.ones(len(lists)), np.zeros(len(lists))
            for place in range(self.places):
                clicks += present * chance[:, place]
                present = present * (
                    chance[:, place] * self.design.after_click
                    + (1 - chance[:, place]) * self.design.after_skip
                )
            total += float(chance_of_list @ clicks) / len(self.design.generosity)
        return total


def _places_of(policy: Policy, context: Integers, order: Integers) -> Floats:
    place = np.arange(order.shape[1])
    result: Floats = policy.places[context[:, None], order, place[None, :]]
    return result
