"""`shelfwise search`."""

from typing import TYPE_CHECKING, Annotated

import typer

from reranker.cli.options import (
    AtOption,
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    load_settings,
    moment,
)
from reranker.cli.output import console, plain, print_json, progress_bars
from reranker.cli.views import show_profile, show_result
from reranker.errors import ConfigError

if TYPE_CHECKING:
    from reranker.schema import RerankResult, SearchRequest, UserProfile
    from reranker.settings import Settings

UserOption = Annotated[
    str | None, typer.Option("--user", "-u", help="Shopper; without it, anonymous.")
]


def search(
    query: Annotated[
        str | None, typer.Argument(help="What is searched for; without it, recommendations.")
    ] = None,
    user: UserOption = None,
    k: Annotated[int, typer.Option("-k", help="Places shown; --json has all.")] = 10,
    at: AtOption = None,
    category: Annotated[
        list[str] | None, typer.Option("--category", help="Only this category or below.")
    ] = None,
    brand: Annotated[list[str] | None, typer.Option("--brand", help="Only this brand.")] = None,
    min_price: Annotated[float | None, typer.Option("--min-price")] = None,
    max_price: Annotated[float | None, typer.Option("--max-price")] = None,
    in_stock: Annotated[bool, typer.Option("--in-stock", help="Only what is in stock.")] = False,
    language: Annotated[
        str | None, typer.Option("--language", help="Of the prompt: en or zh.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="LoRA adapter of the model servers, by name.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show why, and where the time went.")
    ] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the catalogue and rank the results for a shopper."""
    settings = load_settings(config, store, sets)
    request = _request(
        query=query,
        user_id=user,
        k=k,
        at=moment(at),
        language=language,
        adapter=adapter,
        filters={
            "categories": tuple(category or ()),
            "brands": tuple(brand or ()),
            "min_price": min_price,
            "max_price": max_price,
            "in_stock": True if in_stock else None,
        },
    )
    result, known = _run(settings, request)
    if as_json:
        print_json(result)
        return
    if user is not None and known is None:
        console.print(
            f"nothing is known of user {plain(repr(user))} before {request.at.isoformat()}: "
            "the order is not personal",
            style="yellow",
        )
    if explain and known is not None:
        show_profile(known)
    show_result(result, k=k, explain=explain)
    if known is not None and not _has_learnt(settings):
        console.print(
            "nothing has been learnt from what all shoppers bought, so that the model is not told "
            "what sells: run shelfwise interest learn",
            style="yellow",
        )


def _run(
    settings: "Settings", request: "SearchRequest"
) -> "tuple[RerankResult, UserProfile | None]":
    from reranker.wiring import build

    with progress_bars() as report:
        shelf = build(settings, progress=report)
    with shelf:
        known = shelf.profile(request.user_id, request.at) if request.user_id else None
        return shelf.search(request), known


def _has_learnt(settings: "Settings") -> bool:
    from reranker.wiring import stored_interest

    return stored_interest(settings).current is not None


def _request(**fields: object) -> "SearchRequest":
    from pydantic import ValidationError

    from reranker.schema import SearchRequest

    try:
        return SearchRequest.model_validate(fields)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'request'}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from None
