"""How well written rankings are read: Shelfwise's parser beside those of other libraries.

Each parser is asked in the form that its own library asks for, and the same malformations are done
to each form. What counts as right is what a careful reader makes of a reply; kinds and truths are
in `eval.benchmarks.replies` and were written beside our parser, so that its own score shows that
nothing is broken, not that nothing is unknown. The peers' code runs in an environment of its own.
"""

import json
import string
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from eval.benchmarks.replies import FormName, MalformedReply, malformed_replies, well_formed_replies
from eval.benchmarks.replies.forms import MOST
from reranker.errors import ConfigError, OutputError
from reranker.parsing import parse_ranking
from reranker.ports import Progress, no_progress
from reranker.schema import Value

_PEER_SECONDS = 1800
_LABELS = tuple(string.ascii_uppercase[:MOST])


class ParserScore(Value):
    """What one parser made of the replies; shares are 0 to 1.

    Attributes:
        parser: library and class.
        version: of the library; empty for Shelfwise.
        form: in which it asks for rankings, by a short example.
        well_formed: of replies exactly as asked for, the share read as they mean.
        recovered: of malformed replies with a ranking in them, the share whose full order is what a
            careful reader finds. Products that were left out are appended in the order shown.
        complete: of all malformed replies, the share answered with every product exactly once.
        complete_or_raised: the same, where an exception counts as the shown order.
        raised: of malformed replies with a ranking in them, the share with an exception.
        refused: of replies without a ranking, the share with an exception.
        invented: of replies without a ranking, the share for which an order other than the one
            shown was returned all the same.
        worst: kinds of which least was recovered.
    """

    parser: str
    version: str
    form: str
    replies: int = Field(ge=1)
    well_formed: float
    recovered: float
    complete: float
    complete_or_raised: float
    raised: float
    refused: float
    invented: float
    worst: tuple[str, ...] = ()


class ParserBenchmark(Value):
    """All parsers on the same malformations."""

    replies: int
    kinds: int
    scores: tuple[ParserScore, ...]
    missing: tuple[str, ...] = ()


class _Outcome(NamedTuple):
    order: Sequence[int] | None


class _Answers(NamedTuple):
    version: str
    outcomes: Sequence[_Outcome]


_Reader = Callable[[Sequence[MalformedReply]], _Answers]


class _Peer(NamedTuple):
    key: str
    name: str
    form: FormName


_EXAMPLES: Mapping[FormName, str] = {
    "labels": '{"ranking": ["C", "A"]}',
    "letters": "[C] > [A]",
    "numbers": "[3] > [1]",
    "ids": '{"ranked_document_ids": [2, 0]}',
    "relevance": "Doc: 3, Relevance: 9",
}
_PEERS = (
    _Peer("langchain", "LangChain LLMListwiseRerank", "ids"),
    _Peer("rank_llm", "rank_llm", "numbers"),
    _Peer("rank_llm_letters", "rank_llm, use_alpha", "letters"),
    _Peer("llama_index", "llama_index LLMRerank", "relevance"),
    _Peer("llama_index_rankgpt", "llama_index RankGPTRerank", "numbers"),
    _Peer("rerankers", "rerankers RankGPTRanker", "numbers"),
    _Peer("flashrank", "FlashRank listwise Ranker", "numbers"),
)
_OURS: tuple[tuple[str, FormName], ...] = (("Shelfwise", "labels"), ("Shelfwise", "letters"))


