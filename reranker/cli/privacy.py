"""`shelfwise privacy`: consent, erasure, export, retention, rotation and publication."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.options import (
    AtOption,
    ConfigOption,
    JsonOption,
    MapOption,
    SetOption,
    StoreOption,
    load_settings,
    moment,
    pairs,
)
from reranker.cli.output import console, plain, print_json, progress_bars
from reranker.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reranker.settings import Purpose, Settings
    from retrieval.behaviour.consent import Consent
    from retrieval.privacy.erasure import Erasure

privacy = typer.Typer(
    help="What shoppers have agreed to, and what they may ask for.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
UserArgument = Annotated[
    str,
    typer.Argument(metavar="USER", help="The shopper's id, or pseudonym:HEX.", show_default=False),
]
ModelsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--models",
        exists=True,
        file_okay=False,
        metavar="FOLDER",
        help="Search this folder, besides the store, for models trained on the shopper; may be "
        "repeated.",
    ),
]


@privacy.command("consent")
def consent(
    user: UserArgument,
    grant: Annotated[
        list[str] | None,
        typer.Option("--grant", metavar="PURPOSE", help="The shopper agrees; may be repeated."),
    ] = None,
    revoke: Annotated[
        list[str] | None,
        typer.Option("--revoke", metavar="PURPOSE", help="The shopper does not; may be repeated."),
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change what a shopper agrees to: personalisation, training, analytics.

    A refusal also holds for the browsers that nobody else has signed in from; a grant does where
    nothing is on record of them.
    """
    from reranker.wiring import change_behaviour, open_behaviour
    from retrieval.privacy.withdrawal import remove_unwanted_profiles

    settings = load_settings(config, store, sets)
    said = [*((word, True) for word in grant or []), *((word, False) for word in revoke or [])]
    answers = [(_purpose(word), granted) for word, granted in said]
    if len(dict(answers)) < len(set(answers)):
        raise ConfigError("--grant and --revoke name the same purpose: say one of them")
    folder = _needs_store(settings)
    if answers:
        with change_behaviour(settings) as behaviour:
            for purpose, granted in answers:
                behaviour.set_consent(user, purpose, granted=granted, clients=True)
            remove_unwanted_profiles(behaviour, folder)
    with open_behaviour(settings, read_only=True) as behaviour:
        found = behaviour.consent(user)
    _show_consent(found, as_json=as_json)


