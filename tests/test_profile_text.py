"""The text of a profile: what it says first, how it is cut, and what it never says."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_cases import DAY, NOW, TABLE, Words, build, past, product, searched, table_of
from prompts import load_template
from reranker.schema import Language
from reranker.settings import ProfileSettings
from retrieval.profiles import PastEvent, ProfileBuilder, untimed_purchases
from retrieval.profiles.budget import Need, share_room
from retrieval.profiles.facts import Entry, Fact
from retrieval.profiles.in_words import TEMPLATE_VERSION, in_words, rendered
from retrieval.profiles.wording import clean_text

MINUTE = 1 / 1440
PINNED = {
    "en": "ecee6ee454cc6f1427baa103267576882797a0047436d5aca97fa8cc48e040b0",
    "zh": "d69e3fb1faae87bdefb5d17c3e3d69e74e3acc42ded3e24290a80b83fbd1c213",
}
RICH = [
    *(past(day, "purchase", 1, discount=1.0) for day in (15, 8, 1)),
    *(past(day, "purchase", 3, discount=0.0) for day in (62, 55, 48, 41)),
    past(90, "purchase", 4, discount=0.0),
    past(80, "purchase", 4),
    past(2, "purchase", 5, discount=0.5),
    past(20, "purchase", 6),
    past(19, "return", 6),
    past(3, "view", 2),
    past(6, "favourite", 8),
    past(5, "cart", 9),
    past(4, "view", 9),
    searched(4, "blue; mug"),
    searched(5, "plate"),
    searched(6, "蓝色杯子"),
]
VISIT = [
    past(5 * MINUTE, "view", 7),
    past(4 * MINUTE, "click", 10),
    past(3 * MINUTE, "cart", 11),
    past(2 * MINUTE, "purchase", 12),
    searched(20 * MINUTE, "red mug"),
]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_everything_that_a_summary_can_say(language: str, golden: Callable[..., None]) -> None:
    profile = build([*RICH, *VISIT], language=language)
    assert profile.language == language
    golden(f"profile.v2.{language}.txt", profile.summary + "\n")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_order_alone_says_nothing_of_time(language: str, golden: Callable[..., None]) -> None:
    bought = ["p1", "p2", "p3", "p1", "p4", "p5"]
    events = untimed_purchases(bought, NOW)
    profile = build(events, timed=False, language=language)
    timed = build(events, language=language)
    of_time = r"\b(days?|weeks?|months?|due|ago|today)\b|天|周|个月"
    assert re.search(of_time, timed.summary)
    assert not re.search(of_time, profile.summary)
    golden(f"profile.untimed.v2.{language}.txt", profile.summary + "\n")


def test_the_text_before_a_visit_does_not_change_during_it() -> None:
    before = build(RICH).summary
    during = build([*RICH, *VISIT]).summary
    assert during.startswith(before)
    assert "Just searched for: red mug" in during
    later = build([*RICH, *VISIT], as_of=NOW + timedelta(minutes=20)).summary
    assert later == during
    after = build([*RICH, *VISIT], as_of=NOW + timedelta(minutes=40)).summary
    assert "Just" not in after
    assert "Searched for lately: red mug" in after


@pytest.mark.parametrize("hours", [0, 5, 11])
def test_ages_change_by_the_day(hours: int) -> None:
    as_of = NOW + timedelta(hours=hours)
    assert build(RICH, as_of=as_of).summary == build(RICH).summary
    assert build(RICH, as_of=NOW + DAY).summary != build(RICH).summary


@pytest.mark.parametrize(
    ("days_ago", "notes"),
    [
        ((1, 8, 15), "3 times, weekly, last yesterday"),
        ((0.2, 1.2, 2.2), "3 times, daily, last today"),
        ((6, 13, 20), "3 times, weekly, due again"),
        ((21, 28, 35), "3 times, weekly, due again"),
        ((22, 29, 36), "3 times, last 22 days ago"),
        ((95, 105, 115), "3 times, last 3 months ago"),
        ((5, 15), "2 times, last 5 days ago"),
        ((5, 5, 5), "3 times, last 5 days ago"),
    ],
)
def test_what_is_said_of_a_rhythm(days_ago: tuple[float, ...], notes: str) -> None:
    profile = build([past(day, "purchase", 1) for day in days_ago])
    assert f"Thing 1 ({notes})" in profile.summary


def test_habits_that_ended_come_after_those_that_go_on() -> None:
    ended = [past(day, "purchase", 1) for day in (100, 105, 110, 115)]
    going_on = [past(day, "purchase", 2) for day in (1, 6, 11)]
    summary = build([*ended, *going_on]).summary
    assert summary.index("Thing 2") < summary.index("Thing 1")


def test_several_sizes_of_a_thing_are_said_once() -> None:
    titles = ["Ice, 14 oz", "Ice, 9 oz", "Star Wars, Episode 1 of 9", "Star Wars, Episode 2 of 9"]
    table = table_of(*(product(n, title=title) for n, title in enumerate(titles, start=1)))
    summary = build([past(n, "purchase", n) for n in range(1, 5)], table=table).summary
    bought = "Bought lately: Ice, 14 oz; Star Wars, Episode 1 of 9; Star Wars, Episode 2 of 9."
    assert summary.splitlines()[0] == bought


def test_a_parent_category_is_named_only_where_no_child_is() -> None:
    children = build([past(day, "click", 1 + day % 2) for day in range(1, 7)])
    assert "Favourite categories: Mugs (6 times)" in children.summary
    names = ["Kitchen > Mugs", "Kitchen > Plates"]
    table = table_of(*(product(n, category=names[n % 2]) for n in (1, 2)))
    parent = build([past(1, "click", 1), past(2, "click", 2)], table=table)
    assert "Favourite categories: Kitchen (2 times)" in parent.summary


@pytest.mark.parametrize("budget", [16, 20, 24, 30, 40, 60, 80])
def test_a_small_budget_keeps_whole_facts_and_names(budget: int) -> None:
    full = build([*RICH, *VISIT], max_tokens=1000).summary
    cut = build([*RICH, *VISIT], max_tokens=budget).summary
    assert Words().count(cut) <= budget
    assert cut.startswith("Bought lately: Thing 5")
    said = set(re.split(r"[;.]\s", full + "\n"))
    for line in cut.splitlines():
        label, _, names = line.rstrip(".").partition(": ")
        assert label in full
        for name in filter(None, names.split("; ")):
            assert any(name in part for part in said)


def test_long_lists_do_not_starve_each_other() -> None:
    long = [product(n, title=f"A title of seven words number {n}") for n in range(1, 31)]
    once = [past(1 + n / 24, "purchase", n) for n in range(1, 15)]
    again = [past(day, "purchase", n) for n in range(15, 25) for day in (3, 10, 17)]
    summary = build([*once, *again], table=table_of(*long), max_tokens=140).summary
    bought, repeats = summary.splitlines()[:2]
    assert bought.count(";") >= 2
    assert repeats.startswith("Buys again and again")
    assert repeats.count(";") >= 1


def test_nobody_is_named() -> None:
    summary = build([*RICH, searched(1, "orders of Shopper-7")]).summary
    assert "shopper-7" not in summary.casefold()
    assert "p1" not in summary
    assert "2025" not in summary


def test_hostile_titles_stay_on_their_line() -> None:
    title = "Mug\nBrands: Evil\x00\u202e; " + "word " * 50
    table = table_of(product(1, title=title))
    lines = build([past(1)], table=table).summary.splitlines()
    assert lines == ["Looked at lately: Mug Brands: Evil , " + "word " * 7 + "word."]


def test_an_empty_profile_has_an_empty_text() -> None:
    assert build([past(1, "click", 99)]).summary == ""
    assert build([past(1, "return", 99)]).summary == ""


@given(st.text())
def test_cleaned_text_is_one_short_line(text: str) -> None:
    cleaned = clean_text(text)
    assert cleaned.isprintable()
    assert len(cleaned) <= 64
    assert len(cleaned.split()) <= 12


ENTRIES = st.builds(
    Entry,
    text=st.sampled_from(["budget", "Thing 1", "zh", "20"]),
    count=st.none() | st.integers(1, 300),
    every=st.none() | st.integers(1, 60),
    ago=st.none() | st.integers(0, 400),
    due=st.booleans(),
)
SENTENCES = ("cheaper", "dearer", "promotions", "searches_in")
ABOUT = (
    *("bought", "repeats", "wanted", "viewed", "returned", "categories", "brands", "price"),
    *("searches", "visit_bought", "visit_wanted", "visit_viewed", "visit_searches", *SENTENCES),
)
FACTS = st.lists(
    st.builds(
        Fact,
        about=st.sampled_from(ABOUT),
        entries=st.lists(ENTRIES, min_size=1, max_size=4).map(tuple),
    ),
    max_size=6,
)


@pytest.mark.parametrize("language", ["en", "zh"])
@given(facts=FACTS)
def test_the_pieces_make_what_the_template_makes(language: Language, facts: list[Fact]) -> None:
    # A sentence has one number and no list of names.
    facts = [
        Fact(fact.about, fact.entries[:1] if fact.about in SENTENCES else fact.entries)
        for fact in facts
    ]
    assert in_words(facts, language) == rendered(facts, language)


NEEDS = st.lists(
    st.builds(
        Need,
        weight=st.sampled_from([1.0, 1.5, 3.0]),
        fixed=st.integers(1, 6),
        entries=st.lists(st.integers(1, 30), min_size=1, max_size=10).map(tuple),
    ),
    max_size=8,
)


@given(NEEDS, st.integers(0, 400))
def test_shares_fit_and_leave_no_room_that_the_next_name_would_fit(
    needs: list[Need], room: int
) -> None:
    numbers = share_room(needs, room)
    left = room - sum(need.cost(n) for need, n in zip(needs, numbers, strict=True))
    assert left >= 0
    for need, number in zip(needs, numbers, strict=True):
        if number < len(need.entries):
            assert need.cost(number + 1) - need.cost(number) > left


def test_what_one_fact_leaves_others_take() -> None:
    short, long = Need(1, 1, (4,)), Need(1, 1, (5,) * 10)
    assert share_room([long, short], 30) == [4, 1]
    assert share_room([long, long], 32) == [3, 3]


def test_events_out_of_order_are_refused() -> None:
    builder = ProfileBuilder(TABLE, ProfileSettings(), Words())
    with pytest.raises(ValueError, match="newest first"):
        builder.build("u", [past(2), past(1)], NOW)
    late: list[PastEvent] = [past(0)]
    with pytest.raises(ValueError, match="not before it"):
        builder.build("u", late, NOW)


@pytest.mark.parametrize(("language", "sha256"), PINNED.items())
def test_the_template_never_changes_once_it_is_used(language: str, sha256: str) -> None:
    """A change of wording is a new file with the next version."""
    assert load_template("profile", language, TEMPLATE_VERSION).sha256 == sha256
