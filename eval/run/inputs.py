"""Read the files of an evaluation, and take from them what may be known at the cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from eval.cases.reading import CaseFile, fingerprint, read_cases
from eval.cases.values import Case
from eval.past.counts import Past
from eval.past.guard import TimeGuard
from eval.past.leaks import leaked_cases
from eval.past.of_cases import purchases_of_cases
from eval.past.purchases import UNTIMED, Purchases
from eval.past.reading import read_purchases
from eval.run.request import EvaluationRequest, KnowledgeReport
from eval.run.results import InputFile
from reranker.errors import DataError
from reranker.ports import Progress
from reranker.settings import Settings
from retrieval.catalogue import import_catalogue
from retrieval.product_table import ProductTable


@dataclass(frozen=True)
class Inputs:
    """The content of the files, nothing cut off yet.

    Attributes:
        table: all products.
        case_file: with the account of its rows.
        cases: those to be ranked, as the file has them.
        purchases: of histories and training; without such a file those of the cases' histories.
        own_histories: whether they are those of the cases' histories.
        guard: the cut.
        files: what was read.
        rejected_products: rows of the products file that could not be used.
    """

    table: ProductTable
    case_file: CaseFile
    cases: tuple[Case, ...]
    purchases: Purchases
    own_histories: bool
    guard: TimeGuard
    files: tuple[InputFile, ...]
    rejected_products: int

    def known_cases(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        """Return cases with what is known at the cut."""
        return tuple(self.guard.case(case) for case in cases)

    def known_past(self, purchases: Purchases) -> Past:
        """Return the counts over what is known of some purchases at the cut."""
        return Past(self.guard.purchases(purchases), self.table)

    def _of_unknown_time(self, known: Purchases) -> Purchases:
        """Return the purchases that could be the cases' own: with a cut, those without a time."""
        if self.guard.end is None:
            return known
        return known.select(np.flatnonzero(known.at_us == UNTIMED).astype(np.int64))

    def knowledge(self) -> KnowledgeReport:
        """Return the account of what was known, and what was cut off."""
        kept = self.known_cases(self.cases)
        cut = sum(len(a.history) < len(b.history) for a, b in zip(kept, self.cases, strict=True))
        untimed = sum(bool(case.history) and case.history_at is None for case in self.cases)
        known = self.guard.purchases(self.purchases)
        past = Past(known, self.table)
        return KnowledgeReport(
            guard=self.guard,
            own_histories=self.own_histories,
            purchases=past.purchases,
            after_cut=len(self.purchases) - len(known),
            untimed=int(np.sum(known.at_us == UNTIMED)),
            unknown_products=past.unknown,
            shoppers=past.shoppers,
            leaked=leaked_cases(kept, self._of_unknown_time(known)),
            shortened=cut,
            untimed_histories=untimed,
        )


def read_inputs(request: EvaluationRequest, settings: Settings, progress: Progress) -> Inputs:
    """Read all files.

    Raises:
        DataError: a file cannot be used, or a case is before the cut; with the rows at fault.
    """
    table, rejected = _products(request, progress)
    known = frozenset(table.product_ids(np.arange(len(table))))
    case_file = read_cases(
        request.cases,
        known,
        max_rejected=request.max_rejected,
        progress=lambda rows: progress("reading cases", rows, 0),
    )
    parts = [
        read_purchases(path, progress=lambda rows: progress("reading purchases", rows, 0))
        for path in (request.histories, request.train)
        if path is not None
    ]
    cases = sampled(case_file.cases, request.limit, settings.evaluation.seed)
    guard = TimeGuard.of(cases, cut=request.cut, embargo_hours=settings.evaluation.embargo_hours)
    return Inputs(
        table=table,
        case_file=case_file,
        cases=cases,
        purchases=Purchases.joined(parts) if parts else purchases_of_cases(case_file.cases),
        own_histories=not parts,
        guard=guard,
        files=tuple(_described(request, table, case_file, parts)),
        rejected_products=rejected,
    )


def sampled(cases: Sequence[Case], limit: int | None, seed: int) -> tuple[Case, ...]:
    """Return at most so many cases, in the order of the file.

    The sample depends on the seed and the case ids only, and a smaller one lies inside a larger.
    """
    if limit is None or limit >= len(cases):
        return tuple(cases)
    drawn = sorted(range(len(cases)), key=lambda n: _draw(cases[n].case_id, seed))[:limit]
    return tuple(cases[number] for number in sorted(drawn))


def _draw(case_id: str, seed: int) -> bytes:
    return blake2b(f"sample\n{seed}\n{case_id}".encode(), digest_size=8).digest()


def _products(request: EvaluationRequest, progress: Progress) -> tuple[ProductTable, int]:
    target = request.work / "catalogue" / "products.arrow"
    report = import_catalogue(
        [request.products],
        target,
        mapping=request.mapping,
        replace=True,
        progress=lambda done, total: progress("reading products", done, total or 0),
    )
    table = ProductTable.open(target)
    if not len(table):
        raise DataError(f"{request.products}: no product could be used")
    return table, report.rejected_count


def _described(
    request: EvaluationRequest,
    table: ProductTable,
    case_file: CaseFile,
    purchases: Sequence[Purchases],
) -> list[InputFile]:
    files = [
        _file("products", request.products, len(table)),
        _file("cases", request.cases, case_file.rows),
    ]
    counts = iter(purchases)
    for role, path in (("histories", request.histories), ("train", request.train)):
        if path is not None:
            files.append(_file(role, path, len(next(counts))))
    if request.impressions is not None:
        files.append(_file("impressions", request.impressions, 0))
    return files


def _file(role: str, path: Path, rows: int) -> InputFile:
    mark = fingerprint(path) if path.is_file() else ""
    return InputFile(role=role, name=path.name, fingerprint=mark, rows=rows)
