"""Summaries by a language model: only what the facts bear out, and only as long as they do."""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from profile_cases import DAY, NOW, SHOPPER, TABLE, Words, build, past, searched
from reranker.models.embedded import EmbeddedModel
from reranker.ports import ModelSpec
from reranker.schema import BehaviourEvent, EventKind, Prompt, UserProfile
from reranker.settings import ProfileSettings
from retrieval.behaviour import BehaviourStore
from retrieval.profiles import DuckDBProfileStore
from retrieval.profiles.evidence import Statement, fault
from retrieval.profiles.writing import SummaryWriter, read_answer
from retrieval.profiles.written import FOLDER, statements

TEA = Statement(
    "repeats", "Green Tea, 20 bags", "Buys again and again: Green Tea, 20 bags (weekly)."
)
TARN = Statement("brands", "Tarn", "Favourite brands: Tarn.")
MUG = Statement("viewed", "Red mug", "Looked at lately: Red mug.")
CHINESE_TEA = Statement("repeats", "龙井绿茶", "反复购买：龙井绿茶（约每7天）。")
CHINESE_MUG = Statement("viewed", "红色马克杯", "最近浏览：红色马克杯。")


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("The shopper often buys green tea, 20 bags, weekly.", [TEA]),
        ("They buy Green Tea and like the brand Tarn.", [TEA, TARN]),
        ("Recently viewed a red mug.", [MUG]),
        ("该用户经常购买龙井绿茶，约每7天。", [CHINESE_TEA]),
        ("顾客反复购买绿茶，最近看过红色马克杯。", [CHINESE_TEA, CHINESE_MUG]),
    ],
)
def test_what_the_facts_say_is_kept(text: str, cited: list[Statement]) -> None:
    assert fault(text, cited) is None


@pytest.mark.parametrize(
    ("text", "cited", "cause"),
    [
        ("Buys green tea.", [], "nothing_cited"),
        ("Often buys black tea.", [TEA], "not_in_facts"),
        ("Often buys green tea by Tarn.", [TEA], "not_in_facts"),
        ("Buys green tea every 14 days.", [TEA], "not_in_facts"),
        ("Buys green tea, 21 bags.", [TEA], "not_in_facts"),
        ("Never buys green tea.", [TEA], "not_in_facts"),
        ("Dislikes Tarn.", [TARN], "not_in_facts"),
        ("Bought a red mug.", [MUG], "not_in_facts"),
        ("Often looked at a red mug.", [MUG], "not_in_facts"),
        ("Is a wealthy mother of two who buys green tea.", [TEA], "not_in_facts"),
        ("Mail me at tea.com about green tea", [TEA], "not_in_facts"),
        ("The shopper buys products again and again.", [TEA], "says_nothing"),
        ("顾客经常购买红茶。", [CHINESE_TEA], "not_in_facts"),
        ("顾客不购买龙井绿茶。", [CHINESE_TEA], "not_in_facts"),
        ("顾客经常购买绿色马克杯。", [CHINESE_TEA, CHINESE_MUG], "not_in_facts"),
        ("顾客买过红色马克杯。", [CHINESE_MUG], "not_in_facts"),
        ("该用户反复购买商品。", [CHINESE_TEA], "says_nothing"),
    ],
)
def test_what_they_do_not_say_is_dropped(text: str, cited: list[Statement], cause: str) -> None:
    assert fault(text, cited) == cause


def test_an_answer_in_any_form_is_read() -> None:
    answer = """Sure! {"sentences": [
        {"facts": ["1"], "text": "Often buys green tea."},
        {"facts": 2, "text": "Likes\\nTarn."},
        {"facts": ["1", "9"], "text": "Buys coffee."},
        {"facts": ["3", null], "text": "Likes Tarn."}, {"text": 3}, 7
    ]"""
    kept, dropped = read_answer(answer, [TEA, TARN])
    assert [each.text for each in kept] == ["Often buys green tea.", "Likes Tarn."]
    assert kept[0].facts == (TEA.text,)
    assert dropped == {"not_in_facts": 1, "nothing_cited": 1}
    for useless in ("", "no idea", "[]", '{"sentences": "x"}', '{"sentences": [[]]}'):
        assert read_answer(useless, [TEA]) == ((), {})


