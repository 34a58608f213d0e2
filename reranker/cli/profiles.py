"""`shelfwise profile`."""

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from reranker.cli.options import (
    AtOption,
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    check_output,
    language_named,
    load_settings,
    moment,
)
from reranker.cli.output import console, plain, print_json, progress_bars
from reranker.cli.views import show_profile
from reranker.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reranker.ports import Progress
    from reranker.schema import Language
    from reranker.settings import Settings
    from retrieval.profiles import DuckDBProfileStore
    from retrieval.profiles.store import Refreshed
    from retrieval.profiles.writing import SummaryWriter
    from retrieval.profiles.written import WrittenSummary

_Done = TypeVar("_Done")


def profile(
    user: Annotated[str | None, typer.Argument(help="The shopper's id.")] = None,
    all_: Annotated[
        bool,
        typer.Option("--all", help="All shoppers: into the file of --out, or with --write."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="A .parquet or .jsonl file.")
    ] = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Have the language model write the text, unless it has and the facts are the "
            "same; it is read with the setting profile.summary=llm.",
        ),
    ] = False,
    at: AtOption = None,
    language: Annotated[str, typer.Option("--language", help="en or zh.")] = "en",
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a shopper, and the text of it that the model reads."""
    settings = load_settings(config, store, sets)
    words = language_named(language)
    if all_ and write and out is None and user is None:
        _write_all(settings, moment(at), words, as_json=as_json)
    elif all_ or out is not None:
        _all(settings, user, out, moment(at), words, write=write, as_json=as_json)
    elif user is None:
        raise ConfigError("name a shopper, or write all profiles with --all --out FILE")
    elif write:
        _write(settings, user, moment(at), words, as_json=as_json)
    else:
        _show(settings, user, moment(at), words, as_json=as_json)


def _show(
    settings: "Settings", user: str, at: datetime, language: "Language", *, as_json: bool
) -> None:
    with ExitStack() as resources:
        found = _open(settings, resources).profile(user, at, language)
    if found is None:
        raise DataError(f"the shopper has no event before {at.isoformat()}, or no consent")
    if as_json:
        print_json(found)
    else:
        show_profile(found)


def _all(
    settings: "Settings",
    user: str | None,
    out: Path | None,
    at: datetime,
    language: "Language",
    *,
    write: bool,
    as_json: bool,
) -> None:
    from retrieval.profiles.export import export_profiles

    if out is None or user is not None or write:
        raise ConfigError("--all goes with --out FILE or with --write, and without a shopper")
    check_output(out, "--out")
    with ExitStack() as resources, progress_bars() as report:
        profiles = _open(settings, resources)
        count = export_profiles(
            profiles.all_profiles(at, language), out, shoppers=profiles.shoppers(), progress=report
        )
    if as_json:
        import json

        typer.echo(json.dumps({"profiles": count, "file": str(out), "as_of": at.isoformat()}))
    else:
        console.print(plain(f"{count} profiles written to {out}"), soft_wrap=True)


def _write(
    settings: "Settings", user: str, at: datetime, language: "Language", *, as_json: bool
) -> None:
    summary = _written(settings, user, at, language)
    if summary is None:
        raise DataError(f"the shopper has no event before {at.isoformat()}, or no consent")
    if as_json:
        print_json(summary)
        return
    for sentence in summary.sentences:
        console.print(plain(sentence.text), style="cyan")
    dropped = ", ".join(f"{count} {cause}" for cause, count in summary.dropped.items())
    console.print(
        f"{len(summary.sentences)} sentences by {plain(summary.model)} kept; dropped as the facts "
        f"do not bear them out: {dropped or 'none'}",
        style="dim",
    )
    if settings.profile.summary == "template":
        console.print("read by searches with the setting profile.summary=llm", style="dim")


def _write_all(settings: "Settings", at: datetime, language: "Language", *, as_json: bool) -> None:
    async def write(
        profiles: "DuckDBProfileStore", writer: "SummaryWriter", report: "Progress"
    ) -> "Refreshed":
        return await profiles.write_all(at, writer, language, progress=report)

    done = _with_writer(settings, write)
    if as_json:
        print_json(done)
    else:
        console.print(f"{done.written} profiles written, {done.unchanged} as they were")


def _written(
    settings: "Settings", user: str, at: datetime, language: "Language"
) -> "WrittenSummary | None":
    async def write(
        profiles: "DuckDBProfileStore", writer: "SummaryWriter", _: "Progress"
    ) -> "WrittenSummary | None":
        return await profiles.write(user, at, writer, language)

    return _with_writer(settings, write)


def _with_writer(
    settings: "Settings",
    write: "Callable[[DuckDBProfileStore, SummaryWriter, Progress], Awaitable[_Done]]",
) -> _Done:
    import asyncio

    from reranker.wiring import open_writer
    from retrieval.profiles.writing import SummaryWriter

    async def run() -> _Done:
        with ExitStack() as resources:
            profiles = _open(settings, resources)
            report = resources.enter_context(progress_bars())
            model = open_writer(settings, progress=report)
            try:
                return await write(profiles, SummaryWriter(model), report)
            finally:
                await model.aclose()

    return asyncio.run(run())


def _open(settings: "Settings", resources: ExitStack) -> "DuckDBProfileStore":
    from reranker.wiring import open_profiles

    with progress_bars() as report:
        profiles = open_profiles(settings, resources, progress=report)
    if profiles is None:
        remedy = "run shelfwise behaviour import"
        raise DataError(f"{settings.store.path} holds no behaviour: {remedy}")
    return profiles
