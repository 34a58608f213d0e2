"""The learned interest: a logistic model over signals, fitted on held-out choices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reranker.learned_interest.choices import Choices, Integers, hold_out
from reranker.learned_interest.counting import Floats
from reranker.learned_interest.signals import NAMES, Signals, latest_of
from reranker.learned_interest.words import word_vectors
from reranker.ports import Progress, no_progress

_EXAMPLES = 3000
FEWEST_EXAMPLES = 20
_OTHERS = 19
_SHRINKAGE = 0.01
_UNSEEN = 0.5
_NEVER_AGAINST = ("popularity", "popularity for a short history")


@dataclass(frozen=True)
class InterestModel:
    """How much a history speaks for products.

    Attributes:
        signals: over all choices.
        weights: of each of the signals, in units of its spread.
        bias: log-odds of a product of mean signals.
        mean, spread: of each signal over the examples.
        examples: held-out choices that it was fitted on.
    """

    signals: Signals
    weights: Floats
    bias: float
    mean: Floats
    spread: Floats
    examples: int

    @property
    def products(self) -> int:
        """Number of products; the next number stands for one of which nothing is known."""
        return len(self.signals.popularity) - 1

    def of(self, history: Integers, products: Integers) -> Floats:
        """Return the interest in each product, 0 to 1.

        It is the chance that the shopper takes this product next when it stands among 19 others
        that were drawn at random: the lists that it was fitted on. Higher is better whatever the
        list; read as a probability it holds for such lists only.

        Args:
            history: numbers of the products that the shopper chose, oldest first.
            products: numbers of those asked about.
        """
        result: Floats = 1 / (1 + np.exp(-np.clip(self.odds(history, products), -500, 500)))
        return result

    def odds(self, history: Integers, products: Integers) -> Floats:
        """Return the logarithm of the odds that `of` gives as chances.

        Of a shopper without a history they follow from what sells: all purchases being alike, one
        product is taken and 19 drawn at random stand beside it. What is learnt from histories does
        not hold there: whoever has the best seller already does not buy it next.
        """
        if not len(history):
            popularity = self.signals.popularity
            others = _OTHERS * popularity.sum() / max(self.products, 1)
            chances: Floats = np.log(popularity[products] + _UNSEEN) - np.log(others)
            return chances
        found = self.signals.of((history,), products[None, :])[0]
        result: Floats = (found - self.mean) / self.spread @ self.weights + self.bias
        return result

    def described(self) -> dict[str, float]:
        """Return the weight of each signal by its name."""
        return dict(zip(NAMES, self.weights.tolist(), strict=True))


def learn(
    choices: Choices,
    texts: Sequence[str],
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> InterestModel | None:
    """Learn from what shoppers chose; None where too few made two choices.

    The last choices of some shoppers are held out. Signals are counted on the rest, and the model
    learns to tell each answer from 19 products drawn at random; then the signals are counted anew
    on everything.

    Args:
        choices: all that is known.
        texts: of each product, such as title, brand and category.
        seed: of the draws.
        progress: told what is being done.
    """
    rng = np.random.default_rng(seed)
    held = hold_out(choices, _EXAMPLES, rng)
    if len(held.answers) < FEWEST_EXAMPLES or choices.products < 2:
        return None
    # One product more, that nobody chose and that has no words, stands for all that is new.
    words = word_vectors([*texts, ""])
    drawn = rng.integers(choices.products - 1, size=(len(held.answers), _OTHERS))
    answers = held.answers[:, None]
    # Numbers from the answer's on move up by one: the answer itself is never drawn.
    lists = np.concatenate([answers, drawn + (drawn >= answers)], axis=1)
    examples = Signals.count(
        held.rest,
        words,
        asked_of=np.concatenate([latest_of(history) for history in held.histories]),
        seed=seed,
        progress=progress,
        stage="counting, less what is to be told",
    )
    found = examples.of(held.histories, lists)
    mean = found.mean(axis=(0, 1))
    spread = np.maximum(found.std(axis=(0, 1)), 1e-9)
    weights, bias = _fit((found - mean) / spread)
    return InterestModel(
        signals=Signals.count(choices, words, seed=seed, progress=progress),
        weights=weights,
        bias=bias,
        mean=mean,
        spread=spread,
        examples=len(held.answers),
    )


def _fit(signals: Floats) -> tuple[Floats, float]:
    """Fit a ridge logistic regression in which the first of each list is the answer.

    That a product sells never speaks against it: where everybody has the best sellers already, this
    would put what is new and unknown first.
    """
    from scipy.optimize import minimize

    lists, size, width = signals.shape
    taken = np.zeros((lists, size))
    taken[:, 0] = 1.0

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, bias = parameters[:-1], parameters[-1]
        odds = signals @ weights + bias
        chance = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
        value = (np.logaddexp(0.0, odds) - taken * odds).sum() / lists
        apart = (chance - taken) / lists
        slope = np.einsum("lc,lcs->s", apart, signals) + 2 * _SHRINKAGE * weights
        total = float(value + _SHRINKAGE * weights @ weights)
        return total, np.append(slope, apart.sum())

    start = np.zeros(width + 1)
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0 if name in _NEVER_AGAINST else None, None) for name in (*NAMES, "")],
        options={"maxiter": 500},
    ).x
    return np.asarray(found[:-1], np.float64), float(found[-1])
