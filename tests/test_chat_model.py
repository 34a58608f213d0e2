"""LangChain chat models whose replies are scripted: the subject is what becomes of them."""

import logging
import time

import anyio
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult

from questions import ask
from reranker.errors import ConfigError
from reranker.listwise import Judgement, ListwiseRanker
from reranker.models.chat_model import ChatModel, EstimatedTokenizer
from reranker.parsing.form import LONGEST_ANSWER
from reranker.schema import SearchRequest
from reranker.settings import RankingSettings
from shop import candidates

pytestmark = pytest.mark.alone

GENERATE = RankingSettings(readout="generate", shuffles=1)


class OverloadedError(ConnectionRefusedError):
    """A provider's own kind of error, which repeats the prompt."""

    status_code = 503


class Down(BaseChatModel):
    """Answers every question with a provider's own kind of error."""

    @property
    def _llm_type(self) -> str:
        return "down"

    def _generate(self, messages: list[BaseMessage], *args: object, **more: object) -> ChatResult:
        raise OverloadedError(f"nobody answers {messages}")


def judge(chat: BaseChatModel, settings: RankingSettings = GENERATE) -> Judgement:
    ranker = ListwiseRanker(ChatModel(chat), settings, profile_tokens=64)
    return anyio.run(ranker.judge, SearchRequest(query="a laptop"), None, candidates())


def test_a_written_ranking_is_the_order() -> None:
    judged = judge(FakeListChatModel(responses=['{"ranking": ["C", "A", "F", "B", "E", "D"]}']))
    assert judged.outcome == "model"
    assert judged.places == (2, 4, 1, 6, 5, 3)
    assert judged.logprobs == (None,) * 6


def test_gaps_are_repaired_and_said() -> None:
    judged = judge(FakeListChatModel(responses=['Sure! {"ranking": ["C", "C", "Z", "A"]}']))
    assert judged.outcome == "repaired"
    assert judged.places[2] == 1
    assert judged.places[0] == 2
    assert sorted(judged.places) == [1, 2, 3, 4, 5, 6]
    assert {issue.code for issue in judged.issues} == {"repaired"}


def test_reasons_stand_only_where_they_are_borne_out() -> None:
    reply = """{"ranking": ["B", "A", "C", "D", "E", "F"], "reasons": [
        {"label": "B", "cites": "backlit keyboard", "reason": "A backlit keyboard."},
        {"label": "A", "cites": "waterproof", "reason": "It is waterproof."},
        {"label": "C", "cites": "Tablet", "reason": "A tablet like those of Kestrel."}]}"""
    judged = judge(FakeListChatModel(responses=[reply]))
    assert judged.reasons[1] == "A backlit keyboard."
    assert judged.reasons[0] is judged.reasons[2] is None
    assert [issue.detail for issue in judged.issues] == ["not_in_evidence", "names_other_product"]
    assert {issue.code for issue in judged.issues} == {"reason_dropped"}
    assert judged.outcome == "model"


def test_an_error_of_the_provider_is_a_fallback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    judged = judge(Down())
    assert judged.outcome == "fallback"
    assert judged.issues[0].code == "model_error"
    assert judged.issues[0].detail.endswith(": OverloadedError (HTTP 503)")
    assert "a laptop" not in caplog.text
    caplog.set_level(logging.DEBUG, "reranker")
    judge(Down())
    assert "a laptop" in caplog.text


def test_a_long_reply_is_cut_and_said() -> None:
    reply = '{"ranking": ["C", "A", "F", "B", "E", "D"]}' + "x" * 2 * LONGEST_ANSWER
    model = ChatModel(FakeListChatModel(responses=[reply]))

    async def write() -> tuple[str, ...]:
        return await model.write([ask("generate", 0)], schema={}, max_tokens=8)

    (text,) = anyio.run(write)
    assert len(text) == LONGEST_ANSWER + 1
    judged = judge(FakeListChatModel(responses=[reply]))
    assert judged.places == (2, 4, 1, 6, 5, 3)
    assert any("too_long" in issue.detail for issue in judged.issues)


def test_log_probabilities_are_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="can only be read by generate"):
        judge(FakeListChatModel(responses=["A"]), RankingSettings(readout="labels"))


def test_time_that_is_up() -> None:
    ranker = ListwiseRanker(
        ChatModel(FakeListChatModel(responses=["A"], sleep=3)), GENERATE, profile_tokens=64
    )

    async def timed() -> tuple[Judgement, float]:
        started = time.monotonic()
        request = SearchRequest(query="a")
        judged = await ranker.judge(request, None, candidates(), deadline=started + 0.3)
        return judged, time.monotonic() - started

    judged, seconds = anyio.run(timed)
    assert seconds < 2
    assert judged.outcome == "fallback"
    assert judged.deadline_hit


@pytest.mark.parametrize("text", ["", "two words", "一部智能手机", "é" * 50, "x" * 1000])
def test_the_estimate_cuts_to_what_it_counts(text: str) -> None:
    tokenizer = EstimatedTokenizer()
    for most in (0, 1, 7, 100):
        cut = tokenizer.truncate(text, most)
        assert text.startswith(cut)
        assert tokenizer.count(cut) <= most
        if cut != text:
            assert tokenizer.count(text[: len(cut) + 1]) > most
