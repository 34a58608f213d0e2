"""The demo's searches, and their display in the terminal."""

from datetime import UTC, datetime

from rich.table import Table

from reranker.cli.output import console, plain
from reranker.ports import LanguageModel, Progress
from reranker.schema import RankedItem, RerankResult, SearchRequest, UserProfile, Value
from reranker.settings import ModelSettings, Settings

_UNTUNED = (
    "{model} is asked without an adapter. The embedded default (SmolLM2, 135 million parameters) "
    "then ranks at chance: this shows the whole path at work, not the quality of a tuned model."
)
_TUNED = (
    "{model}, small as it is, ranks with the adapter {name}, which "
    "learnt from {lists:,} lists of purchases ({sources}). On {held:,.0f} "
    "lists of 20 products by shoppers who were held back its nDCG@10 is {value:.2f}; chance is "
    "0.23. Serve a larger one, tuned on the shop's own behaviour (shelfwise tune)."
)


class Scenario(Value):
    """Queries by shoppers of one shop at one moment.

    Attributes:
        shoppers: user ids; None is an anonymous shopper.
    """

    name: str
    queries: tuple[str, ...]
    shoppers: tuple[str | None, ...]
    at: datetime
    shown: int


GROCERY = Scenario(
    name="Groceries (Complete Journey)",
    queries=("yogurt", "ground coffee", "ice cream"),
    shoppers=("2314", "1453", None),
    at=datetime(2018, 1, 2, tzinfo=UTC),
    shown=5,
)
SEED = Scenario(
    name="Three products, shoppers A, B and C",
    queries=("something for the train ride",),
    shoppers=("A", "B", "C"),
    at=datetime(2026, 3, 5, tzinfo=UTC),
    shown=3,
)


class ShopperSearch(Value):
    """One shopper's result for one query, with what was known of the shopper."""

    user_id: str | None
    profile: UserProfile | None
    result: RerankResult


class QueryComparison(Value):
    """One query by every shopper."""

    query: str
    searches: tuple[ShopperSearch, ...]

    @property
    def recall_order(self) -> tuple[RankedItem, ...]:
        """Return what recall found for everybody, in its order: no shopper's own products."""
        found = (item for item in self.searches[-1].result.items if not item.from_history)
        return tuple(sorted(found, key=lambda item: item.recall_rank))


class ScenarioReport(Value):
    """All searches of a scenario."""

    scenario: Scenario
    remark: str
    comparisons: tuple[QueryComparison, ...]


class DemoReport(Value):
    """What the demo did, as its page and its JSON show it."""

    scenarios: tuple[ScenarioReport, ...]


def run_scenario(
    scenario: Scenario, settings: Settings, model: LanguageModel, progress: Progress
) -> ScenarioReport:
    """Search every query as every shopper."""
    from reranker.wiring import build

    stage = f"searching: {scenario.name}"
    done, total = 0, len(scenario.queries) * len(scenario.shoppers)
    comparisons = []
    with build(settings, model=model, progress=progress) as shelf:
        for query in scenario.queries:
            searches = []
            for user in scenario.shoppers:
                request = SearchRequest(query=query, user_id=user, at=scenario.at, k=scenario.shown)
                known = shelf.profile(user, scenario.at) if user else None
                result = shelf.search(request)
                searches.append(ShopperSearch(user_id=user, profile=known, result=result))
                done += 1
                progress(stage, done, total)
            comparisons.append(QueryComparison(query=query, searches=tuple(searches)))
    return ScenarioReport(
        scenario=scenario, remark=_remark(settings.model), comparisons=tuple(comparisons)
    )


def show_scenario(report: ScenarioReport) -> None:
    """Print a scenario: who the shoppers are, then each query side by side."""
    console.rule(f"[bold]{plain(report.scenario.name)}")
    for search in report.comparisons[0].searches:
        if search.profile is not None:
            console.print(f"[bold]{shopper_name(search.user_id)}[/]")
            console.print(plain(search.profile.summary), style="cyan")
            console.print()
    for comparison in report.comparisons:
        _show_comparison(comparison, report.scenario.shown)
    console.print(plain(report.remark), style="yellow")
    console.print()


def _remark(settings: ModelSettings) -> str:
    """Say how well the model ranks that is asked here."""
    from reranker.models.adapter import adapter_of, read_card, read_data_card

    folder = adapter_of(settings)
    if folder is None:
        return _UNTUNED.format(model=settings.name)
    card = read_card(folder)
    return _TUNED.format(
        model=settings.name,
        name=card.identity,
        lists=card.training.get("lists_seen", 0),
        sources=", ".join(source.name for source in read_data_card(folder).sources),
        held=card.validation["lists"],
        value=card.validation["nDCG@10"],
    )


def shopper_name(user_id: str | None) -> str:
    """Name a shopper for people."""
    return "a stranger" if user_id is None else f"shopper {user_id}"


def evidence(item: RankedItem) -> str:
    """Return what is known of an item in few words: what the shopper did, and how it sells."""
    told = (fact for fact in item.facts if fact.startswith(("bought", "lately", "sales")))
    return ", ".join(told)


def _show_comparison(comparison: QueryComparison, shown: int) -> None:
    table = Table(title=f'"{comparison.query}"', title_justify="left", show_lines=True)
    table.add_column("")
    table.add_column("recall order, for all", ratio=1)
    for search in comparison.searches:
        table.add_column(f"for {shopper_name(search.user_id)}", ratio=1)
    for place in range(min(shown, len(comparison.recall_order))):
        cells = [_cell(comparison.recall_order[place], moved=False)]
        cells += [_cell(search.result.items[place]) for search in comparison.searches]
        table.add_row(str(place + 1), *cells)
    console.print(table)
    for search in comparison.searches:
        result = search.result
        console.print(
            f"{shopper_name(search.user_id)}: outcome {result.outcome}, {len(result.items)} "
            f"candidates, model {result.timings.model_ms:.0f} ms, all else "
            f"{result.timings.total_ms - result.timings.model_ms:.0f} ms",
            style="dim",
        )
        for issue in result.issues:
            console.print(f"  {issue.code}: {plain(issue.detail)}", style="yellow")
    console.print()


def _cell(item: RankedItem, *, moved: bool = True) -> str:
    product = item.product
    facts = [product.brand or "", "" if product.price is None else f"{product.price:.2f}"]
    lines = [plain(product.title), f"[dim]{plain(' '.join(f for f in facts if f))}[/]"]
    notes = [f"was {item.recall_rank}", evidence(item)] if moved else []
    if any(notes):
        lines.append(f"[green]{plain(', '.join(note for note in notes if note))}[/]")
    return "\n".join(lines)
