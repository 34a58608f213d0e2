"""The parser benchmark: its replies, its scores, and the peers where their environment is there."""

from pathlib import Path

import pytest

from eval.benchmarks.parsers import run_parser_benchmark
from eval.benchmarks.replies import FORMS, KINDS, malformed_replies, well_formed_replies
from reranker.errors import ConfigError

PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"


@pytest.mark.parametrize("form", FORMS)
def test_replies_are_the_same_for_the_same_seed_and_of_every_kind(form: str) -> None:
    replies = list(malformed_replies(len(KINDS) * 2, form, seed=7))
    assert replies == list(malformed_replies(len(KINDS) * 2, form, seed=7))
    assert replies != list(malformed_replies(len(KINDS) * 2, form, seed=8))
    assert [reply.kind for reply in replies[: len(KINDS)]] == [kind.name for kind in KINDS]
    assert any(reply.around for reply in replies[len(KINDS) :])
    for reply in replies:
        assert sorted(reply.order) == list(range(reply.size))
    well_formed = next(well_formed_replies(1, form)).text
    assert well_formed not in {reply.text for reply in replies}


def test_our_parser_reads_every_reply_or_refuses_it() -> None:
    result = run_parser_benchmark(2_000)
    assert result.kinds == len(KINDS) >= 40
    assert len(result.missing) == 7
    for score in result.scores:
        assert score.well_formed == 1.0
        assert score.recovered == 1.0
        assert score.complete_or_raised == 1.0
        assert score.raised == 0.0
        assert score.refused == 1.0
        assert score.invented == 0.0
        assert score.worst == ()


@pytest.mark.skipif(not PEERS.exists(), reason="make peers has not been run")
def test_the_peers_read_what_they_ask_for() -> None:
    """Otherwise what is measured would be our way of calling them."""
    result = run_parser_benchmark(200, PEERS)
    peers = [score for score in result.scores if score.version]
    assert len(peers) == 7
    for score in peers:
        assert score.well_formed == 1.0, score.parser
        assert score.recovered < 1.0
        assert score.worst


def test_an_interpreter_without_the_peers_is_named() -> None:
    with pytest.raises(ConfigError, match=r"LangChain.* cannot run in /nowhere/python"):
        run_parser_benchmark(10, Path("/nowhere/python"))
