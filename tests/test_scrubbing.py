"""Queries lose what identifies a person, and nothing else."""

import json
import re
import sys
import time
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from reranker.errors import ConfigError
from reranker.schema import BehaviourEvent, EventKind
from reranker.settings import PrivacySettings
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.scrubbing import Scrubber
from retrieval.user_ids import COMPATIBLE
from shop import stored

SCRUBBER = Scrubber(PrivacySettings().phone_regions)
E_MAIL, PHONE, CARD = "[e-mail]", "[phone number]", "[card number]"
IDENTITY = "[identity number]"

FOUND = [
    ("gift for anna.k+shop@example.co.uk please", f"gift for {E_MAIL} please"),
    ("ＡＮＮＡ＠example.com", E_MAIL),
    ("用户@例子.中国 手机壳", f"{E_MAIL} 手机壳"),
    ("call +49 30 901820 now", f"call {PHONE} now"),
    ("+1 (212) 555-2368", PHONE),
    ("212-555-2368", PHONE),
    ("2125552368", PHONE),
    ("020 7946 0958", PHONE),
    ("030 901820", PHONE),
    ("13812345678", PHONE),
    ("手机13812345678的充值卡", f"手机{PHONE}的充值卡"),
    ("138 1234 5678", PHONE),
    ("１３８１２３４５６７８", PHONE),
    ("+86 138-1234-5678", PHONE),
    ("4111 1111 1111 1111", CARD),
    ("pay 5555555555554444", f"pay {CARD}"),
    ("3782-822463-10005", CARD),
    ("6222021234567890128", None),
    ("11010519491231002X", IDENTITY),
    ("身份证440524188001010014", f"身份证{IDENTITY}"),
    ("a@b.de or +4930901820", f"{E_MAIL} or {PHONE}"),
]
KEPT = [
    *("iphone 15 pro max 256gb", "shoes 42 1/2", "1920x1080 monitor", "tv 55 inch 2024 4k 120hz"),
    *("lego 75192", "bosch 0986494294 filter", "9783161484100", "978-3-16-148410-0", "0306406152"),
    *("4006381333931", "036000291452", "screws 4,5x60 200 stk", "vitamin b12 1000 mg 180 tablets"),
    *("2 x 4 x 10 x 20 x 30 x 40", "RTX 4090 24 GB 600W", "100 200 300 400", "@home sticker"),
    *("oat milk 3.5% 1l", "2026-03-05 12:30:00", "4111 1111 1111 1112", "110105194912310021"),
    *("20250501123000", "1.000.000", "10.0.0.255", "isbn 3-16-148410-X", "usb-c 100w 2m", "666"),
    *("bosch 030901820", "filter 0986494294"),
    *("牛奶 250ml 24盒", "三体 全集 2008", "size 36 38 40 42", "12345678", "1234567890123456"),
]


def luhn(digits: str) -> str:
    """Append the check digit of ISO/IEC 7812-1, worked out otherwise than the subject does."""
    for last in "0123456789":
        number = digits + last
        odd = sum(map(int, number[-1::-2]))
        even = sum(sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2])
        if (odd + even) % 10 == 0:
            return number
    raise AssertionError


@pytest.mark.parametrize(("query", "expected"), FOUND)
def test_what_identifies_a_person_goes(query: str, expected: str | None) -> None:
    if expected is None:  # a UnionPay number of 19 digits
        query, expected = luhn(query[:-1]), CARD
    assert SCRUBBER.clean(query) == expected


@pytest.mark.parametrize("query", KEPT)
def test_products_stay(query: str) -> None:
    assert SCRUBBER.clean(query) == query


@given(st.text(max_size=60))
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    clean = SCRUBBER.clean(text)
    assert SCRUBBER.clean(clean) == clean


@given(st.from_regex(r"\A[a-z]{1,8}(\.[a-z]{1,8})?@[a-z]{1,9}\.(com|de|cn)\Z"))
def test_no_address_survives(address: str) -> None:
    assert SCRUBBER.clean(f"for {address}, please") == f"for {E_MAIL}, please"