EVENTS = [
    *(past(day, "purchase", 1) for day in (1, 8, 15)),
    *(past(day, "purchase", 4) for day in (2, 12)),
    past(3, "view", 2),
    searched(4, "blue mug"),
]


def test_a_model_is_told_lasting_facts_one_by_one() -> None:
    profile = build([*EVENTS, past(0.001, "click", 9)])
    texts = [each.text for each in statements(profile)]
    assert texts[:3] == [
        "Buys again and again: Thing 1 (weekly).",
        "Buys again and again: Thing 4.",
        "Looked at lately: Thing 9.",
    ]
    assert not any("times" in text or "ago" in text or "Just" in text for text in texts)
    later = build(EVENTS, as_of=NOW + timedelta(days=2))
    assert statements(later) == statements(build(EVENTS))


class Scripted:
    """A language model whose answers are given."""

    spec = ModelSpec(name="scripted", context_length=4096, labels=("A",), readouts=frozenset())
    tokenizer = Words()

    def __init__(self, *sentences: tuple[str, str]) -> None:
        self.answer = json.dumps(
            {"sentences": [{"facts": list(letters), "text": text} for letters, text in sentences]}
        )
        self.asked: list[Prompt] = []

    async def write(
        self,
        prompts: Sequence[Prompt],
        *,
        schema: Mapping[str, Any],
        max_tokens: int,
        scope: str | None = None,
        seconds: float = math.inf,
    ) -> tuple[str, ...]:
        self.asked += prompts
        return (self.answer,) * len(prompts)

    async def read(self, *_: object, **__: object) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


