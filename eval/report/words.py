"""The result in sentences that need no statistics to be read, and do not overstate it."""

from collections.abc import Iterator

from eval.run.results import Evaluation
from eval.statistics.comparison import Comparison

_LEVEL = 0.05
_MEANINGS = {
    "nDCG": "1 where the right products always come first, lower the further down they are, 0 "
    "where they are not among the first {k}",
    "RR": "1 divided by the place of the first right product: .5 means second place",
    "P": "share of the first {k} places that hold a right product",
    "R": "share of the right products that are among the first {k}",
    "AP": "precision averaged over the places of the right products",
    "Success": "share of cases with a right product among the first {k}",
    "HitRate": "share of cases with a right product among the first {k}",
}


def read_measure(name: str) -> str:
    """Return what a measure means."""
    base, _, cut = name.partition("@")
    meaning = _MEANINGS.get(base.partition("(")[0])
    return "see ir-measur.es" if meaning is None else meaning.format(k=cut or "places")


def in_short(result: Evaluation) -> tuple[str, ...]:
    """Return the result in a few sentences."""
    return tuple(_sentences(result))


def _sentences(result: Evaluation) -> Iterator[str]:
    focus = next(each for each in result.rankers if each.name == result.focus)
    figure = focus.measured(result.deciding)
    if figure.value is None:
        yield "No case has a target: rankings were made, and nothing can be said of their quality."
        return
    yield (
        f"{result.cases:,} cases of {result.shoppers:,} shoppers were ranked by "
        f"{len(result.rankers)} rankers. {result.focus} reaches {result.deciding} "
        f"{figure.value:.3f} ({result.deciding} is {read_measure(result.deciding)})."
    )
    values = {each.name: each.measured(result.deciding).value or 0.0 for each in result.rankers}
    best = max(values, key=lambda name: values[name])
    if best != result.focus:
        yield f"The best ranker here is {best} with {values[best]:.3f}, not {result.focus}."
    found = [
        each
        for each in result.comparisons
        if each.measure == result.deciding and each.variant == result.focus
    ]
    if found:
        yield _verdict(found[0])


def _verdict(comparison: Comparison) -> str:
    apart = comparison.difference
    who = f"{comparison.variant} against {comparison.baseline}: {apart.value:+.3f}"
    spread = f"95 % interval {apart.low:+.3f} to {apart.high:+.3f}"
    if comparison.p_holm < _LEVEL:
        better = "better" if apart.value > 0 else "worse"
        return (
            f"{who} ({spread}). That is {better} than chance explains (p {comparison.p_holm:.4f} "
            "after correction for the number of rankers)."
        )
    return (
        f"{who} ({spread}). Chance alone could do that (p {comparison.p_holm:.2f}): such data "
        f"shows true differences from {comparison.detectable:.3f} on."
    )
