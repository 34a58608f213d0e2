import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from eval.report import write_json, write_page
from eval.report.charts import IntervalRow, Scale, interval_plot, scatter_plot
from eval.report.words import in_short, read_measure
from eval.run import Evaluation, evaluate
from eval.run.results import RankChange
from evaluation_shop import make_shop, no_models, request_of
from reranker.settings import Settings

VOID = {"meta", "br"}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("shop")
    settings = Settings.load(None, {})
    names = ("random", "popularity", "cooccurrence", "interest-profile")
    request = request_of(make_shop(folder), folder, *names, baseline="cooccurrence")
    return evaluate(request, settings, no_models(settings), command="shelfwise evaluate <x>")


class Balanced(HTMLParser):
    """Checks that every element is closed where it belongs, and collects its text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(result: Evaluation, folder: Path) -> tuple[str, str]:
    write_page(result, folder / "page.html")
    html = (folder / "page.html").read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    return html, " ".join(" ".join(parser.text).split())


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(
    result: Evaluation, tmp_path: Path
) -> None:
    html, text = page_of(result, tmp_path)
    assert "<script" not in html
    assert not re.search(r"(src|href)\s*=|@import|url\(", html)
    for ranker in result.rankers:
        assert f"{ranker.measured('nDCG@10').value:.4f}" in text
    for title in ("All rankers", "Differences", "For whom", "What each part is worth",
                  "Where the answer moved", "Worst cases", "How it was measured"):  # fmt: skip
        assert title in text
    assert "shelfwise evaluate <x>" in text


def test_the_json_twin_holds_every_case(result: Evaluation, tmp_path: Path) -> None:
    write_json(result, tmp_path / "result.json")
    twin = json.loads((tmp_path / "result.json").read_text())
    assert Evaluation.model_validate(twin) == result
    values = twin["values"]["nDCG@10"]["cooccurrence"]
    assert len(values) == len(twin["case_ids"]) == 60
    assert sum(values) / 60 == pytest.approx(result.rankers[2].measures[2].value)


def test_hostile_titles_stay_text(result: Evaluation, tmp_path: Path) -> None:
    worst = result.worst[0].model_copy(
        update={"targets": ("<script>alert(1)</script>",), "query": "</h3><b>"}
    )
    html, text = page_of(result.model_copy(update={"worst": (worst,)}), tmp_path)
    assert "<script" not in html
    assert "<script>alert(1)</script>" in text


def test_worst_cases_are_the_focus_losses(result: Evaluation) -> None:
    focus, baseline = result.focus, result.baseline
    values = result.values[result.deciding]
    place = {case_id: n for n, case_id in enumerate(result.case_ids)}
    losses = [
        (values[baseline][place[case.case_id]] or 0) - (values[focus][place[case.case_id]] or 0)
        for case in result.worst
    ]
    assert losses == sorted(losses, reverse=True)
    for case in result.worst:
        rank = case.target_ranks[focus]
        assert rank is not None
        assert case.hits[focus] == tuple(n == rank for n in range(1, 6))


def test_the_sentences_do_not_overstate(result: Evaluation) -> None:
    sure = in_short(result.model_copy(update={"focus": "random"}))
    assert "worse than chance explains" in sure[-1]
    same = next(
        each
        for each in result.comparisons
        if (each.variant, each.measure) == ("interest-profile", "nDCG@10")
    )
    unsure = same.model_copy(update={"p_value": 0.3, "p_holm": 0.6})
    said = in_short(
        result.model_copy(update={"focus": "interest-profile", "comparisons": (unsure,)})
    )
    assert "Chance alone could do that" in said[-1]
    lost = in_short(result.model_copy(update={"focus": "popularity"}))
    assert any("The best ranker here is" in sentence for sentence in lost)
    assert "{k}" not in read_measure("nDCG@10") + read_measure("RR") + read_measure("P@5")


def test_an_interval_lies_where_its_values_say() -> None:
    rows = [IntervalRow("one & only", 0.5, 0.4, 0.7), IntervalRow("two", 0.2, 0.1, 0.3)]
    html = str(interval_plot(rows, zero=True))
    scale = Scale.around(rows, 0.0)
    assert f'x1="{scale.percent(0.4):.2f}%" x2="{scale.percent(0.7):.2f}%"' in html
    assert "one &amp; only" in html
    assert "+0.500" in html
    assert scale.percent(0.0) > 0
    assert all(0 <= scale.percent(tick) <= 100 for tick in scale.ticks())
    assert str(interval_plot([])) == ""
    equal = Scale.around([IntervalRow("a", 0.5, 0.5, 0.5)])
    assert equal.percent(0.5) == pytest.approx(50)


def test_the_scatter_tells_better_from_worse() -> None:
    changes = [
        RankChange(baseline=3, focus=1, cases=9),
        RankChange(baseline=1, focus=3, cases=1),
        RankChange(baseline=2, focus=2, cases=4),
    ]
    html = str(scatter_plot(changes, "popularity", "llm"))
    for kind in ("up", "down", "same"):
        assert len(re.findall(f'<circle class="{kind}"', html)) == 1
    assert "9 cases: popularity 3, llm 1" in html


def test_of_long_lists_the_first_places_have_room() -> None:
    changes = [
        RankChange(baseline=1, focus=10, cases=1),
        RankChange(baseline=100, focus=1, cases=1),
    ]
    html = str(scatter_plot(changes, "popularity", "llm"))
    places = [tuple(map(float, each)) for each in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', html)]
    assert places[0][0] == places[1][1] == 46.0
    assert places[0][1] == pytest.approx((46 + 354) / 2)  # ten of a hundred: half the way
    assert places[1][0] == 354.0
    assert {">1<", ">10<", ">100<"} <= set(re.findall(r">\d+<", html))


def test_cases_that_are_not_drawn_are_counted(result: Evaluation, tmp_path: Path) -> None:
    assert "Not drawn" not in page_of(result, tmp_path)[1]
    fewer = result.model_copy(update={"rank_changes": result.rank_changes[1:]})
    left_out = result.rank_changes[0].cases
    assert f"Not drawn: {left_out} cases whose answer" in page_of(fewer, tmp_path)[1]
