"""What a reader has to know before believing a figure."""

from collections.abc import Iterator

from eval.cases.defects import DEFECTS
from eval.run.inputs import Inputs
from eval.run.results import Evaluation

_FALLBACK = 0.05
_SMALL = 30
_NOTES = {
    "candidates-one": "cases have one candidate only: every ranker gets them right",
    "history-unknown": "cases have choices in their history that the products file lacks",
    "target-unknown": "cases have a target that the products file lacks: nobody can find it",
    "target-not-candidate": "cases have a target that is no candidate: nobody can find it",
    "at-no-zone": "cases have a time without a zone, taken as UTC",
}


def warnings_of(result: Evaluation, inputs: Inputs) -> tuple[str, ...]:
    """Return the warnings of a result, the gravest first."""
    return (*_of_time(result), *_of_cases(result, inputs), *_of_rankers(result))


def _of_time(result: Evaluation) -> Iterator[str]:
    knowledge = result.knowledge
    if knowledge.leaked:
        yield (
            f"{len(knowledge.leaked)} cases have their answer among the purchases that are learnt "
            f"from, such as {knowledge.leaked[0]!r}: rankers that count purchases look better than "
            "they are; take these purchases out of --histories and --train"
        )
    proof = result.time_proof
    if proof is not None and proof.applicable and not proof.proven:
        yield f"time leaks: {proof.said}"
    if knowledge.own_histories and knowledge.purchases:
        yield (
            f"neither --histories nor --train is given: what counts or learns from purchases knows "
            f"the {knowledge.purchases:,} in the cases' own histories only, of each shopper those "
            "of one case"
        )
    elif not knowledge.purchases:
        yield "nothing is known of purchases: rankers that count them rank by chance"
    if knowledge.untimed and not knowledge.own_histories:
        yield (
            f"{knowledge.untimed:,} purchases carry no time: that they are from before the cases "
            "is the word of the file's author"
        )
    elif knowledge.untimed_histories:
        yield (
            f"{knowledge.untimed_histories:,} cases have a history without times: that it is from "
            "before the case is the word of the file's author"
        )


def _of_cases(result: Evaluation, inputs: Inputs) -> Iterator[str]:
    if result.rejected:
        yield (
            f"{result.rejected} of {result.rows} rows of the cases file could not be used and are "
            "in no figure"
        )
    if inputs.rejected_products:
        yield f"{inputs.rejected_products} rows of the products file could not be used"
    if result.without_target:
        yield f"{result.without_target} cases have no target: they are ranked, and in no mean"
    if result.shoppers < _SMALL:
        yield f"{result.shoppers} shoppers only: intervals are rough"
    for kind, text in _NOTES.items():
        if (count := result.defects.get(kind, 0)) and DEFECTS[kind].severity == "note":
            yield f"{count} {text}"


def _of_rankers(result: Evaluation) -> Iterator[str]:
    for ranker in result.rankers:
        if ranker.model is not None and ranker.model.fallback_rate > _FALLBACK:
            yield (
                f"{ranker.name}: in {ranker.model.fallback_rate:.0%} of the cases the language "
                "model had no part in the order"
            )
    if result.logged is not None:
        for row in result.logged.policies:
            if row.warning is not None:
                yield f"{row.ranker}, {row.estimator}: {row.warning}"
