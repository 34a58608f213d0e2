"""Let other libraries read model replies by their own code. Runs in the peers' environment.

    python parsers.py PEER < replies.json

Replies come as JSON, ``[{"size": 7, "text": "..."}]``. The answer is one JSON line: the library's
version, and for each reply the order that it made of the documents, or the name of the exception
that it raised. Each library's own public method runs, from the model's reply to the ordered
documents; only the model is replaced, by one that says the given text. Nothing of Shelfwise is
imported here.
"""

import contextlib
import io
import json
import logging
import os
import sys
from importlib.metadata import version

import stand_ins

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


def langchain():
    """LLMListwiseRerank over a chat model in JSON mode: LangChain's own parser of such replies."""
    from langchain_classic.retrievers.document_compressors.listwise_rerank import (
        LLMListwiseRerank,
    )
    from langchain_core.documents import Document
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.output_parsers import PydanticOutputParser

    class Scripted(FakeListChatModel):
        def with_structured_output(self, schema, **kwargs):
            return self | PydanticOutputParser(pydantic_object=schema)

    def read(text, size):
        documents = [Document(f"text {n}", metadata={"place": n}) for n in range(size)]
        reranker = LLMListwiseRerank.from_llm(Scripted(responses=[text]), top_n=size)
        ranked = reranker.compress_documents(documents, "query")
        return [document.metadata["place"] for document in ranked]

    return read


def rank_llm(use_alpha=False):
    """rank_llm's receive_permutation, of numbers or of letters."""
    from rank_llm.data import Candidate, Query, Result
    from rank_llm.rerank.listwise.rank_gpt import SafeOpenai
    from rank_llm.rerank.rankllm import PromptMode

    peer = SafeOpenai("none", 8192, prompt_mode=PromptMode.RANK_GPT, keys=["none"])
    peer._use_alpha = use_alpha

    def read(text, size):
        candidates = [Candidate(docid=str(n), score=float(-n), doc={}) for n in range(size)]
        result = Result(query=Query(text="query", qid="q"), candidates=candidates)
        ranked = peer.receive_permutation(result, text, 0, size)
        return [int(candidate.docid) for candidate in ranked.candidates]

    return read


def rank_llm_letters():
    """rank_llm with its setting use_alpha."""
    return rank_llm(use_alpha=True)


def rerankers():
    """RankGPTRanker.rank, told to rank all documents (its default shows the model none)."""
    from rerankers.models.rankgpt_rankers import RankGPTRanker

    class Scripted(RankGPTRanker):
        text = ""

        def _query_llm(self, messages):
            return self.text

    peer = Scripted("none", "none", verbose=0)

    def read(text, size):
        peer.text = text
        ranked = peer.rank("query", [f"text {n}" for n in range(size)], rank_end=size)
        return [result.document.doc_id for result in ranked.results]

    return read


def _llama_index(make):
    from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
    from llama_index.core.schema import NodeWithScore, TextNode

    class Scripted(CustomLLM):
        text: str = ""

        @property
        def metadata(self):
            return LLMMetadata(context_window=100_000)

        def complete(self, prompt, formatted=False, **kwargs):
            return CompletionResponse(text=self.text)

        def stream_complete(self, prompt, formatted=False, **kwargs):
            raise NotImplementedError

    def read(text, size):
        nodes = [NodeWithScore(node=TextNode(text=f"text {n}", id_=str(n))) for n in range(size)]
        ranked = make(Scripted(text=text), size).postprocess_nodes(nodes, query_str="query")
        return [int(one.node.node_id) for one in ranked]

    return read


def llama_index():
    """LLMRerank with its default parser, all documents in one batch."""
    from llama_index.core.postprocessor import LLMRerank

    return _llama_index(lambda llm, n: LLMRerank(llm=llm, choice_batch_size=n, top_n=n))


def llama_index_rankgpt():
    """RankGPTRerank."""
    from llama_index.postprocessor.rankgpt_rerank import RankGPTRerank

    return _llama_index(lambda llm, n: RankGPTRerank(llm=llm, top_n=n))


def flashrank():
    """Ranker.rerank with one of its listwise models."""
    from flashrank import Ranker, RerankRequest

    class Scripted:
        text = ""

        def create_chat_completion(self, messages):
            return {"choices": [{"message": {"content": self.text}}]}

    peer = object.__new__(Ranker)  # its constructor would download the model
    peer.logger = logging.getLogger("flashrank")
    peer.llm_model = Scripted()

    def read(text, size):
        peer.llm_model.text = text
        request = RerankRequest("query", [{"id": n, "text": f"text {n}"} for n in range(size)])
        return [passage["id"] for passage in peer.rerank(request)]

    return read


PEERS = {
    "langchain": (langchain, "langchain-classic"),
    "rank_llm": (rank_llm, "rank-llm"),
    "rank_llm_letters": (rank_llm_letters, "rank-llm"),
    "rerankers": (rerankers, "rerankers"),
    "llama_index": (llama_index, "llama-index-core"),
    "llama_index_rankgpt": (llama_index_rankgpt, "llama-index-postprocessor-rankgpt-rerank"),
    "flashrank": (flashrank, "flashrank"),
}


def _outcome(read, reply):
    try:
        return {"order": list(read(reply["text"], reply["size"])), "error": None}
    except Exception as error:  # what a library raises is part of the finding
        return {"order": None, "error": type(error).__name__}


def main():
    """Read the replies of standard input."""
    make, distribution = PEERS[sys.argv[1]]
    stand_ins.install()
    logging.disable()
    with contextlib.redirect_stdout(io.StringIO()):
        read = make()
        outcomes = [_outcome(read, reply) for reply in json.load(sys.stdin)]
    answer = {"version": version(distribution), "outcomes": outcomes}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
