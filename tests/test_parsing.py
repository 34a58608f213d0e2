"""The model's answers are written out here: the subject is what is read in them."""

import json
import string
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.benchmarks.replies import KINDS, WRAPPERS, Kind, make_reply
from reranker.errors import OutputError
from reranker.parsing import WrittenRanking, answer_schema, answer_tokens, parse_ranking
from reranker.parsing.form import LONGEST_ANSWER

LABELS = tuple("ABCDE")
MANY = tuple(string.ascii_uppercase + string.ascii_lowercase)


def said(text: str, labels: tuple[str, ...] = LABELS) -> str:
    """The labels that a reply is taken to have ranked, as a word; empty for none."""
    try:
        ranking = parse_ranking(text, labels)
    except OutputError:
        return ""
    return "".join(labels[slot] for slot in ranking.order[: ranking.ranked])


def codes(ranking: WrittenRanking) -> set[str]:
    return {repair.code for repair in ranking.repairs}


def test_an_answer_as_asked_for_needs_no_repair() -> None:
    reasons = [{"label": "C", "cites": "green tea", "reason": "It is green tea."}]
    ranking = parse_ranking(json.dumps({"ranking": list("CABED"), "reasons": reasons}), LABELS)
    assert ranking.order == (2, 0, 1, 4, 3)
    assert ranking.ranked == 5
    assert ranking.repairs == ()
    assert [(r.slot, r.cites, r.text) for r in ranking.reasons] == [
        (2, "green tea", "It is green tea.")
    ]


def test_what_was_left_out_follows_in_the_order_shown() -> None:
    ranking = parse_ranking('{"ranking": ["D", "B"]}', LABELS)
    assert ranking.order == (3, 1, 0, 2, 4)
    assert ranking.ranked == 2
    assert [(r.code, r.detail) for r in ranking.repairs] == [("omitted", "A, C, E")]


@pytest.mark.parametrize(
    ("text", "order", "code"),
    [
        ('{"ranking": ["C", "A", "C", "B", "D", "E"]}', "CABDE", "duplicate"),
        ('{"ranking": ["C", "Q", "A", "B", "D", "E"]}', "CABDE", "out_of_range"),
        ('{"ranking": ["c", "A", "B", "D", "E"]}', "CABDE", "case"),
        ('{"ranking": ["C", "A", "B"', "CAB", "truncated"),
        ('{"ranking": ["C", "A", "B",]}', "CAB", "syntax"),
        ("{'ranking': ['C', 'A', 'B']}", "CAB", "syntax"),
        ('Sure:\n{"ranking": ["C", "A", "B"]}', "CAB", "chatter"),
        ('<think>[A] > [B]</think>{"ranking": ["C", "A", "B"]}', "CAB", "thinking"),
        ("【C】＞【A】＞【B】", "CAB", "fullwidth"),
        ("排序：C、A、B", "CAB", "fullwidth"),
        ("[C] > [A] > [B]", "CAB", "wrong_form"),
        ("[A] is cheap.\n[B] is dear.\n[C] is good.\nSo: [C] > [A]", "CA", "several"),
        ("First: [A] > [B] > [C]. Final ranking: [C] > [A] > [B]", "CAB", "several"),
    ],
)
def test_each_repair_is_named(text: str, order: str, code: str) -> None:
    assert said(text) == order
    assert code in codes(parse_ranking(text, LABELS))


@pytest.mark.parametrize(
    "text",
    [
        "A few notes",
        "I think A is good, and B too.",
        "I can't choose between A and B.",
        "I'm sorry, but A, B, C cannot be ranked.",
        "Option A or B? I need a budget.",
        "1. A few notes\n2. I think so",
        "[Z] > [Y]",
        '{"error": {"message": "A, B", "codes": ["A", "B"]}}',
        '{"type": "object", "properties": {"ranking": {"items": {"enum": ["B", "A"]}}}}',
        "<think>[A] > [B] > [C]",
    ],
)
def test_letters_in_talk_are_no_labels(text: str) -> None:
    assert said(text) == ""