class Shop:
    """A store with one shopper, and profiles as a model writes them."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.store = BehaviourStore(folder)
        self.add(*EVENTS)
        settings = ProfileSettings(**{"summary": "llm", **changes})
        self.profiles = DuckDBProfileStore(self.store, TABLE, settings, Words(), folder=folder)

    def add(self, *events: Any) -> None:
        self.store.append(
            [
                BehaviourEvent(
                    user_id=SHOPPER,
                    kind=EventKind(each.kind),
                    at=NOW - timedelta(days=(_US_NOW - each.at_us) / 86_400e6),
                    product_id=each.product_id,
                    query=each.query,
                )
                for each in events
            ]
        )

    def write(self, model: Any, **options: Any) -> Any:
        writer = SummaryWriter(model, **options)
        return asyncio.run(self.profiles.write(SHOPPER, NOW, writer))

    def profile(self) -> UserProfile:
        found = self.profiles.profile(SHOPPER, NOW)
        assert found is not None
        return found


_US_NOW = past(0).at_us
GOOD = ("1", "Often buys Thing 1, weekly.")
ALSO = ("2", "Repeatedly buys Thing 4.")
BAD = ("1", "Surely a wealthy person.")


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    shop = Shop(tmp_path)
    yield shop
    shop.store.close()


def test_what_is_written_is_told_and_counted(shop: Shop) -> None:
    template = shop.profile()
    assert template.summary_origin == "template"
    summary = shop.write(Scripted(GOOD, BAD, ALSO))
    assert summary.dropped == {"not_in_facts": 1}
    told = shop.profile()
    assert told.summary_origin == "llm"
    assert told.summary == "Often buys Thing 1, weekly. Repeatedly buys Thing 4."
    assert told.model_copy(update={"summary": "", "summary_origin": "template"}) == (
        template.model_copy(update={"summary": ""})
    )


def test_a_model_is_asked_again_only_for_other_facts(shop: Shop) -> None:
    model = Scripted(GOOD)
    for _ in range(3):
        shop.write(model)
    assert len(model.asked) == 1
    shop.add(past(0.5, "purchase", 7))
    shop.write(model)
    assert len(model.asked) == 2
    assert "Bought lately: Thing 7." in model.asked[-1].messages[-1].text


def test_all_are_written_on_whose_facts_have_changed(shop: Shop) -> None:
    others = [
        BehaviourEvent(user_id=f"other-{n}", kind=EventKind.PURCHASE, at=NOW - DAY, product_id="p9")
        for n in range(3)
    ]
    shop.store.append(others)
    shop.store.set_consent("other-2", "personalisation", granted=False)
    model = Scripted(("1", "Bought Thing 9."))

    def write_all() -> tuple[int, int]:
        done = asyncio.run(shop.profiles.write_all(NOW, SummaryWriter(model)))
        return done.written, done.unchanged

    assert write_all() == (3, 0)
    assert write_all() == (0, 3)
    shop.add(past(0.5, "purchase", 7))
    assert write_all() == (1, 2)
    assert len(model.asked) == 4
    assert "other-" not in "".join(str(each.messages) for each in model.asked)
    other = shop.profiles.profile("other-1", NOW)
    assert other is not None
    assert (other.summary, other.summary_origin) == ("Bought Thing 9.", "llm")
    names = {file.name[:32] for file in (shop.folder / FOLDER).iterdir()}
    assert names == {shop.store.pseudonym(each).hex for each in (SHOPPER, "other-0", "other-1")}


def test_a_sentence_is_told_only_while_its_facts_hold(shop: Shop) -> None:
    shop.write(Scripted(GOOD, ALSO))
    # A fourth purchase after a day: the rhythm is not weekly any more.
    shop.add(past(0.9, "purchase", 1), past(0.8, "purchase", 1), past(2, "purchase", 1))
    assert shop.profile().summary == "Repeatedly buys Thing 4."
    shop.add(past(0.7, "return", 4), past(0.6, "return", 4))
    told = shop.profile()
    assert told.summary_origin == "template"
    assert "Sent back: Thing 4" in told.summary


def test_the_present_visit_is_told_by_the_template(shop: Shop) -> None:
    shop.write(Scripted(GOOD))
    shop.add(past(0.001, "search", None, "red mug"))
    assert shop.profile().summary.splitlines() == [
        "Often buys Thing 1, weekly.",
        "Just searched for: red mug.",
    ]


def test_nothing_borne_out_leaves_the_template(shop: Shop) -> None:
    template = shop.profile()
    shop.write(Scripted(BAD))
    assert shop.profile() == template


def test_whole_sentences_within_the_budget(tmp_path: Path) -> None:
    shop = Shop(tmp_path, max_tokens=16)
    shop.write(Scripted(*[("1", f"Buys Thing 1 {'weekly ' * 5}again.")] * 3))
    assert Words().count(shop.profile().summary) == 9
    shop.store.close()


def test_files_are_named_by_the_pseudonym_and_hold_no_id(shop: Shop) -> None:
    shop.write(Scripted(GOOD))
    (file,) = (shop.folder / FOLDER).iterdir()
    assert file.name == f"{shop.store.pseudonym(SHOPPER).hex}.en.json"
    assert SHOPPER.encode() not in file.read_bytes()
    file.write_bytes(file.read_bytes()[:40])
    assert shop.profile().summary_origin == "template"


def test_the_setting_template_ignores_what_is_written(tmp_path: Path) -> None:
    shop = Shop(tmp_path, summary="template")
    shop.write(Scripted(GOOD))
    assert shop.profile().summary_origin == "template"
    shop.store.close()


def test_whatever_a_real_small_model_writes_is_borne_out(shop: Shop, model: EmbeddedModel) -> None:
    summary = shop.write(model, answer_tokens=24)
    known = {each.text: each for each in statements(build(EVENTS))}
    for sentence in summary.sentences:
        assert fault(sentence.text, [known[text] for text in sentence.facts]) is None
    assert shop.profile().summary
