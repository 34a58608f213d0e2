from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.cases import Case
from eval.past import Past, Purchases
from eval.past.purchases import UNTIMED, ShopperSequence
from eval.rankers import Bench, Ranked, describe, make_ranker, ranker_names, registry
from eval.rankers.other_shoppers import other_shoppers
from eval.rankers.profiles import WrittenCaseProfiles
from eval.rankers.ranked import best_first, tie_breakers
from evaluation_shop import product_rows
from reranker.errors import ConfigError
from reranker.listwise import Judgement, ListwiseRanker
from reranker.models.embedded import EmbeddedModel
from reranker.schema import Candidate, Language, Product, SearchRequest, UserProfile
from reranker.settings import Settings
from retrieval.embedder import SentenceTransformerEmbedder
from retrieval.product_table import ProductTable
from retrieval.profiles.writing import SummaryWriter
from retrieval.profiles.written import WrittenSentence, WrittenSummary, statements

MUGS = ("mug0", "mug1", "mug2", "mug3")
SMALL = {"ranking.min_label_mass": 0.0, "retrieval.candidates": 6}
LAMPS = ("lamp0", "lamp1", "lamp2", "lamp3")
BOUGHT = (*[MUGS] * 3, *[LAMPS] * 2, ("chair0", "chair1", "chair2"), ("mug2", "lamp3"))
CASES = (
    Case(case_id="mugs", user_id="m", history=MUGS[:2], candidates=(*LAMPS, *MUGS[2:])),
    Case(case_id="lamps", user_id="l", history=LAMPS[:2], candidates=(*MUGS, *LAMPS[2:])),
    Case(case_id="search", user_id="s", query="chair", candidates=("mug5", "chair5", "lamp5")),
    Case(case_id="whole", user_id="w", history=("chair0", "chair1")),
    Case(case_id="asked", user_id="a", query="lamp number 7"),
)


@pytest.fixture(scope="module")
def table() -> ProductTable:
    products = [Product.model_validate(row) for row in product_rows()]
    return ProductTable.empty().upsert(products)[0]


@pytest.fixture(scope="module")
def past(table: ProductTable) -> Past:
    return past_of(BOUGHT, table)


def past_of(bought: Sequence[tuple[str, ...]], table: ProductTable) -> Past:
    return Past(
        Purchases.of(
            ShopperSequence(str(n), ids, (UNTIMED,) * len(ids)) for n, ids in enumerate(bought)
        ),
        table,
    )