@pytest.mark.parametrize("text", ["C", "[C]", "Answer: C", "**C**", '{"ranking": ["C"]}'])
def test_one_label_counts_where_it_is_all_there_is(text: str) -> None:
    assert said(text) == "C"


@pytest.mark.parametrize("text", ["", "   \n", "Traceback (most recent call last):\n  A", "502"])
def test_an_answer_without_a_ranking_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(OutputError, match="ranks no product") as caught:
        parse_ranking(text, LABELS)
    assert caught.value.raw == text


def test_digits_in_chatter_are_no_labels() -> None:
    """A digit in chatter is taken for an id by rank_llm and by RankGPT's ports."""
    numbers = tuple("123456789")
    assert said("Here are the top 5: [3] > [1]", numbers) == "31"
    assert said("I looked at 9 products.", numbers) == ""


def test_small_letters_are_labels_of_their_own_where_both_are_used() -> None:
    assert said("[a] > [A] > [z]", MANY) == "aAz"
    assert said('{"ranking": ["b", "B"]}', MANY) == "bB"


@pytest.mark.parametrize("form", ["labels", "letters"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_malformed_reply_is_read_as_a_careful_reader_would(kind: Kind, form: str) -> None:
    for around in (None, *WRAPPERS):
        for seed in range(4):
            reply = make_reply(kind, form, f"test {seed}", around)
            labels = tuple(string.ascii_uppercase[: reply.size])
            if reply.truth is None:
                with pytest.raises(OutputError):
                    parse_ranking(reply.text, labels)
                continue
            ranking = parse_ranking(reply.text, labels)
            assert ranking.order == reply.order, reply.text
            assert ranking.ranked == len(reply.truth)


def test_there_are_at_least_forty_kinds_each_of_its_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 40


PIECES = (
    *("{", "}", "[", "]", '"', "'", "ranking", "reasons", ":", ",", " > ", "A", "B", "[C]", "I "),
    *("\n", "1. ", "- ", "<think>", "</think>", "```", '{"label": "A"', "null", "\\", "is ", "【"),
)
ANY_TEXT = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="ABCDEabce[]{}()<>\"',:.>\n \\-*|1289［】“、＞是", max_size=300),
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
)


@settings(max_examples=400, deadline=None)
@given(text=ANY_TEXT, size=st.integers(1, 52))
def test_any_text_is_a_complete_order_or_a_refusal(text: str, size: int) -> None:
    try:
        ranking = parse_ranking(text, MANY[:size])
    except OutputError:
        return
    assert sorted(ranking.order) == list(range(size))
    assert 1 <= ranking.ranked <= size
    assert len(codes(ranking)) == len(ranking.repairs)
    placed = {MANY[slot] for slot in ranking.order[: ranking.ranked]}
    letters = set(unicodedata.normalize("NFKC", text))
    assert all({label, label.swapcase()} & letters for label in placed), "no label is made up"


@given(order=st.permutations(range(12)), keep=st.integers(2, 12), noise=st.booleans())
def test_what_was_said_is_recovered_exactly(order: list[int], keep: int, noise: bool) -> None:
    labels = MANY[:12]
    kept = [labels[slot] for slot in order[:keep]]
    wanted = (*order[:keep], *sorted(order[keep:]))
    twice = [*kept, *kept[:2], "Z"] if noise else kept
    for text in (json.dumps({"ranking": twice}), " > ".join(f"[{label}]" for label in twice)):
        ranking = parse_ranking(text, labels)
        assert ranking.order == wanted
        assert ranking.ranked == keep


