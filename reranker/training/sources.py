"""Where lists come from: files of purchases, put together with what serving tells of a shopper."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reranker.cards import Told
from reranker.errors import DataError
from reranker.models.adapter import SourceCard
from reranker.ports import Progress, Tokenizer
from reranker.prompting import detect_language
from reranker.schema import Language, Product, Value
from reranker.settings import RankingSettings, Settings, TrainingSettings
from reranker.training.examples import (
    NO_TIME,
    LanguageOf,
    PurchaseExamples,
    SalesOf,
    Teacher,
    ToldOf,
    TrainingExample,
)
from reranker.training.negatives import NegativeMix, NegativeSampler
from reranker.training.past_sales import PastSales
from reranker.training.purchases import (
    Purchase,
    Split,
    fingerprint,
    read_histories,
    read_purchases,
)
from reranker.training.teacher import InterestTeacher
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.catalogue import import_catalogue
from retrieval.product_table import ProductTable
from retrieval.profiles import ProfileBuilder, untimed_purchases

VALIDATION_CANDIDATES = 20

logger = logging.getLogger(__name__)


class Lists(Value):
    """What a source gives: lists to train on, lists to validate on, and what they are made of.

    Attributes:
        pseudonyms: of the shoppers of a store who are learnt from; empty for public data.
        key_fingerprint: of the key that they were made with.
    """

    train: PurchaseExamples
    validation: tuple[TrainingExample, ...]
    card: SourceCard
    pseudonyms: tuple[Pseudonym, ...] = ()
    key_fingerprint: str | None = None


@dataclass(frozen=True)
class Gathered:
    """What a source has, before it is settled who is held back; see `held_back.lists_of_all`.

    Attributes:
        purchases: all that lists can be made of.
        held: number of shoppers of its own that the source wants held back.
        lists: makes the lists of a split of the purchases.
    """

    purchases: tuple[Purchase, ...]
    held: int
    lists: Callable[[Split], Lists]


class ListSource(Protocol):
    """Something that lists to learn from can be made of."""

    def gather(
        self, work: Path, settings: Settings, tokenizer: Tokenizer, progress: Progress
    ) -> Gathered:
        """Return what it has to learn from.

        Args:
            work: folder for what is made on the way.
            settings: of the training, and of what is told of a shopper.
            tokenizer: of the model.
            progress: told what is being done.

        Raises:
            DataError: something cannot be used; the message names it.
        """
        ...


class PurchaseFiles(Value):
    """A `ListSource` of files; see `reranker.training.purchases` for their form.

    Attributes:
        products: of the catalogue; the importer's form.
        histories: to count what is popular and bought together; None counts the shortest history
            of each shopper who is trained on, which holds none of the purchases to be told.
    """

    name: str
    products: Path
    purchases: Path
    histories: Path | None = None

    def gather(
        self, work: Path, settings: Settings, tokenizer: Tokenizer, progress: Progress
    ) -> Gathered:
        """Read the files; what lists need is counted when it is settled who is held back."""
        table = _catalogue(self.products, work, progress)
        progress("reading purchases", 0, 1)
        ids = set(table.product_ids(range(len(table))))
        purchases = _known(read_purchases(self.purchases), ids, self.purchases)
        progress("reading purchases", 1, 1)

        def lists(split: Split) -> Lists:
            return self._lists(split, table, settings, tokenizer, progress)

        return Gathered(purchases, settings.training.validation_shoppers, lists)

    def _lists(
        self,
        split: Split,
        table: ProductTable,
        settings: Settings,
        tokenizer: Tokenizer,
        progress: Progress,
    ) -> Lists:
        training, ids = settings.training, table.product_ids(range(len(table)))
        if self.histories is not None:
            histories: Sequence[Sequence[str]] = read_histories(self.histories)
        else:
            histories = _shortest(split.train)
        mix = NegativeMix.of(training)
        categories = categories_of(table) if mix.category else {}
        negatives = NegativeSampler(ids, mix, histories=histories, categories=categories)
        teacher = self._teacher(table, histories, training, progress) if training.teacher else None
        told = UntimedProfiles(ProfileBuilder(table, settings.profile, tokenizer))
        sales = PastSales.of_histories(histories)
        return lists_of(self.name, split, table, told, sales, negatives, settings, teacher)

    def _teacher(
        self,
        table: ProductTable,
        histories: Sequence[Sequence[str]],
        training: TrainingSettings,
        progress: Progress,
    ) -> InterestTeacher | None:
        ids, texts = table.product_ids(range(len(table))), table.headings(range(len(table)))
        found = InterestTeacher.learn(ids, texts, histories, seed=training.seed, progress=progress)
        if found is None:
            logger.warning(
                "%s: too few histories of two purchases or more to learn a teacher from: "
                "training.teacher counts nothing",
                self.histories or self.purchases,
            )
        return found


def lists_of(
    name: str,
    split: Split,
    table: ProductTable,
    told: ToldOf,
    sales: SalesOf,
    negatives: NegativeSampler,
    settings: Settings,
    teacher: Teacher | None = None,
) -> Lists:
    """Put together the lists of both parts of a split.

    Raises:
        DataError: nobody is held back, or everybody.
    """
    training, language = settings.training, language_by(settings.ranking)
    if not split.validation:
        raise DataError(
            f"{name}: there are too few shoppers to hold any back for validation: five are needed"
        )
    if not split.train:
        raise DataError(
            f"{name}: all its shoppers are held back, here or in another source: lower "
            "training.validation_shoppers"
        )

    def examples(part: Sequence[Purchase], name: str, *, learnt: bool) -> PurchaseExamples:
        return PurchaseExamples(
            name,
            part,
            products=_Lookup(table),
            told=told,
            sales=sales,
            negatives=negatives,
            candidates=training.candidates if learnt else VALIDATION_CANDIDATES,
            teacher=teacher,
            profile_dropout=training.profile_dropout if learnt else 0.0,
            sales_dropout=training.sales_dropout if learnt else 0.0,
            hostile_share=training.hostile if learnt else 0.0,
            language=language,
            seed=training.seed,
        )

    held = examples(split.validation, f"{name}-validation", learnt=False)
    return Lists(
        train=examples(split.train, name, learnt=True),
        validation=tuple(held.example(row, 0) for row in range(len(held))),
        card=_card(name, split, len(table), language),
    )


def _shortest(purchases: Sequence[Purchase]) -> list[tuple[str, ...]]:
    """Return the shortest history of each shopper."""
    found: dict[str, tuple[str, ...]] = {}
    for one in purchases:
        if one.user_id not in found or len(one.history) < len(found[one.user_id]):
            found[one.user_id] = one.history
    return list(found.values())


def categories_of(table: ProductTable) -> dict[str, str]:
    """Return the category of each product that has one."""
    products = table.products(range(len(table)))
    return {product.product_id: product.category for product in products if product.category}


class UntimedProfiles:
    """Tells of shoppers whose purchases have an order and no times."""

    def __init__(self, builder: ProfileBuilder) -> None:
        self._builder = builder

    def __call__(self, purchase: Purchase, language: Language) -> Told | None:
        """Return what the profile tells from what was bought before a purchase."""
        events = untimed_purchases(purchase.history, NO_TIME)
        found = self._builder.build(purchase.user_id, events, NO_TIME, language, timed=False)
        return Told.of(found) if found is not None else None


class _Lookup:
    def __init__(self, table: ProductTable) -> None:
        self._table = table

    def __call__(self, product_ids: Sequence[str]) -> list[Product | None]:
        rows = self._table.rows_of_ids(product_ids)
        found = iter(self._table.products(rows[rows >= 0]))
        return [next(found) if row >= 0 else None for row in rows.tolist()]


def _catalogue(products: Path, work: Path, progress: Progress) -> ProductTable:
    target = work / "catalogue" / "products.arrow"
    import_catalogue(
        [products],
        target,
        replace=True,
        progress=lambda done, total: progress("reading products", done, total or 0),
    )
    return ProductTable.open(target)


def _known(purchases: Sequence[Purchase], ids: set[str], file: Path) -> tuple[Purchase, ...]:
    """Return purchases of products that the catalogue has."""
    known = tuple(one for one in purchases if one.target in ids)
    if not known:
        raise DataError(f"{file}: none of the products bought is in the catalogue")
    return known


def language_by(settings: RankingSettings) -> LanguageOf:
    """Return what tells the language of a purchase's prompt, as serving tells that of a search."""

    def language(purchase: Purchase) -> Language:
        if settings.language != "auto":
            return settings.language
        return detect_language(purchase.query)

    return language


def _card(name: str, split: Split, products: int, language: LanguageOf) -> SourceCard:
    moments = [one.at for one in split.train if one.at is not None]
    return SourceCard(
        name=name,
        purchases=len(split.train),
        shoppers=len({one.user_id for one in split.train}),
        products=products,
        first=min(moments, default=None),
        last=max(moments, default=None),
        languages=tuple(sorted({language(one) for one in split.train})),
        sha256=fingerprint(split.train),
    )
