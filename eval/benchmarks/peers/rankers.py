"""Rank lists with other libraries against a running server. Runs in the peers' environment.

    python rankers.py PEER URL MODEL CONCURRENCY < lists.json

Lists come as JSON, ``[{"query": ..., "passages": [...]}]``; the answer is one JSON line with the
seconds taken, each list's order of passages (null where the library raised, with the errors counted
by class), and what the model wrote for each list where the library lets that be seen: how many of
its passages the reply names, and the reply's tokens. Nothing of Shelfwise is imported here.
"""

import json
import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

ANSWER_TOKENS = 256
"""More than any whole ranking of 20 needs. Both libraries set no limit, and a small model that
loses the thread would write until its context is full: the limit speaks for them."""


def langchain(url, model, _replies):
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
    )
    reranker = LLMListwiseRerank.from_llm(llm, top_n=1000)

    def rank(query, passages):
        documents = [Document(text, metadata={"place": n}) for n, text in enumerate(passages)]
        ranked = reranker.compress_documents(documents, query)
        return [document.metadata["place"] for document in ranked]

    return rank


def rank_llm(url, model, replies):
    """rank_llm's RankGPT: its prompt, its window of 20 with step 10, its parser.

    Token counts are estimated, as its tokenizer would have to be downloaded.
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
            reply = client.chat.completions.create(
                model=self._model, messages=prompt, temperature=0, max_tokens=ANSWER_TOKENS
            )
            text, tokens = reply.choices[0].message.content, reply.usage.completion_tokens
            named = {int(found) for found in re.findall(r"\[(\d+)\]", text)}
            known = named & set(range(1, (current_window_size or self._window_size) + 1))
            replies.append({"named": len(known), "tokens": tokens})
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


def main():
    """Rank the lists of standard input."""
    peer, url, model, concurrency = sys.argv[1:]
    replies = []
    rank = {"langchain": langchain, "rank_llm": rank_llm}[peer](url, model, replies)
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
    replies.clear()
    started = time.monotonic()
    with ThreadPoolExecutor(int(concurrency)) as pool:
        orders = list(pool.map(one, lists))
    seconds = time.monotonic() - started
    found = {"seconds": seconds, "orders": orders, "errors": errors, "replies": replies}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