@pytest.mark.parametrize(
    "piece",
    ["[", "{", "[A", '["', '{"ranking": [', "[A] > ", "A, ", "A\n", "<", "< a", " ", "product ",
     "\\", '"', "1. [A] ", ":", "A:\n", "think>", "<think>", "[[[[ 1,", "*", "|", "I'm sorry ",
     "is ", "\n>", "final:", "ranking: ", "<a ", "```", 'é"ranking": [1. [A] > A,[A] > ',
     '{"ranking": ["A", "B"]} é', "[A] > [B]\n", "é[A] x\nA:\n", "【A】＞【B】。\n",
     "排序：[A]、[B]\n"],
)  # fmt: skip
def test_long_replies_are_read_in_linear_time(piece: str) -> None:
    """Four times the text may take four times as long, and not sixteen."""
    short, long = (_seconds(piece, length) for length in (LONGEST_ANSWER // 4, LONGEST_ANSWER))
    assert long < 8 * short + 0.02
    assert _seconds(piece, 1_000_000, times=1) < 5


def _seconds(piece: str, length: int, *, times: int = 3) -> float:
    """Return the processor time that a reply of so many characters takes, the least of several."""
    text = (piece * (length // len(piece) + 1))[:length]
    taken = []
    for _ in range(times):
        started = time.process_time()
        said(text, MANY)
        taken.append(time.process_time() - started)
    return min(taken)


def test_a_very_long_answer_is_cut_and_says_so() -> None:
    text = '{"ranking": ["C", "A"], "reasons": "' + "x" * 200_000
    ranking = parse_ranking(text, LABELS)
    assert ranking.order[:2] == (2, 0)
    assert {"too_long", "truncated"} <= codes(ranking)


def test_an_answer_behind_very_long_thoughts_is_read() -> None:
    text = f"<think>{'[A] > [B], or not? ' * 50_000}</think>[C] > [A]"
    assert said(text) == "CA"


def test_reasons_are_cleaned_and_capped() -> None:
    text = "<script>x</script> good\n**tea**\x00 " + "word " * 100
    answer = {
        "ranking": list("CA"),
        "reasons": [
            {"label": "C", "cites": "tea", "reason": text},
            {"label": "C", "cites": "tea", "reason": "a second one"},
            {"label": "Q", "cites": "tea", "reason": "of no product"},
            {"label": "A", "cites": "tea"},
        ],
    }
    (reason,) = parse_ranking(json.dumps(answer), LABELS).reasons
    assert reason.slot == 2
    assert reason.text.startswith("x good tea word")
    assert len(reason.text) <= 160
    assert not set(reason.text) & set("<>*\n\x00")


def test_reasons_within_the_ranking_are_found_too() -> None:
    entries = [{"label": "C", "reason": "good", "evidence": "tea"}, {"label": "A"}]
    ranking = parse_ranking(json.dumps({"ranking": entries}), LABELS)
    assert ranking.order[:2] == (2, 0)
    assert [(r.slot, r.cites, r.text) for r in ranking.reasons] == [(2, "tea", "good")]


def test_the_schema_takes_the_form_asked_for_and_nothing_unbounded() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = answer_schema(LABELS, 2)
    reason = {"label": "C", "cites": "tea", "reason": "It is tea."}
    right = {"ranking": list("CABED"), "reasons": [reason]}
    jsonschema.validate(right, schema)
    for wrong in (
        {"ranking": list("CAB"), "reasons": []},
        {"ranking": list("CABEQ"), "reasons": []},
        {"ranking": list("CABED")},
        right | {"reasons": [reason] * 3},
        right | {"reasons": [reason | {"reason": "x" * 161}]},
        right | {"more": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    assert "reasons" not in answer_schema(LABELS, 0)["properties"]


def test_xgrammar_enforces_the_schema() -> None:
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.testing import _is_grammar_accept_string as accepts

    grammar = xgrammar.Grammar.from_json_schema(json.dumps(answer_schema(LABELS, 1)))
    reason = {"label": "C", "cites": "tea", "reason": "It is tea."}
    assert accepts(grammar, json.dumps({"ranking": list("CABED"), "reasons": [reason]}))
    assert not accepts(grammar, json.dumps({"ranking": list("CABEQ"), "reasons": [reason]}))
    assert not accepts(grammar, json.dumps({"ranking": list("CABE"), "reasons": [reason]}))
    assert not accepts(grammar, json.dumps({"ranking": list("CABED"), "reasons": [reason] * 2}))


def test_the_room_for_an_answer_grows_with_labels_and_reasons() -> None:
    assert answer_tokens(20, 0) < answer_tokens(40, 0) < answer_tokens(40, 3)
    assert answer_tokens(2, 10) == answer_tokens(2, 2)
