"""Prove that nothing after the cut matters: poison it, rank again, compare."""

from collections.abc import Callable, Sequence

from eval.cases.values import Case
from eval.past.counts import Past
from eval.past.poison import poisoned_case, poisoned_purchases
from eval.rankers import Bench, make_ranker
from eval.run.inputs import Inputs, sampled
from eval.run.results import TimeProof
from reranker.ports import Progress

MakeBench = Callable[[Sequence[Case], Past], Bench]
"""Makes a bench for cases as they are known, and the past as it is known."""


def prove_time(
    inputs: Inputs,
    rankers: Sequence[str],
    count: int,
    seed: int,
    make_bench: MakeBench,
    progress: Progress,
) -> TimeProof:
    """Rank some cases by what the files hold, and by the same with poison from the cut on.

    Both go through the same guard: what differs is only what lies behind it.
    """
    timed = not inputs.own_histories or any(case.history_at for case in inputs.cases)
    if inputs.guard.end is None or not timed:
        why = "no case has a time" if inputs.guard.end is None else "no purchase has a time"
        return TimeProof(applicable=False, said=f"{why}: there is nothing that could be cut off")
    cases = sampled(inputs.cases, count, seed)
    poisoned = tuple(poisoned_case(case, inputs.guard) for case in cases)
    purchases, events = poisoned_purchases(inputs.purchases, cases, inputs.guard)
    changed = {}
    with (
        make_bench(inputs.known_cases(cases), inputs.known_past(inputs.purchases)) as clean,
        make_bench(inputs.known_cases(poisoned), inputs.known_past(purchases)) as spoilt,
    ):
        for name in rankers:
            changed[name] = _changed(name, clean, spoilt, progress)
    wrong = [name for name, ids in changed.items() if ids]
    histories = sum(a is not b for a, b in zip(cases, poisoned, strict=True))
    said = (
        f"{len(cases)} cases ranked twice by {len(rankers)} rankers, the second time with "
        f"{events} poisoned purchases and {histories} poisoned histories from the cut on: "
    )
    said += f"orders changed for {', '.join(wrong)}" if wrong else "every order was the same"
    return TimeProof(
        applicable=True,
        cases=len(cases),
        events=events,
        histories=histories,
        changed=changed,
        said=said,
    )


def _changed(name: str, clean: Bench, spoilt: Bench, progress: Progress) -> tuple[str, ...]:
    before, after = make_ranker(name, clean), make_ranker(name, spoilt)
    differ = []
    pairs = list(zip(clean.cases, spoilt.cases, strict=True))
    for done, (one, other) in enumerate(pairs, 1):
        if before.rank(one).product_ids != after.rank(other).product_ids:
            differ.append(one.case_id)
        progress(f"proving time: {name}", done, len(pairs))
    return tuple(differ)