@privacy.command("import-consent")
def import_consent(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, folders or globs.")],
    mapping: MapOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import what shoppers agree to: user_id, purpose and, where some refuse, granted.

    A refusal also holds for the browsers that nobody else has signed in from; a grant does where
    nothing is on record of them.
    """
    from reranker.wiring import change_behaviour
    from retrieval.privacy.withdrawal import remove_unwanted_profiles

    settings = load_settings(config, store, sets)
    with change_behaviour(settings) as behaviour:
        report = behaviour.import_consent(files, mapping=pairs(mapping, "--map"))
        remove_unwanted_profiles(behaviour, settings.store.path)
    if as_json:
        print_json(report)
    else:
        console.print(f"{report.records} records of {report.shoppers} shoppers")


@privacy.command("forget")
def forget(
    user: UserArgument,
    models: ModelsOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove every trace of a shopper from the store, and list the models that learnt of them."""
    from reranker.wiring import change_behaviour
    from retrieval.privacy.erasure import forget as forget_shopper

    settings = load_settings(config, store, sets)
    folder = _needs_store(settings)
    with progress_bars() as report, change_behaviour(settings, progress=report) as behaviour:
        done = forget_shopper(behaviour, folder, user, models=models or (), progress=report)
    if as_json:
        print_json(done)
    else:
        _show_erasure(done)


@privacy.command("export")
def export(
    user: UserArgument,
    to: Annotated[Path | None, typer.Option("--to", help="File. [default: print it]")] = None,
    models: ModelsOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
) -> None:
    """Write all that is known of a shopper as JSON."""
    from reranker.wiring import open_behaviour
    from retrieval.files import replacing
    from retrieval.privacy.export import export as export_shopper

    settings = load_settings(config, store, sets)
    folder = _needs_store(settings)
    with open_behaviour(settings, read_only=True) as behaviour:
        known = export_shopper(behaviour, folder, user, models=models or ())
    if to is None:
        print_json(known)
        return
    with replacing(to, private=True) as temporary:
        temporary.write_text(known.model_dump_json(indent=2) + "\n", encoding="utf-8")
    console.print(f"{len(known.events)} events: {to}", markup=False, soft_wrap=True)


@privacy.command("retain")
def retain(
    days: Annotated[
        int | None,
        typer.Option("--days", min=1, help="Keep events so long. [setting privacy.retain_days]"),
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete older events for good."""
    from reranker.wiring import change_behaviour
    from retrieval.privacy.retention import retain as retain_events

    settings = load_settings(config, store, sets)
    limit = days or settings.privacy.retain_days
    if limit is None:
        raise ConfigError("say --days N, or set privacy.retain_days")
    folder = _needs_store(settings)
    with progress_bars() as report, change_behaviour(settings, progress=report) as behaviour:
        done = retain_events(behaviour, folder, limit, progress=report)
    if as_json:
        print_json(done)
    else:
        before = f"{done.before:%Y-%m-%d %H:%M} UTC"
        console.print(
            f"{done.events} events before {before} and {done.quarantined} refused rows gone"
        )


@privacy.command("rotate")
def rotate(
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace every pseudonym by one of a new key."""
    from reranker.wiring import change_behaviour
    from retrieval.privacy.rotation import rotate as rotate_key

    settings = load_settings(config, store, sets)
    folder = _needs_store(settings)
    with progress_bars() as report, change_behaviour(settings, progress=report) as behaviour:
        done = rotate_key(behaviour, folder, settings.privacy, progress=report)
    if as_json:
        print_json(done)
        return
    console.print(
        f"{done.shoppers} pseudonyms replaced; they rest on {done.keys} keys now, all of which are "
        f"needed: {done.place}",
        markup=False,
        soft_wrap=True,
    )


@privacy.command("publish")
def publish(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv or .parquet file.")],
    epsilon: Annotated[float, typer.Option("--epsilon", help="What the table may cost.")],
    days: Annotated[int, typer.Option("--days", min=1, help="Count so many days.")] = 28,
    at: AtOption = None,
    contributions: Annotated[
        int,
        typer.Option("--contributions", min=1, help="Most products that one shopper counts for."),
    ] = 20,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write how many shoppers bought, saw and clicked each product, with differential privacy."""
    from reranker.wiring import catalogue_file, open_behaviour
    from retrieval.privacy.publication import publish as publish_table
    from retrieval.product_table import ProductTable

    settings = load_settings(config, store, sets)
    _needs_store(settings)
    table = ProductTable.open(catalogue_file(settings))
    with open_behaviour(settings) as behaviour:
        done = publish_table(
            behaviour,
            table.column("product_id").to_pylist(),
            to,
            epsilon=epsilon,
            budget=settings.privacy.epsilon_budget,
            as_of=moment(at),
            days=days,
            contributions=contributions,
        )
    if as_json:
        print_json(done)
        return
    console.print(
        f"{done.products} products: {done.file}; epsilon {done.epsilon:g}, in all {done.spent:g} "
        f"of {done.budget:g}; noise of scale {done.buyers_scale:.1f} in buyers, "
        f"{done.clicks_scale:.1f} in shown_to and clicked_by",
        markup=False,
        soft_wrap=True,
    )


def _needs_store(settings: "Settings") -> Path:
    from retrieval.behaviour import FILE_NAME

    folder = settings.store.path
    if not (folder / FILE_NAME).exists():
        raise DataError(f"{folder} holds no behaviour: run shelfwise behaviour import")
    return folder


def _purpose(word: str) -> "Purpose":
    from retrieval.behaviour.consent import PURPOSES

    for purpose in PURPOSES:
        if purpose == word.lower():
            return purpose
    raise ConfigError(f"unknown purpose {word!r}; the purposes are {', '.join(PURPOSES)}")


def _show_consent(found: "Sequence[Consent]", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=2))
        return
    table = Table("Purpose", "Granted", "Said", box=None, pad_edge=False)
    for each in found:
        said = (
            "by default" if each.recorded_at is None else f"{each.recorded_at:%Y-%m-%d %H:%M} UTC"
        )
        table.add_row(each.purpose, "yes" if each.granted else "no", said)
    console.print(table)


def _show_erasure(done: "Erasure") -> None:
    console.print(
        f"removed: {done.events} events, {done.consents} records of consent, {done.links} links to "
        f"clients, {done.quarantined} refused rows, {done.written_profiles} written profiles"
    )
    for model in done.models:
        doubt = "" if model.certain else " (perhaps: it was made with another key)"
        console.print(f"trained on the shopper{doubt}: {plain(model.folder)}", soft_wrap=True)
    console.print("out of reach of this command:", style="dim")
    for reminder in done.elsewhere:
        console.print(f"  {reminder}", style="dim", soft_wrap=True)
