"""`shelfwise search` and `shelfwise profile`."""

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from reranker.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    load_settings,
)
from reranker.cli.output import console, plain, print_json, progress_bars
from reranker.cli.views import show_profile, show_result
from reranker.errors import ConfigError, DataError

if TYPE_CHECKING:
    from reranker.schema import Language, RerankResult, SearchRequest, UserProfile
    from reranker.settings import Settings

AtOption = Annotated[
    datetime | None,
    typer.Option(
        "--at",
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
        help="The moment to look from: later events do not exist. [default: now]",
    ),
]
UserOption = Annotated[
    str | None, typer.Option("--user", "-u", help="Shopper; without it, anonymous.")
]


def profile(
    user: Annotated[str, typer.Argument(help="The shopper's id.")],
    at: AtOption = None,
    language: Annotated[str, typer.Option("--language", help="en or zh.")] = "en",
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a shopper, and the text of it that the model reads."""
    from reranker.wiring import open_profiles

    settings = load_settings(config, store, sets)
    moment = _moment(at)
    with ExitStack() as resources:
        with progress_bars() as report:
            profiles = open_profiles(settings, resources, progress=report)
        if profiles is None:
            remedy = "run shelfwise behaviour import"
            raise DataError(f"{settings.store.path} holds no behaviour: {remedy}")
        found = profiles.profile(user, moment, _language(language))
    if found is None:
        raise DataError(f"user {user!r} has no event before {moment.isoformat()}")
    if as_json:
        print_json(found)
    else:
        show_profile(found)


def search(
    query: Annotated[
        str | None, typer.Argument(help="What is searched for; without it, recommendations.")
    ] = None,
    user: UserOption = None,
    k: Annotated[int, typer.Option("-k", help="Places shown.")] = 10,
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
        at=_moment(at),
        language=language,
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


def _run(
    settings: "Settings", request: "SearchRequest"
) -> "tuple[RerankResult, UserProfile | None]":
    from reranker.wiring import build

    with progress_bars() as report:
        shelf = build(settings, progress=report)
    with shelf:
        known = shelf.profile(request.user_id, request.at) if request.user_id else None
        return shelf.search(request), known


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


def _moment(at: datetime | None) -> datetime:
    if at is None:
        return datetime.now(UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _language(name: str) -> "Language":
    if name == "en":
        return "en"
    if name == "zh":
        return "zh"
    raise ConfigError(f"--language {name}: must be en or zh")
