"""LangChain adapters: a document compressor, a retriever and a runnable over one `Reranker`.

    compressor = ShelfwiseCompressor(shelf=shelf, user_id="2314")
    compressor.compress_documents(documents, "yogurt")      # every document, best first

    retriever = ShelfwiseRetriever(shelf=shelf)              # recall alone
    retriever.invoke("yogurt")

    search_runnable(shelf).invoke("yogurt", {"configurable": {"user_id": "2314"}})

All of them work asynchronously, too. Documents come back with their metadata as it was; what
Shelfwise adds is ``relevance_score`` (as LangChain's own re-rankers name it) and ``shelfwise``.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
    Callbacks,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import ConfigDict, Field, ValidationError

from reranker.errors import DataError
from reranker.pipeline import Reranker
from reranker.schema import (
    LONGEST_QUERY,
    Candidate,
    Filters,
    Product,
    RerankResult,
    SearchRequest,
    is_blank,
)
from reranker.workers import in_turn

_FROM_METADATA = ("brand", "category", "price", "currency", "in_stock", "attributes")
_SURE = 10
Searched = SearchRequest | Mapping[str, Any] | str
"""What the runnable takes: a request, its fields, or a query alone."""


class ShelfwiseCompressor(BaseDocumentCompressor):
    """Re-ranks documents about products for one shopper.

    A document's product is read from its metadata (``product_id``, ``title``, ``brand``,
    ``category``, ``price``, ``currency``, ``in_stock``, ``attributes``); without a title, the
    first line of the text is one, and the rest the description. Every document comes back exactly
    once, equal ones and those of the same product included.

    Attributes:
        shelf: ranks.
        user_id: the shopper; None ranks for nobody in particular.
        top_n: number of documents returned, all in the model's order; None returns all, of which
            those behind the first ten may be in rough order where there are more than a window.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", frozen=True, coerce_numbers_to_str=True
    )

    shelf: Reranker
    user_id: str | None = None
    top_n: int | None = Field(None, ge=1)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the documents, best first.

        Raises:
            DataError: the metadata of a document cannot be a product's.
        """
        request, candidates = self._asked(documents, query)
        return self._ordered(documents, self.shelf.rerank(request, candidates))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the documents, best first.

        Raises:
            DataError: the metadata of a document cannot be a product's.
        """
        request, candidates = self._asked(documents, query)
        return self._ordered(documents, await self.shelf.arerank(request, candidates))

    def _asked(
        self, documents: Sequence[Document], query: str
    ) -> tuple[SearchRequest, tuple[Candidate, ...]]:
        candidates = tuple(
            Candidate(product=product, recall_rank=rank, recall_score=1 / rank)
            for rank, product in enumerate(_products(documents), start=1)
        )
        sure = min(self.top_n or _SURE, 1000)
        return SearchRequest(query=_query(query), user_id=self.user_id, k=sure), candidates

    def _ordered(self, documents: Sequence[Document], result: RerankResult) -> list[Document]:
        # The recall rank is the document's own place: no id is needed to find it again.
        ordered = []
        for item in result.items[: self.top_n]:
            document = documents[item.recall_rank - 1]
            told = {
                "rank": item.rank,
                "recall_rank": item.recall_rank,
                "llm_logprob": item.llm_logprob,
                "placed_by": item.placed_by,
                "reason": item.reason,
                "outcome": result.outcome,
                "request_id": result.request_id,
            }
            added = {"relevance_score": item.score, "shelfwise": told}
            ordered.append(document.model_copy(update={"metadata": {**document.metadata, **added}}))
        return ordered


class ShelfwiseRetriever(BaseRetriever):
    """Recall as documents: the candidates of a search in recall order, without the model's ranking.

    Attributes:
        shelf: recalls.
        user_id: the shopper, whose own matching products are among the candidates.
        filters: conditions that every product meets.
        k: number of documents; None takes the setting ``retrieval.candidates``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)

    shelf: Reranker
    user_id: str | None = None
    filters: Filters = Filters()
    k: int | None = Field(None, ge=1, le=1000)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        request = SearchRequest(
            query=_query(query), user_id=self.user_id, filters=self.filters, k=self.k or 10
        )
        found = self.shelf.recall(request)
        return [_document(candidate) for candidate in found[: self.k]]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        sync = run_manager.get_sync()
        return await in_turn(lambda: self._get_relevant_documents(query, run_manager=sync))


def search_runnable(shelf: Reranker) -> Runnable[Searched, RerankResult]:
    """Return the whole search as a runnable.

    It takes a `SearchRequest`, a mapping of its fields, or a query alone; for the latter two the
    shopper may come from ``config["configurable"]["user_id"]``.
    """

    def search(searched: Searched, config: RunnableConfig) -> RerankResult:
        return shelf.search(_request(searched, config))

    async def asearch(searched: Searched, config: RunnableConfig) -> RerankResult:
        return await shelf.asearch(_request(searched, config))

    return RunnableLambda(search, asearch, name="shelfwise")


def _request(searched: Searched, config: RunnableConfig) -> SearchRequest:
    if isinstance(searched, SearchRequest):
        return searched
    fields = {"query": searched} if isinstance(searched, str) else dict(searched)
    user_id = config.get("configurable", {}).get("user_id")
    if user_id is not None:
        fields.setdefault("user_id", str(user_id))
    return SearchRequest.model_validate(fields)


def _query(text: str) -> str | None:
    """Return a query as a request takes it; a blank one asks for recommendations."""
    cut = text.strip()[:LONGEST_QUERY]
    return None if is_blank(cut) else cut


def _products(documents: Sequence[Document]) -> list[Product]:
    products = []
    seen: Counter[str] = Counter()
    for number, document in enumerate(documents, start=1):
        product = _product(document, number)
        seen[product.product_id] += 1
        if (copies := seen[product.product_id]) > 1:
            update = {"product_id": f"{product.product_id} (document {number}, copy {copies})"}
            product = product.model_copy(update=update)
        products.append(product)
    return products


def _product(document: Document, number: int) -> Product:
    metadata = document.metadata
    first, _, rest = document.page_content.strip().partition("\n")
    title = _text(metadata, "title") or first or f"document {number}"
    repeated = title == first.strip()
    text = rest if repeated else document.page_content
    fields = {name: metadata[name] for name in _FROM_METADATA if metadata.get(name) is not None}
    try:
        return Product.model_validate(
            {
                "product_id": _text(metadata, "product_id") or document.id or f"#{number}",
                "title": title,
                "description": text.strip(),
                **fields,
            }
        )
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        message = f"document {number}: metadata {field} = {problem['input']!r}: {problem['msg']}"
        raise DataError(f"{message}; correct it or leave it out") from None


def _text(metadata: Mapping[str, Any], name: str) -> str:
    """Return what metadata say as text; empty where they say nothing. 0 is something."""
    value = metadata.get(name)
    return "" if value is None else str(value).strip()


def _document(candidate: Candidate) -> Document:
    product = candidate.product
    told = product.model_dump(exclude={"description"}, exclude_none=True)
    evidence = {"recall_rank": candidate.recall_rank, "recall_score": candidate.recall_score}
    return Document(
        id=product.product_id,
        page_content=f"{product.title}\n{product.description}".strip(),
        metadata={**told, **evidence},
    )
