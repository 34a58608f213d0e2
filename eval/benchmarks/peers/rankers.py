"""Rank lists with other libraries against a running server. Runs in the peers' environment.

    python rankers.py PEER URL MODEL CONCURRENCY < lists.json

Lists come as JSON, ``[{"query": ..., "passages": [...]}]``; the answer is one JSON line with the
seconds taken, each list's order of passages (null where the library raised, with the errors counted
by class), how many passages each reply of the model names where the library lets that be seen, and
what the server told at ``/metrics`` before and after. Nothing of Shelfwise is imported here.
"""

import json
import re
import sys
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

ANSWER_TOKENS = 256
"""More than any whole ranking of 20 needs. Both libraries set no limit, and a small model that
loses the thread would write until its context is full: the limit speaks for them."""

SALT = {"cache_salt": f"peer-{time.monotonic_ns()}"}
"""Keeps what earlier runs left in the server's prefix cache out of this one."""


def langchain(url, model, _named):
    """LangChain's LLMListwiseRerank, its structured output as a JSON Schema."""
    from langchain_classic.retrievers.document_compressors.listwise_rerank import (
        LLMListwiseRerank,
    )
    from langchain_core.documents import Document
    from langchain_openai import ChatOpenAI

    llm = ChatOpenAI(
        base_url=f"{url}/v1",
        model=model,
        api_key="none",
        temperature=0,
        max_tokens=ANSWER_TOKENS,
        max_retries=0,
        timeout=120,
        extra_body=SALT,
    )
    reranker = LLMListwiseRerank.from_llm(llm, top_n=1000)

    def rank(query, passages):
        documents = [Document(text, metadata={"place": n}) for n, text in enumerate(passages)]
        ranked = reranker.compress_documents(documents, query)
        return [document.metadata["place"] for document in ranked]

    return rank


def rank_llm(url, model, named, whole=False):
    """rank_llm's RankGPT: its prompt, its window of 20 with step 10, its parser.

    Token counts are estimated, as its tokenizer would have to be downloaded. A model that does not
    do what the prompt asks for may stop after a few words, or never: with ``whole`` the server
    holds it to the form, ``[3] > [1] > ...`` with as many places as there are passages.
    """
    import openai
    import stand_ins

    stand_ins.install()
    from rank_llm.data import Candidate, Query, Request
    from rank_llm.rerank.listwise.rank_gpt import SafeOpenai
    from rank_llm.rerank.rankllm import PromptMode

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)

    class Peer(SafeOpenai):
        def run_llm(self, prompt, current_window_size=None):
            size = current_window_size or self._window_size
            form = {"structured_outputs": {"regex": _form(size)}} if whole else {}
            reply = client.chat.completions.create(
                model=self._model,
                messages=prompt,
                temperature=0,
                max_tokens=ANSWER_TOKENS,
                extra_body=SALT | form,
            )
            text, tokens = reply.choices[0].message.content, reply.usage.completion_tokens
            said = {int(found) for found in re.findall(r"\[(\d+)\]", text)}
            named.append(len(said & set(range(1, size + 1))))
            return text, tokens

        def get_num_tokens(self, prompt):
            return sum(len(message["content"]) // 3 for message in prompt)

        def num_output_tokens(self, current_window_size=None):
            return 5 * (current_window_size or self._window_size)

    peer = Peer(model, 8192, prompt_mode=PromptMode.RANK_GPT, keys=["none"])

    def rank(query, passages):
        candidates = [
            Candidate(docid=str(n), score=float(-n), doc={"contents": text})
            for n, text in enumerate(passages)
        ]
        request = Request(query=Query(text=query, qid="q"), candidates=candidates)
        (result,) = peer.rerank_batch([request], rank_end=len(passages))
        return [int(candidate.docid) for candidate in result.candidates]

    return rank


def _form(size):
    """Return the form of a whole ranking, which says nothing of its order."""
    return rf"\[[1-9][0-9]?\]( > \[[1-9][0-9]?\]){{{size - 1}}}"


def metrics(url):
    """Return what the server has counted."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        return answer.read().decode()


PEERS = {
    "langchain": langchain,
    "rank_llm": rank_llm,
    "rank_llm_whole": partial(rank_llm, whole=True),
}


def main():
    """Rank the lists of standard input."""
    peer, url, model, concurrency = sys.argv[1:]
    named = []
    rank = PEERS[peer](url, model, named)
    lists = json.load(sys.stdin)
    errors = Counter()

    def one(entry):
        try:
            return rank(entry["query"], entry["passages"])
        except Exception as error:  # what a library raises is part of the finding
            errors[type(error).__name__] += 1
            return None

    # Loads what is loaded on first use, and leaves nothing of the lists in the server's cache.
    one({"query": "anything", "passages": ["one", "another"]})
    errors.clear()
    named.clear()
    before = metrics(url)
    started = time.monotonic()
    with ThreadPoolExecutor(int(concurrency)) as pool:
        orders = list(pool.map(one, lists))
    seconds = time.monotonic() - started
    found = {
        "seconds": seconds,
        "concurrency": int(concurrency),
        "orders": orders,
        "errors": errors,
        "named": named,
        "metrics": [before, metrics(url)],
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
