import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.errors import ConfigError, DataError
from reranker.models.tokenizing import HFTokenizer
from reranker.ports import no_progress
from reranker.settings import Settings
from reranker.training.examples import PurchaseExamples
from reranker.training.held_back import lists_of_all
from reranker.training.negatives import NegativeMix, NegativeSampler
from reranker.training.plan import Curriculum, learning_rate, steps_of
from reranker.training.purchases import (
    Purchase,
    drawn_shoppers,
    fingerprint,
    read_histories,
    read_purchases,
    split_by_shopper,
)
from reranker.training.sources import Lists, PurchaseFiles
from reranker.training.teacher import InterestTeacher

IDS = [f"p{number}" for number in range(30)]


def purchase(user: str = "u", *history: str, target: str = "p0") -> Purchase:
    return Purchase(user_id=user, history=history or ("p1", "p2"), target=target)


def write(file: Path, rows: list[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@given(
    seed=st.integers(),
    count=st.integers(1, 40),
    mix=st.builds(NegativeMix, popular=st.just(1.0), category=st.just(1.0)),
)
def test_negatives_are_distinct_and_never_what_was_bought(
    seed: int, count: int, mix: NegativeMix
) -> None:
    sampler = NegativeSampler(
        IDS, mix, histories=[IDS[:5], IDS[3:8]], categories=dict.fromkeys(IDS[:6], "tea")
    )
    drawn = sampler.draw(purchase(), count, random.Random(seed))
    assert len(drawn) == len(set(drawn)) == min(count, len(IDS) - 3)
    assert not {"p0", "p1", "p2"} & set(drawn)


def test_the_mix_decides_the_kinds() -> None:
    def drawn(**weights: float) -> set[str]:
        mix = NegativeMix(**{"random": 0.0, **weights})
        sampler = NegativeSampler(
            IDS, mix, histories=[["p10", "p11"]], categories=dict.fromkeys(("p0", "p20"), "tea"),
            recall=lambda _purchase, _count: ["p0", "p25"],
        )  # fmt: skip
        return {p for seed in range(20) for p in sampler.draw(purchase(), 1, random.Random(seed))}

    assert drawn(popular=1) == {"p10", "p11"}
    assert drawn(category=1) == {"p20"}
    assert drawn(recalled=1) == {"p25"}
    assert len(drawn(random=1)) > 8


def test_a_mix_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one weight"):
        NegativeSampler(IDS, NegativeMix(random=0))
    with pytest.raises(ConfigError, match="recalled"):
        NegativeSampler(IDS, NegativeMix(recalled=1))


def test_nobody_is_in_both_parts() -> None:
    purchases = [purchase(f"u{n % 10}", target=f"p{n}") for n in range(30)]
    drawn = drawn_shoppers(purchases, 4, seed=1)
    split = split_by_shopper(purchases, drawn | {"stranger"}, seed=1)
    trained, held = ({one.user_id for one in part} for part in (split.train, split.validation))
    assert held == drawn
    assert len(held) == len(split.validation) == 4
    assert trained.isdisjoint(held)
    assert len(trained | held) == 10
    # The last of a shopper's purchases is the one that is validated on.
    assert {one.target for one in split.validation} <= {f"p{n}" for n in range(20, 30)}
    assert drawn == drawn_shoppers(purchases[::-1], 4, seed=1)
    with pytest.raises(DataError, match="validation_shoppers"):
        drawn_shoppers(purchases, 10, seed=1)


def test_the_fingerprint_ignores_order_alone() -> None:
    both = [purchase("a"), purchase("b")]
    assert fingerprint(both) == fingerprint(both[::-1])
    assert fingerprint(both) != fingerprint([both[0], both[0]])
    assert fingerprint(both) != fingerprint([purchase("a"), purchase("b", target="p5")])


def test_files_are_read_and_faults_named(tmp_path: Path) -> None:
    rows = [{"user_id": "u", "history": ["a"], "target": "b", "query": None}]
    assert read_purchases(write(tmp_path / "good.jsonl", rows)) == (
        Purchase(user_id="u", history=("a",), target="b"),
    )
    csv = tmp_path / "good.csv"
    csv.write_text('user_id,history,target\nu,"[""a"", ""c""]",b\n', encoding="utf-8")
    assert read_purchases(csv)[0].history == ("a", "c")
    with pytest.raises(DataError, match=r"bad\.jsonl, row 2, target"):
        read_purchases(write(tmp_path / "bad.jsonl", [*rows, {**rows[0], "target": ""}]))
    with pytest.raises(DataError, match="need the column product_ids"):
        read_histories(tmp_path / "good.jsonl")
    with pytest.raises(DataError, match="no such file"):
        read_histories(tmp_path / "none.parquet")


def test_a_query_that_cannot_be_seen_is_none() -> None:
    for query in ("", " ", "\u200b\u2060"):
        assert Purchase(user_id="u", history=(), target="a", query=query).query is None


def test_the_teacher_prefers_what_is_bought_together_and_popular() -> None:
    histories = [("p1", "p3")] * 30 + [("p2", "p4")] * 30 + [("p5", "p6")] * 2
    teacher = InterestTeacher.learn(IDS, [f"thing {name}" for name in IDS], histories)
    assert teacher is not None
    near, far, rare = teacher.scores(["p1", "unknown"], ["p3", "p4", "p6"])
    assert near > far > rare
    popular, rare = teacher.scores([], ["p3", "p6"])
    assert popular > rare


def test_a_teacher_that_too_few_histories_speak_for_is_none() -> None:
    assert InterestTeacher.learn(IDS, IDS, [("p1", "p3")]) is None
    assert InterestTeacher.learn(IDS, IDS, []) is None


def test_histories_counted_from_purchases_hold_no_target(
    tmp_path: Path, tokenizer: HFTokenizer
) -> None:
    """Of a shopper with many purchases the shortest history counts: longer ones hold targets."""
    seen: list[Sequence[Sequence[str]]] = []

    def learn(ids: object, texts: object, histories: Sequence[Sequence[str]], **_: object) -> None:
        seen.append(histories)

    products = [{"product_id": p, "title": f"thing number {p[1:]} of the shop"} for p in IDS]
    rows: list[dict[str, object]] = [
        {"user_id": f"u{n}", "history": IDS[: 2 + k], "target": IDS[2 + k]}
        for n in range(6)
        for k in (2, 0, 1)
    ]
    files = PurchaseFiles(
        name="shop",
        products=write(tmp_path / "products.jsonl", products),
        purchases=write(tmp_path / "purchases.jsonl", rows),
    )
    settings = Settings.load(None, {"training.validation_shoppers": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterestTeacher, "learn", learn)
        lists_of_all([files], tmp_path / "work", settings, tokenizer, no_progress)
    assert seen == [[("p0", "p1")] * 4]


def test_a_profile_never_holds_what_was_bought(tmp_path: Path, tokenizer: HFTokenizer) -> None:
    products = [{"product_id": p, "title": f"thing number {p[1:]} of the shop"} for p in IDS]
    rows = [
        {"user_id": f"u{n}", "history": IDS[n + 1 : n + 4], "target": IDS[n]} for n in range(20)
    ]
    files = PurchaseFiles(
        name="shop",
        products=write(tmp_path / "products.jsonl", products),
        purchases=write(tmp_path / "purchases.jsonl", rows),
    )
    settings = Settings.load(
        None,
        {
            "training.validation_shoppers": 5,
            "training.profile_dropout": 0.5,
            "training.sales_dropout": 0.5,
        },
    )
    found = lists_of_all([files], tmp_path / "work", settings, tokenizer, no_progress)[0]
    examples = [found.train.example(row, visit) for row in range(15) for visit in range(2)]
    silent = [example for example in examples if example.told is None]
    assert 5 < len(silent) < 25
    levels = [{one.sales is None for one in example.candidates} for example in examples]
    assert all(len(kinds) == 1 for kinds in levels)  # of all products of a list, or of none
    assert 5 < levels.count({True}) < 25
    assert {True} not in [{one.sales is None for one in v.candidates} for v in found.validation]
    assert all(example.told for example in found.validation)
    trained = {example.user_id for example in examples}
    assert trained.isdisjoint(example.user_id for example in found.validation)
    for example in [*examples, *found.validation]:
        bought = [
            candidate.product
            for candidate, grade in zip(example.candidates, example.grades, strict=True)
            if grade
        ]
        assert len(bought) == 1
        number = int(example.user_id[1:])
        assert bought[0].product_id == IDS[number]
        assert f"number {number} " not in (example.told.summary if example.told else "")
        if example.told:
            assert f"number {number + 1} " in example.told.summary
    assert found.train.example(3, 1) == found.train.example(3, 1)
    places = [example.grades.index(1.0) for example in examples]
    assert len(set(places)) > 8


def test_every_list_comes_once_a_visit_and_sources_keep_their_shares() -> None:
    class Source:
        def __init__(self, name: str, size: int) -> None:
            self.name, self._size = name, size

        def __len__(self) -> int:
            return self._size

        def example(self, row: int, visit: int) -> tuple[str, int, int]:
            return self.name, row, visit

    sources = [Source("a", 12), Source("b", 50)]
    curriculum = Curriculum(sources, [3, 1], batch=4, seed=0)  # type: ignore[arg-type]
    dealt = [one for step in range(8) for one in curriculum.batch(step)]
    ours = [one for one in dealt if one[0] == "a"]
    assert len(ours) == 24
    assert len(set(ours)) == 24
    assert {visit for _, _, visit in ours} == {0, 1}
    assert [row for _, row, _ in ours[:12]] != [row for _, row, _ in ours[12:]]
    again = Curriculum(sources, [3, 1], batch=4, seed=0)  # type: ignore[arg-type]
    assert again.batch(5) == dealt[20:24]
    assert again.seen(2) == [6, 2]
    later = Curriculum(sources, [3, 1], batch=4, seed=0, seen=[6, 2])  # type: ignore[arg-type]
    assert later.batch(3) == dealt[20:24]
    assert later.batch(0) == dealt[8:12]
    assert later.seen(2) == [12, 4]
    fresh = Curriculum(sources, [3, 1], batch=4, seed=0, seen=[6, 0])  # type: ignore[arg-type]
    first = fresh.batch(0)
    assert [one for one in first if one[0] == "a"] == ours[6:9]
    assert [one for one in first if one[0] == "b"] == [one for one in dealt if one[0] == "b"][:1]
    with pytest.raises(ConfigError, match="no purchases"):
        Curriculum([Source("none", 0)], [1], batch=4, seed=0)  # type: ignore[list-item]


def test_the_learning_rate_rises_and_falls() -> None:
    training = Settings().training.model_copy(update={"lists": 800, "learning_rate": 1.0})
    rates = [learning_rate(step, training) for step in range(steps_of(training))]
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.01
    flat = training.model_copy(update={"schedule": "trapezoid"})
    rates = [learning_rate(step, flat) for step in range(100)]
    assert rates.count(1.0) > 70
    assert rates[-1] == pytest.approx(0.05)


def shop_examples(
    tmp_path: Path, purchases: list[dict[str, object]], tokenizer: HFTokenizer, **training: object
) -> PurchaseExamples:
    return shop_lists(tmp_path, purchases, tokenizer, **training).train


def shop_lists(
    tmp_path: Path, purchases: list[dict[str, object]], tokenizer: HFTokenizer, **training: object
) -> Lists:
    products = write(
        tmp_path / "products.jsonl",
        [{"product_id": each, "title": f"thing {each}"} for each in IDS],
    )
    source = PurchaseFiles(
        name="shop", products=products, purchases=write(tmp_path / "purchases.jsonl", purchases)
    )
    given = {"validation_shoppers": 1, "teacher": 0.0, **training}
    settings = Settings.load(None, {f"training.{name}": value for name, value in given.items()})
    return lists_of_all([source], tmp_path / "work", settings, tokenizer, no_progress)[0]


def test_a_file_may_grade_its_candidates_and_bring_a_teachers_scores(
    tmp_path: Path, tokenizer: HFTokenizer
) -> None:
    row = {"history": ["p9"], "target": "p2", "candidates": ["p1", "p2", "p3"]}
    rows = [
        {"user_id": f"u{n}", **row, "grades": [1, 3, 0], "scores": [-1.5, 0.5, -9]}
        for n in range(2)
    ]
    example = shop_examples(tmp_path, [dict(one) for one in rows], tokenizer).example(0, 0)
    ids = [candidate.product.product_id for candidate in example.candidates]
    assert dict(zip(ids, example.grades, strict=True)) == {"p1": 1, "p2": 3, "p3": 0}
    assert example.teacher is not None
    assert dict(zip(ids, example.teacher, strict=True)) == {"p1": -1.5, "p2": 0.5, "p3": -9}
    bad = write(tmp_path / "bad.jsonl", [{"user_id": "u", **row, "grades": [1]}])
    with pytest.raises(DataError, match=r"bad\.jsonl, row 1.*grades: there are 1 for 3 candidates"):
        read_purchases(bad)


def test_prompts_are_in_the_language_that_serving_would_choose(
    tmp_path: Path, tokenizer: HFTokenizer
) -> None:
    rows: list[dict[str, object]] = [
        {"user_id": f"u{n}", "history": ["p9"], "target": "p2", "query": query}
        for n, query in enumerate(["绿茶", "green tea", "绿茶", "green tea"])
    ]
    lists = shop_lists(tmp_path, rows, tokenizer, profile_dropout=0.0)
    for row in range(len(lists.train)):
        example = lists.train.example(row, 0)
        chinese = example.request.query == "绿茶"
        assert example.request.language == ("zh" if chinese else "en")
        assert ("最近" in (example.told.summary if example.told else "")) == chinese
    assert lists.card.languages == ("en", "zh")


def test_nobody_to_hold_back_is_named(tmp_path: Path, tokenizer: HFTokenizer) -> None:
    row: dict[str, object] = {"user_id": "u", "history": ["p9"], "target": "p2"}
    with pytest.raises(DataError, match=r"lower training\.validation_shoppers"):
        shop_lists(tmp_path, [row], tokenizer)


def test_some_products_ask_to_be_ranked_first_and_nothing_follows_from_it(
    tmp_path: Path, tokenizer: HFTokenizer
) -> None:
    rows: list[dict[str, object]] = [
        {"user_id": f"u{n}", "history": ["p9", "p8"], "target": f"p{n % 5}"} for n in range(41)
    ]
    plain = shop_examples(tmp_path, rows, tokenizer, candidates=4)
    asking = shop_examples(tmp_path, rows, tokenizer, candidates=4, hostile=1.0)
    wanted = 0
    for row in range(len(plain)):
        before, after = plain.example(row, 0), asking.example(row, 0)
        assert after.grades == before.grades
        pairs = zip(before.candidates, after.candidates, strict=True)
        changed = [place for place, (a, b) in enumerate(pairs) if a != b]
        assert len(changed) == 1
        wanted += bool(after.grades[changed[0]])
        product = after.candidates[changed[0]].product
        assert product.product_id == before.candidates[changed[0]].product.product_id
    assert 0 < wanted < len(plain) / 2  # neither always nor never what was wanted
