"""`shelfwise tune`: LoRA tuning of the embedded model on purchases."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.options import ConfigOption, JsonOption, SetOption, StoreOption, load_settings
from reranker.cli.output import console, plain, print_json, progress_bars
from reranker.errors import ConfigError, DataError

if TYPE_CHECKING:
    from reranker.models.adapter import AdapterCard
    from reranker.settings import Settings
    from reranker.training.sources import ListSource, PurchaseFiles

_FORMS = (".parquet", ".csv", ".jsonl")

DataOption = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FOLDER...",
        help="Folders of purchases: products.*, purchases.* (or purchases_train.*) and, to count "
        "what is bought together, histories.*; Parquet, CSV or JSON lines.",
    ),
]


def tune(
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")],
    folders: DataOption = None,
    behaviour: Annotated[
        bool, typer.Option("--behaviour", help="Learn from the purchases of the store, too.")
    ] = False,
    until: Annotated[
        datetime | None,
        typer.Option(help="Purchases of the store from then on (UTC) are left out. [default: now]"),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the adapter, in small letters.")] = "tuned",
    weight: Annotated[
        list[float] | None,
        typer.Option(help="Lists seen of each folder, and last of the store; one each."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Adapter to start from: a folder or a name.")
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tune the embedded model on purchases; called again, go on where it was stopped.

    A purchase is a row of user_id, history (product ids, oldest first) and target; query and
    candidates are optional. With --behaviour, the store's shoppers are learnt from who have agreed
    to training. Some are held back to validate on (training.validation_shoppers).
    The best adapter so far is always in OUT/adapter.
    """
    from reranker.models.adapter import find_adapter
    from reranker.training.tuning import tune as run

    settings = load_settings(config, store, sets)
    sources: list[ListSource] = [files_in(folder) for folder in folders or ()]
    if behaviour:
        sources.append(_behaviour(settings, until))
    if not sources:
        raise ConfigError("there is nothing to learn from: name folders, or give --behaviour")
    if weight and len(weight) != len(sources):
        raise ConfigError(f"--weight: {len(weight)} are given for {len(sources)} sources")
    with progress_bars() as report:
        card = run(
            settings,
            sources,
            out,
            name=name,
            weights=weight or (),
            start=find_adapter(start) if start else None,
            progress=report,
        )
    if as_json:
        print_json(card)
        return
    show_card(card)
    console.print(plain(f"the adapter is in {out / 'adapter'}"), soft_wrap=True)
    console.print(
        plain(f"next: shelfwise search ... --set model.adapter={out / 'adapter'} {_ask(card)}"),
        style="dim",
        soft_wrap=True,
    )


def files_in(folder: Path) -> "PurchaseFiles":
    """Find the files of a folder of purchases.

    Raises:
        DataError: one is missing.
    """
    from reranker.training.sources import PurchaseFiles

    return PurchaseFiles(
        name=folder.resolve().name,
        products=_required(folder, ("products",)),
        purchases=_required(folder, ("purchases", "purchases_train")),
        histories=_file(folder, ("histories",)),
    )


def _behaviour(settings: "Settings", until: datetime | None) -> "ListSource":
    from reranker.training.store_source import StoreBehaviour
    from reranker.wiring import catalogue_file

    moment = datetime.now(UTC) if until is None else until.replace(tzinfo=UTC)
    return StoreBehaviour(name="store", catalogue=catalogue_file(settings), until=moment)


def show_card(card: "AdapterCard") -> None:
    """Print what is known of an adapter."""
    table = Table(box=None, pad_edge=False, show_header=False)
    templates = ", ".join(f"{t.name} version {t.version} ({t.language})" for t in card.templates)
    rows = {
        "adapter": card.identity,
        "made": card.created.isoformat(timespec="seconds"),
        "base model": f"{card.base.name} ({card.base.fingerprint[:12]})",
        "readout": card.readout,
        "templates": templates,
        "prompts": f"cards of {card.card_tokens}, profiles of {card.profile_tokens} tokens, "
        f"{card.candidates} candidates",
        "learnt from": f"{card.training.get('lists_seen', 0):,} lists",
        "held back": ", ".join(
            f"{name} {value:.3f}" if value <= 1 else f"{value:.0f} {name}"
            for name, value in card.validation.items()
        ),
    }
    for name, value in rows.items():
        table.add_row(name, plain(value))
    console.print(table)


def _ask(card: "AdapterCard") -> str:
    return f"--set ranking.readout={card.readout} --set ranking.card_tokens={card.card_tokens}"


def _required(folder: Path, names: tuple[str, ...]) -> Path:
    found = _file(folder, names)
    if found is None:
        wanted = " or ".join(f"{name}{_FORMS[0]}" for name in names)
        raise DataError(f"{folder}: {wanted} is missing (.csv and .jsonl will do, too)")
    return found


def _file(folder: Path, names: tuple[str, ...]) -> Path | None:
    places = [folder / f"{name}{form}" for name in names for form in _FORMS]
    return next((place for place in places if place.is_file()), None)