def run_parser_benchmark(
    count: int = 10_000,
    peers_python: Path | None = None,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> ParserBenchmark:
    """Feed malformed replies to every parser.

    Args:
        count: number of replies to each.
        peers_python: interpreter of the peers' environment (`make peers`); None leaves them out.
        seed: of the replies.
        progress: told which parser is at work.

    Raises:
        ConfigError: a peer cannot run in that environment.
    """
    plan: list[tuple[str, FormName, _Reader]] = [(name, form, _read_ours) for name, form in _OURS]
    if peers_python is not None:
        for peer in _PEERS:
            plan.append((peer.name, peer.form, partial(_read_peer, peer, peers_python)))
    scores = []
    for done, (name, form, read) in enumerate(plan):
        progress("parsers", done, len(plan))
        good = tuple(well_formed_replies(max(1, count // 20), form, seed))
        bad = tuple(malformed_replies(count, form, seed))
        answers = read(good + bad)
        pairs = list(zip(good + bad, answers.outcomes, strict=True))
        scores.append(_score(name, answers.version, form, pairs[: len(good)], pairs[len(good) :]))
    progress("parsers", len(plan), len(plan))
    kinds = {reply.kind for reply in malformed_replies(count, "labels", seed)}
    missing = () if peers_python is not None else tuple(peer.name for peer in _PEERS)
    return ParserBenchmark(replies=count, kinds=len(kinds), scores=tuple(scores), missing=missing)


def _read_ours(replies: Sequence[MalformedReply]) -> _Answers:
    outcomes = []
    for reply in replies:
        try:
            outcomes.append(_Outcome(parse_ranking(reply.text, _LABELS[: reply.size]).order))
        except OutputError:
            outcomes.append(_Outcome(None))
    return _Answers("", outcomes)


def _read_peer(peer: _Peer, python: Path, replies: Sequence[MalformedReply]) -> _Answers:
    script = Path(str(files("eval.benchmarks"))) / "peers" / "parsers.py"
    sent = json.dumps([{"size": reply.size, "text": reply.text} for reply in replies])
    try:
        done = subprocess.run(
            [str(python), str(script), peer.key],
            input=sent,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PEER_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{peer.name} cannot run in {python}: {error}") from error
    if done.returncode:
        raise ConfigError(f"{peer.name} cannot run in {python}: {done.stderr[-600:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return _Answers(answer["version"], [_Outcome(one["order"]) for one in answer["outcomes"]])


_Pairs = Sequence[tuple[MalformedReply, _Outcome]]


def _score(name: str, version: str, form: FormName, good: _Pairs, bad: _Pairs) -> ParserScore:
    answered = [pair for pair in bad if pair[0].truth is not None]
    unanswered = [pair for pair in bad if pair[0].truth is None]
    return ParserScore(
        parser=name,
        version=version,
        form=_EXAMPLES[form],
        replies=len(bad),
        well_formed=_share(good, _is_right),
        recovered=_share(answered, _is_right),
        complete=_share(bad, _is_complete),
        complete_or_raised=_share(bad, lambda r, o: o.order is None or _is_complete(r, o)),
        raised=_share(answered, lambda _, outcome: outcome.order is None),
        refused=_share(unanswered, lambda _, outcome: outcome.order is None),
        invented=_share(unanswered, _is_invented),
        worst=_worst(answered),
    )


def _share(pairs: _Pairs, holds: Callable[[MalformedReply, _Outcome], bool]) -> float:
    return sum(holds(*pair) for pair in pairs) / len(pairs) if pairs else 0.0


def _is_complete(reply: MalformedReply, outcome: _Outcome) -> bool:
    return outcome.order is not None and sorted(outcome.order) == list(range(reply.size))


def _is_right(reply: MalformedReply, outcome: _Outcome) -> bool:
    return outcome.order is not None and _completed(outcome.order, reply.size) == reply.order


def _is_invented(reply: MalformedReply, outcome: _Outcome) -> bool:
    shown = tuple(range(reply.size))
    return outcome.order is not None and _completed(outcome.order, reply.size) != shown


def _completed(order: Sequence[int], size: int) -> tuple[int, ...]:
    """Do for a parser what it may leave to its caller: repeats out, what is missing at the end."""
    return tuple(dict.fromkeys((*order, *range(size))))


def _worst(answered: _Pairs) -> tuple[str, ...]:
    kinds = dict.fromkeys(reply.kind for reply, _ in answered)
    shares = {
        kind: _share([pair for pair in answered if pair[0].kind == kind], _is_right)
        for kind in kinds
    }
    return tuple(sorted((k for k in kinds if shares[k] < 1), key=shares.__getitem__)[:5])