@pytest.mark.alone
@pytest.mark.parametrize("text", ["a", "1 ", "a@a", "12-"])
def test_the_time_grows_with_the_length_not_with_its_square(text: str) -> None:
    took = []
    for length in (10_000, 80_000):
        began = time.process_time()
        SCRUBBER.clean(text * (length // len(text)))
        took.append(time.process_time() - began)
    assert took[1] < 30 * max(took[0], 0.005)


def test_queries_have_a_longest_length(tmp_path: Path, store: BehaviourStore) -> None:
    moment, query = datetime(2025, 5, 1, tzinfo=UTC), "to a@b.de " + "x" * 2000
    rows = f"user_id,kind,at,query\nu1,search,{moment},{query}\nu2,search,{moment},{'y' * 2001}\n"
    (tmp_path / "a.csv").write_text(rows)
    store.import_events([tmp_path / "a.csv"])
    expected = [("to [e-mail] " + "x" * 1988,), ("y" * 2000,)]
    assert stored(store, "query") == expected
    with pytest.raises(ValidationError, match="at most 2000 characters"):
        BehaviourEvent(user_id="u1", kind=EventKind.SEARCH, at=moment, query=query)


@pytest.mark.parametrize("before", [1990, 1980, 4300, 4310])
def test_no_half_of_an_address_or_an_id_is_left_where_a_query_is_cut(
    tmp_path: Path, store: BehaviourStore, before: int
) -> None:
    rows = [
        {"user_id": "user4711", "kind": "search", "at": "2025-05-01", "query": f"{start}{secret}"}
        for start in ("y" * (before - 1) + " ", "a@bcdefghijklmnopqrstuvw.de " * (before // 28))
        for secret in ("anna.smith@example.com", "user4711", "4111 1111 1111 1111")
    ]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    store.import_events([tmp_path / "a.jsonl"])
    queries = [query for (query,) in stored(store, "query")]
    assert len(queries) > 1
    for query in queries:
        assert len(query) <= 2000
        assert not [half for half in ("anna", "example", "user4", "4111") if half in query]


def test_a_clean_query_is_no_longer_than_the_longest(store: BehaviourStore) -> None:
    query = ("a@b.de " * 300)[:2000]
    moment = datetime(2025, 5, 1, tzinfo=UTC)
    store.append([BehaviourEvent(user_id="u", kind=EventKind.SEARCH, at=moment, query=query)])
    assert stored(store, "query") == [((f"{E_MAIL} " * 300)[:2000],)]


def test_stores_from_before_know_their_events_by_queries_that_are_now_replaced(
    tmp_path: Path, store: BehaviourStore
) -> None:
    asked = {
        "user4711": "my user4711 order",
        "user4712": "to a@b.de from user4712",
        "user4713": "q" * 2500,
        "user4714": f"user4714 {'q' * 2500}",
    }
    rows = [
        {"user_id": user, "kind": "search", "at": "2025-05-01T00:00:00Z", "query": query}
        for user, query in asked.items()
    ]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    store.import_events([tmp_path / "a.jsonl"])
    expected = set(stored(store, "shopper", "query"))
    with store.changing() as connection:
        for user, query in asked.items():
            old = query.replace("a@b.de", E_MAIL)
            shopper = store.pseudonym(user).uuid
            connection.execute("UPDATE event SET query = ? WHERE shopper = ?", [old, shopper])
    assert set(stored(store, "shopper", "query")).isdisjoint(expected)
    assert store.import_events([tmp_path / "a.jsonl"]).imported == 0
    assert set(stored(store, "shopper", "query")) == expected


def test_all_forms_of_letters_and_digits_are_known() -> None:
    compatible = re.compile(COMPATIBLE)
    for code in (*range(128, 0xD800), *range(0xE000, sys.maxunicode + 1)):
        plain = unicodedata.normalize("NFKC", chr(code))
        plain = unicodedata.normalize("NFKC", plain.casefold())
        if any(each.isascii() and each.isalnum() for each in plain):
            assert compatible.match(chr(code)), hex(code)


def test_regions_are_a_setting() -> None:
    assert Scrubber(("DE",)).clean("212-555-2368") == "212-555-2368"
    assert Scrubber(()).clean("+12125552368 212-555-2368") == f"{PHONE} 212-555-2368"
    with pytest.raises(ConfigError, match=r"privacy.phone_regions: unknown XX"):
        Scrubber(("US", "XX"))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_imports_and_live_events_are_scrubbed_alike(tmp_path: Path, name: str) -> None:
    at = "2025-05-01T00:00:00Z"
    native = f"user_id,kind,at,query\nu1,search,{at},oat milk\nu2,search,{at},to a@b.de\n"
    logged = "".join(
        f'{{"user_query": "{query}", "client_id": "{user}", "query_id": "{user}", '
        f'"timestamp": "{at}"}}\n{{"action_name": "click", "client_id": "{user}", '
        f'"query_id": "{user}", "timestamp": "{at}", "object_id": "p"}}\n'
        for user, query in (("u1", "oat milk"), ("u2", "to a@b.de"))
    )
    file = tmp_path / name
    file.write_text(native if name == "a.csv" else logged)
    moment = datetime(2025, 5, 1, tzinfo=UTC)
    search = BehaviourEvent(user_id="u2", kind=EventKind.SEARCH, at=moment, query="to a@b.de")
    with BehaviourStore(tmp_path / "store") as store:
        count = store.import_events([file]).imported
        assert set(stored(store, "user_id", "query")) == {("u1", "oat milk"), ("u2", "to [e-mail]")}
        assert store.import_events([file]).imported == 0
        if name == "a.csv":
            assert store.append([search]) == 0
        assert store.count() == count
    for kept in (tmp_path / "store").rglob("*"):
        assert kept.is_dir() or b"a@b.de" not in kept.read_bytes()


@pytest.mark.parametrize("form", ["native", "ubi"])
def test_queries_lose_the_id_of_their_shopper(
    tmp_path: Path, store: BehaviourStore, form: str
) -> None:
    moment, user = datetime(2025, 5, 1, tzinfo=UTC), "anna_meier84"
    asked = [
        (user, "orders of ANNA_meier84", "orders of [user id]"),
        (f"{user}\n", "anna_meier84, anna_meier84", "[user id], [user id]"),
        (user, "anna_meier845", "anna_meier845"),
        (user, "anna_meier84@example.com", E_MAIL),
        ("other", "orders of anna_meier84", "orders of anna_meier84"),
        (user, "我的anna_meier84订单", "我的[user id]订单"),
        (user, "ＡＮＮＡ＿meier８４ again", "[user id] again"),
        ("ｕｓｅｒ４７１１", "my user4711 order", "my [user id] order"),
        ("straße-84", "STRASSE-84 order", "[user id] order"),
        ("milk", "oat milk", "oat milk"),
    ]
    native = [
        {"user_id": who, "kind": "search", "at": str(moment), "query": query}
        for who, query, _ in asked
    ]
    ubi = [
        {"user_id": who, "user_query": query, "timestamp": str(moment), "query_id": query}
        for who, query, _ in asked
    ]
    file = tmp_path / "a.jsonl"
    file.write_text(
        "".join(f"{json.dumps(each)}\n" for each in (native if form == "native" else ubi))
    )
    assert store.import_events([file]).imported == len(asked)
    assert sorted(stored(store, "query")) == sorted((clean,) for *_, clean in asked)
    if form == "native":
        assert store.append([BehaviourEvent.model_validate(each) for each in native]) == 0


WHITE = ["", " ", "\n", "\t", "\r\n"]


@pytest.mark.parametrize("around", WHITE)
@pytest.mark.parametrize("form", ["native", "ubi", "metarank"])
def test_white_space_around_it_hides_nothing(
    tmp_path: Path, store: BehaviourStore, form: str, around: str
) -> None:
    query, user = f"{around}to a@b.de{around}", f"{around}secret-user{around}"
    documents: dict[str, list[dict[str, object]]] = {
        "native": [
            {"kind": "search", "query": query, "user_id": user, "session_id": user,
             "at": 1746100800},
        ],
        "ubi": [
            {"user_query": query, "user_id": user, "session_id": user, "query_id": "q",
             "timestamp": 1746100800},
        ],
        "metarank": [
            {"event": "ranking", "id": "r", "session": user, "timestamp": 1746100800000,
             "fields": [{"name": "query", "value": query}], "items": [{"id": "p"}]},
        ],
    }  # fmt: skip
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f"{json.dumps(each)}\n" for each in documents[form]))
    assert store.import_events([file]).rejected_count == 0
    assert set(stored(store, "query", "session_id")) == {("to [e-mail]", None)}
    assert len(store.history("secret-user", datetime(2030, 1, 1, tzinfo=UTC), limit=9)) == 1


def test_refused_rows_are_scrubbed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,kind,at,query\nu1,search,never,to a@b.de\n")
    with BehaviourStore(tmp_path / "store") as store:
        store.import_events([tmp_path / "a.csv"])
        (row,) = store.rejected()
    assert row.data == '{"kind":"search","at":"never","query":"to [e-mail]"}'