@pytest.fixture(scope="module")
def bench(
    table: ProductTable,
    past: Past,
    model: EmbeddedModel,
    minilm_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    with Bench(
        table=table,
        cases=CASES,
        everyone=CASES,
        past=past,
        settings=Settings.load(None, SMALL),
        open_model=lambda: Borrowed(model),
        open_writer=lambda: Borrowed(model),
        open_embedder=lambda: SentenceTransformerEmbedder(minilm_folder),
        open_tokenizer=lambda: model.tokenizer,
        work=tmp_path_factory.mktemp("work"),
    ) as opened:
        yield opened


class Borrowed:
    """The session's model, which a bench must not close."""

    def __init__(self, model: EmbeddedModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    async def aclose(self) -> None:
        return


def another(bench: Bench, settings: Settings, cases: Sequence[Case] | None = None) -> Bench:
    return Bench(
        table=bench.table,
        cases=bench.cases if cases is None else cases,
        everyone=bench.everyone,
        past=bench.past,
        settings=settings,
        open_model=bench.open_model,
        open_writer=bench.open_writer,
        open_embedder=bench.open_embedder,
        open_tokenizer=bench.open_tokenizer,
        work=bench.work,
    )


def rank(bench: Bench, name: str, number: int = 0) -> Ranked:
    return make_ranker(name, bench).rank(CASES[number])


@pytest.mark.parametrize("name", [n for n in ranker_names() if n != "llm-written"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case_id)
def test_every_ranker_returns_every_candidate_once(bench: Bench, name: str, case: Case) -> None:
    ranked = make_ranker(name, bench).rank(case)
    assert len(set(ranked.product_ids)) == len(ranked.product_ids)
    if case.candidates is not None:
        assert set(ranked.product_ids) == set(case.candidates)
    else:
        assert 1 <= len(ranked.product_ids) <= 6
    assert describe(name)


def test_own_products_that_match_are_recalled_as_they_are_when_served(bench: Bench) -> None:
    stranger = Case(case_id="stranger", user_id="s", query="lamp")
    with another(bench, bench.settings, (stranger,)) as opened:
        found = opened.recall.order(stranger)
    lamps = [f"lamp{number}" for number in range(8)]
    missed = next(lamp for lamp in lamps if lamp not in found)
    owner = Case(case_id="owner", user_id="o", query="lamp", history=(missed,))
    with another(bench, bench.settings, (owner,)) as opened:
        assert opened.recall.order(owner) == (*found[:-1], missed)


def test_a_stranger_to_the_whole_catalogue_is_shown_what_sells(bench: Bench) -> None:
    stranger = Case(case_id="stranger", user_id="s")
    with another(bench, bench.settings, (stranger,)) as opened:
        order = opened.recall.order(stranger)
    assert order[0] == "mug2"
    assert set(order[1:3]) <= {"mug0", "mug1", "mug3", "lamp3"}
    assert len(order) == 6


def test_recall_from_the_catalogue_knows_the_learned_interest(
    bench: Bench, table: ProductTable
) -> None:
    bought = [(*MUGS[n % 4 :], *MUGS[: n % 4]) for n in range(160)]
    past = past_of([*bought, *[("chair0", "lamp5")] * 40], table)
    case = Case(case_id="pair", user_id="p", history=("chair0",))
    with replace(bench, past=past, cases=(case,), _resources=ExitStack()) as opened:
        assert opened.learned is not None
        assert "lamp5" in opened.recall.order(case)
    with another(bench, bench.settings, (case,)) as opened:
        assert "lamp5" not in opened.recall.order(case)


def test_the_order_of_the_products_file_decides_nothing(bench: Bench, tmp_path: Path) -> None:
    products = [Product.model_validate(row) for row in product_rows()]
    turned = ProductTable.empty().upsert(products[::-1])[0]
    cases = (CASES[3], Case(case_id="stranger", user_id="s"))
    orders = []
    for table in (bench.table, turned):
        with replace(
            bench,
            table=table,
            past=past_of(BOUGHT, table),
            cases=cases,
            work=tmp_path / str(len(orders)),
            _resources=ExitStack(),
        ) as opened:
            orders.append([opened.recall.order(case) for case in cases])
    assert orders[0] == orders[1]


class Watched:
    """A ranker that remembers which products it was shown, in which order."""

    def __init__(self, ranker: ListwiseRanker) -> None:
        self.ranker = ranker
        self.shown: list[str] = []

    def language(self, request: SearchRequest) -> Language:
        return self.ranker.language(request)

    async def judge(
        self, request: SearchRequest, profile: UserProfile | None, candidates: Sequence[Candidate]
    ) -> Judgement:
        self.shown = [each.product.product_id for each in candidates]
        return await self.ranker.judge(request, profile, candidates)


def test_the_reshuffled_model_is_shown_the_same_candidates_in_another_order(bench: Bench) -> None:
    shown = []
    for name in ("llm", "llm-reshuffled", "llm-reshuffled"):
        ranker = make_ranker(name, bench)
        watched = Watched(ranker.ranker)
        replace(ranker, ranker=watched).rank(CASES[0])
        shown.append(watched.shown)
    assert shown[0] != shown[1] == shown[2]
    assert set(shown[0]) == set(shown[1])


def test_the_model_alone_is_not_shown_what_recall_puts_first(bench: Bench) -> None:
    asked = CASES[-1]
    ranker = make_ranker("llm", bench)
    watched = Watched(ranker.ranker)
    replace(ranker, ranker=watched).rank(asked)
    recalled = list(bench.recall.order(asked))
    assert watched.shown != recalled
    assert set(watched.shown) == set(recalled)


def test_popularity_counts_shoppers(bench: Bench) -> None:
    ranked = rank(bench, "popularity")
    assert ranked.product_ids[0] == "mug2"
    assert ranked.scores[:4] == (4, 3, 3, 2)


def test_cooccurrence_and_transitions(bench: Bench) -> None:
    assert rank(bench, "cooccurrence").product_ids[:2] == ("mug2", "mug3")[::-1]
    assert rank(bench, "transitions").product_ids[0] == "mug2"
    assert rank(bench, "transitions", 3).product_ids[0] == "chair2"
    assert set(rank(bench, "cooccurrence", 1).product_ids[:2]) == {"lamp2", "lamp3"}


def test_own_history_comes_first_then_popularity(bench: Bench) -> None:
    case = Case(
        case_id="c", history=("lamp1", "lamp1", "mug0"), candidates=("mug2", *LAMPS, "mug0")
    )
    ranked = make_ranker("own-history", bench).rank(case)
    assert ranked.product_ids[:3] == ("lamp1", "mug0", "mug2")


def test_interest_reads_the_profile(bench: Bench) -> None:
    ranked = rank(bench, "interest-profile")
    assert ranked.interest
    assert set(ranked.product_ids[:2]) == {"mug2", "mug3"}
    assert all(0 <= score <= 1 for score in ranked.scores)


def test_interest_is_learned_where_enough_is_known(bench: Bench) -> None:
    """Whoever has a mug takes a lamp next: no rule over a profile says so."""
    rng = np.random.default_rng(0)
    rows = [
        ShopperSequence(str(n), (f"mug{rng.integers(8)}", f"lamp{rng.integers(8)}"), (UNTIMED,) * 2)
        for n in range(90)
    ]
    other = another(bench, bench.settings)
    other.past = Past(Purchases.of(rows), bench.table)
    case = Case(case_id="c", history=("mug3", "mug5"), candidates=("mug1", "chair1", "lamp1"))
    learned = make_ranker("interest", other).rank(case)
    assert learned.product_ids[0] == "lamp1"
    assert learned.interest
    assert make_ranker("interest-profile", other).rank(case).product_ids[0] == "mug1"
    # Seven shoppers teach nothing: then it is the profile's rule.
    few = make_ranker("interest", bench).rank(case)
    assert few == make_ranker("interest-profile", bench).rank(case)


def test_recall_by_words_meaning_and_history(bench: Bench) -> None:
    assert rank(bench, "recall", 2).product_ids[0] == "chair5"
    assert set(rank(bench, "recall", 0).product_ids[:2]) == {"mug2", "mug3"}
    assert rank(bench, "recall", 4).product_ids[0] == "lamp7"
    assert "chair2" in rank(bench, "recall", 3).product_ids
    nothing = Case(case_id="n", candidates=CASES[0].candidates)
    assert set(make_ranker("recall", bench).rank(nothing).product_ids) == set(
        nothing.candidates or ()
    )


def test_the_model_is_told_of_the_right_shopper(bench: Bench) -> None:
    own, nobody, other = (
        rank(bench, name) for name in ("llm", "llm-noprofile", "llm-otherprofile")
    )
    assert own.outcome == other.outcome == "model"
    assert (own.personalised, nobody.personalised, other.personalised) == (True, False, True)
    assert own.label_mass is not None
    again = rank(bench, "llm")
    assert again.product_ids == own.product_ids
    # What the prefix cache kept is rounded otherwise than what is computed anew.
    assert again.label_mass == pytest.approx(own.label_mass, rel=1e-3)


def test_the_model_is_told_what_it_has_written_on_the_shopper(bench: Bench) -> None:
    """What a model of this size writes, the facts seldom bear out: told is what holds of it."""
    # A few words are enough here: 480 tokens would take most of a minute.
    writer = SummaryWriter(bench.open_writer(), answer_tokens=48)
    bench.written_profiles = WrittenCaseProfiles(bench.profiles, writer, bench.work, bench.portal)
    ranked = rank(bench, "llm-written")
    assert ranked.personalised
    assert sorted(ranked.product_ids) == sorted(CASES[0].candidates or ())
    (file,) = bench.work.glob("profiles/written/*.json")
    written = file.read_bytes()
    assert rank(bench, "llm-written").product_ids == ranked.product_ids
    assert file.read_bytes() == written
    # By another hand: what the facts bear out is told in place of the template's text.
    template = bench.profiles.of(CASES[0])
    assert template is not None
    (fact, *_) = statements(template)
    summary = WrittenSummary.model_validate_json(written)
    own = WrittenSentence(text="Mugs, above all.", facts=(fact.text,))
    file.write_text(summary.model_copy(update={"sentences": (own,)}).model_dump_json())
    told = bench.written_profiles.of(CASES[0])
    assert told is not None
    assert (told.summary, told.summary_origin) == ("Mugs, above all.", "llm")


def test_the_model_sees_no_order_of_the_file(bench: Bench) -> None:
    """Where the file lists the answer first, that must not be shown to the model or break ties."""
    case = CASES[0]
    turned = case.model_copy(update={"candidates": (case.candidates or ())[::-1]})
    for name in ("llm", "random", "popularity", "recall"):
        ranker = make_ranker(name, bench)
        assert ranker.rank(case).product_ids == ranker.rank(turned).product_ids, name
    given = make_ranker("as-given", bench)
    assert given.rank(case).product_ids == case.candidates
    assert given.rank(turned).product_ids == turned.candidates


def test_a_fallback_of_the_model_alone_is_random_and_of_the_whole_is_not(bench: Bench) -> None:
    settings = Settings.load(None, SMALL | {"ranking.min_label_mass": 1.0})
    with another(bench, settings) as other:
        alone, whole = (make_ranker(name, other).rank(CASES[0]) for name in ("llm", "full"))
        assert alone.outcome == whole.outcome == "fallback"
        assert alone.issues == ("low_label_mass",)
        assert alone.product_ids == other.candidates(CASES[0])
        assert set(whole.product_ids[:2]) == {"mug2", "mug3"}
        assert whole.product_ids == make_ranker("full-nollm", other).rank(CASES[0]).product_ids


def test_ties_are_fair_and_seeded() -> None:
    hashes = np.arange(20, dtype=np.uint64) * np.uint64(11400714819323198485)
    first = [best_first(np.zeros(20), tie_breakers(hashes, f"case {n}", 0))[0] for n in range(4000)]
    counts = np.bincount(first, minlength=20)
    assert counts.min() > 140  # 200 expected, standard deviation 14
    assert counts.max() < 260
    one, same, other = (tie_breakers(hashes, "c", seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_another_shopper_is_always_another() -> None:
    cases = [
        Case(case_id=str(n), user_id=f"u{n % 7}", history=("a",) if n % 3 else ())
        for n in range(50)
    ]
    found = other_shoppers(cases, seed=1)
    assert set(found) == {case.case_id for case in cases}
    for case in cases:
        assert found[case.case_id].shopper != case.shopper
        assert found[case.case_id].history
    lent = np.unique([other.case_id for other in found.values()], return_counts=True)[1]
    assert lent.max() <= 8
    assert other_shoppers([cases[1]], seed=1) == {}


def test_rankers_of_other_packages(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "theirs"

        def load(self) -> Any:
            return lambda given: make_ranker("random", given)

    monkeypatch.setattr(registry, "entry_points", lambda **_: (Point(),))
    assert "theirs" in ranker_names()
    assert rank(bench, "theirs").product_ids == rank(bench, "random").product_ids


def test_an_unknown_ranker_is_named(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="unknown; there are random"):
        make_ranker("best", bench)


@pytest.mark.parametrize("name", ["popularity", "cooccurrence", "transitions", "interest"])
def test_where_nothing_is_known_chance_decides(bench: Bench, name: str) -> None:
    without = another(bench, bench.settings)
    without.past = Past(Purchases.of([]), bench.table)
    case = Case(case_id="c", candidates=(*MUGS, *LAMPS))
    assert rank(bench, "random").product_ids
    expected = make_ranker("random", without).rank(case).product_ids
    assert make_ranker(name, without).rank(case).product_ids == expected
