"""The two purchase histories that come as Parquet files: LLMRank's games, MiniOneRec's industrial.

Both are in the form of cases already; what is added is the canonical form, the right command, and
candidates where they are wished for and there are none.
"""

from collections.abc import Sequence
from pathlib import Path

from eval.cases.reading import read_cases
from eval.cases.values import Case
from eval.convert.drawing import drawn_beside
from eval.convert.writing import Target, rows_of, the_file

_RANKERS = "random,popularity,cooccurrence,own-history,recall,interest,llm"


def games(source: Path, target: Target) -> None:
    """Convert LLMRank's video games: 20 candidates a case, no times, no queries.

    Options: ``split`` names the file ``cases_SPLIT.parquet``.
    """
    split = target.option("split", "dev")
    found = read_cases(the_file(source, f"cases_{split}.parquet"))
    target.use("--products", the_file(source, "products.parquet"))
    target.cases(found.cases)
    target.use("--histories", the_file(source, "histories.parquet"))
    target.arguments += ["--rankers", _RANKERS, "--compare-with", "popularity"]
    target.notes.append(
        f"{len(found.cases)} cases; the histories hold every shopper's purchases but the last one, "
        "so that no target is in them"
    )


def industrial(source: Path, target: Target) -> None:
    """Convert MiniOneRec's industrial and scientific purchases.

    Options: ``split`` names the file ``purchases_SPLIT.parquet``; the validation file is learnt
    from where the test file is evaluated. ``most`` is the number of candidates of a case, the
    target and others drawn at random (0: no candidates, the whole catalogue is recalled from).
    Whether the target had been bought before (``repeat``) or not is reported apart.
    """
    split, most = target.option("split", "test"), target.number("most", 0)
    found = read_cases(the_file(source, f"purchases_{split}.parquet"))
    products = the_file(source, "products.parquet")
    target.use("--products", products)
    ids = [row["product_id"] for row in rows_of(products, ["product_id"])] if most else []
    target.cases(_with_candidates(case, ids, most) for case in found.cases)
    if split == "test":
        target.use("--train", the_file(source, "purchases_valid.parquet"))
    rankers = f"{_RANKERS},transitions"
    target.arguments += ["--rankers", rankers, "--compare-with", "popularity"]
    target.arguments += ["--measures", "HitRate@10,nDCG@10"]
    target.notes.append(f"{len(found.cases)} cases in time order; validation is wholly before test")


def _with_candidates(case: Case, ids: Sequence[str], most: int) -> Case:
    wanted = case.targets[0].product_id
    segment = "repeat" if wanted in case.history else "non-repeat"
    shown = drawn_beside(wanted, ids, case.case_id, most) if most else None
    return case.model_copy(update={"candidates": shown, "segments": (segment,)})
