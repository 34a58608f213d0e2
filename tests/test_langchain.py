"""The LangChain adapters over a real shelf: the seed shop and the embedded model."""

from collections.abc import Iterator

import anyio
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from reranker import DataError, Reranker, SearchRequest, Settings, build
from reranker.langchain import ShelfwiseCompressor, ShelfwiseRetriever, search_runnable
from reranker.models.embedded import EmbeddedModel
from reranker.schema import Filters


@pytest.fixture(scope="module")
def shelf(seed_store, model: EmbeddedModel) -> Iterator[Reranker]:
    with build(Settings.load(None, {"store.path": seed_store}), model=model) as shelf:
        yield shelf


DOCUMENTS = [
    Document(page_content="Coffee mug\nHolds 300 ml.", id="mug", metadata={"source": "a.csv"}),
    Document(page_content="A quiet one", metadata={"title": "Laptop", "price": "899.50"}),
    Document(page_content="Coffee mug\nHolds 300 ml.", id="mug", metadata={"source": "b.csv"}),
    Document(page_content="", metadata={"product_id": 7}),
]


def test_every_document_comes_back_once_with_its_metadata(shelf: Reranker) -> None:
    ranked = ShelfwiseCompressor(shelf=shelf).compress_documents(DOCUMENTS, "laptop")
    places = sorted(document.metadata["shelfwise"]["recall_rank"] for document in ranked)
    assert places == [1, 2, 3, 4]
    for document in ranked:
        original = DOCUMENTS[document.metadata["shelfwise"]["recall_rank"] - 1]
        assert document.page_content == original.page_content
        assert document.id == original.id
        assert original.metadata.items() <= document.metadata.items()
    scores = [document.metadata["relevance_score"] for document in ranked]
    assert scores == sorted(scores, reverse=True)
    assert "shelfwise" not in DOCUMENTS[0].metadata


def test_the_shopper_changes_the_ranking_s_evidence(shelf: Reranker) -> None:
    def logprobs(user: str | None) -> dict[int, float]:
        ranked = ShelfwiseCompressor(shelf=shelf, user_id=user).compress_documents(
            DOCUMENTS, "laptop"
        )
        told = [document.metadata["shelfwise"] for document in ranked]
        return {entry["recall_rank"]: entry["llm_logprob"] for entry in told}

    assert logprobs("B") != logprobs(None)


def test_it_cuts_to_top_n_and_takes_no_documents(shelf: Reranker) -> None:
    compressor = ShelfwiseCompressor(shelf=shelf, top_n=2)
    whole = ShelfwiseCompressor(shelf=shelf).compress_documents(DOCUMENTS, "laptop")
    cut = compressor.compress_documents(DOCUMENTS, "laptop")
    assert [d.page_content for d in cut] == [d.page_content for d in whole[:2]]
    assert compressor.compress_documents([], "laptop") == []


def test_it_is_asynchronous_too(shelf: Reranker) -> None:
    compressor = ShelfwiseCompressor(shelf=shelf)
    ranked = anyio.run(compressor.acompress_documents, DOCUMENTS, "laptop")
    assert [d.page_content for d in ranked] == [
        d.page_content for d in compressor.compress_documents(DOCUMENTS, "laptop")
    ]


def test_a_document_that_is_no_product_is_named(shelf: Reranker) -> None:
    wrong = [*DOCUMENTS, Document(page_content="Lamp", metadata={"price": "a lot"})]
    with pytest.raises(DataError, match=r"document 5: metadata price = 'a lot'"):
        ShelfwiseCompressor(shelf=shelf).compress_documents(wrong, "lamp")


def test_a_product_whose_number_is_0_keeps_it(shelf: Reranker) -> None:
    given = [Document(page_content="Lamp", id="other", metadata={"product_id": n}) for n in (0, "")]
    _, candidates = ShelfwiseCompressor(shelf=shelf)._asked(given, "lamp")
    assert [c.product.product_id for c in candidates] == ["0", "other"]


def test_what_is_asked_loosely_is_understood(shelf: Reranker) -> None:
    compressor = ShelfwiseCompressor(shelf=shelf, user_id=7)
    for query in ("", "   ", "\u200b\u2060", "x " * 2000):
        assert len(compressor.compress_documents(DOCUMENTS, query)) == len(DOCUMENTS)
    assert len(ShelfwiseRetriever(shelf=shelf).invoke(" ")) == 3


def test_a_retrieved_document_says_its_title_once(shelf: Reranker) -> None:
    found = ShelfwiseRetriever(shelf=shelf).invoke("laptop")
    _, candidates = ShelfwiseCompressor(shelf=shelf)._asked(found, "laptop")
    assert all(c.product.title not in c.product.description for c in candidates)


def test_recall_as_a_retriever(shelf: Reranker) -> None:
    retriever = ShelfwiseRetriever(shelf=shelf, k=2)
    found = retriever.invoke("laptop")
    assert found[0].id == "laptop"
    assert [document.metadata["recall_rank"] for document in found] == [1, 2]
    assert anyio.run(retriever.ainvoke, "laptop") == found
    cheap = ShelfwiseRetriever(shelf=shelf, filters=Filters(max_price=1)).invoke("laptop")
    assert cheap == []


def test_the_documents_of_the_retriever_can_be_compressed(shelf: Reranker) -> None:
    chain = ShelfwiseRetriever(shelf=shelf) | RunnableLambda(
        lambda found: ShelfwiseCompressor(shelf=shelf).compress_documents(found, "laptop")
    )
    ranked = chain.invoke("laptop")
    assert {document.id for document in ranked} == {"laptop", "tablet", "smartphone"}


def test_the_whole_search_as_a_runnable(shelf: Reranker) -> None:
    runnable = search_runnable(shelf)
    assert not runnable.invoke("laptop").personalised
    assert runnable.invoke("laptop", {"configurable": {"user_id": "B"}}).personalised
    assert runnable.invoke({"query": "laptop", "user_id": "B", "k": 1}).personalised
    results = runnable.batch([SearchRequest(query="laptop"), SearchRequest(query="tablet")])
    assert [len(result.items) for result in results] == [3, 3]
    assert anyio.run(runnable.ainvoke, "laptop").outcome == "model"
