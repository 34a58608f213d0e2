"""`shelfwise tune`: LoRA tuning of the embedded model on purchases."""

import os
from contextlib import nullcontext
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
    from reranker.ports import Progress
    from reranker.schema import Readout
    from reranker.settings import Settings
    from reranker.training.sources import ListSource, PurchaseFiles

_UNTIL = "until"
"""File of a run: behaviour from that moment on is left out."""
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
    shown: Annotated[
        bool,
        typer.Option("--shown", help="Learn from the lists that the store's shoppers were shown."),
    ] = False,
    until: Annotated[
        datetime | None,
        typer.Option(
            help="Behaviour of the store from then on (UTC) is left out. [default: when the run "
            "was started]"
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the adapter, in small letters.")] = "tuned",
    weight: Annotated[
        list[float] | None,
        typer.Option(help="Lists seen of each folder, of purchases and of lists of the store."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Adapter to start from: a folder or a name.")
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="The store holds a published data set: keep no list of whom was learnt from.",
        ),
    ] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tune the embedded model on purchases; called again, go on where it was stopped.

    A purchase is a row of user_id, history (product ids, oldest first; without what is to be
    predicted) and target; query and candidates are optional. With --behaviour and --shown, the
    store's shoppers are learnt from who agree to training (privacy.default_consent, where nothing
    was said): from what they bought, and from the lists that they were shown, clicks weighed by how
    often their place is looked at. Some shoppers are held back to validate on
    (training.validation_shoppers). The adapter is for the verdict readout, or with
    ranking.readout=labels for that. The best one so far is always in OUT/adapter. Several GPUs
    share the lists of a step: accelerate launch --num_processes N $(command -v shelfwise) tune ...
    """
    from reranker.models.adapter import find_adapter
    from reranker.ports import no_progress
    from reranker.training.team import Team
    from reranker.training.tuning import tune as run

    settings = load_settings(config, store, sets)
    sources: list[ListSource] = [files_in(folder) for folder in folders or ()]
    moment = _moment(until, out) if behaviour or shown else datetime.now(UTC)
    if behaviour:
        sources.append(_behaviour(settings, moment))
    if shown:
        with progress_bars() as report:
            sources.append(_shown(settings, moment, out, report))
    if not sources:
        raise ConfigError(
            "there is nothing to learn from: name folders, or give --behaviour or --shown"
        )
    if weight and len(weight) != len(sources):
        raise ConfigError(f"--weight: {len(weight)} are given for {len(sources)} sources")
    if settings.ranking.readout == "generate":
        raise ConfigError("ranking.readout = generate: tuning is for verdict (or auto) and labels")
    readout: Readout = "labels" if settings.ranking.readout == "labels" else "verdict"
    team = Team()
    with progress_bars() if team.is_first else nullcontext(no_progress) as report:
        card = run(
            settings,
            sources,
            out,
            name=name,
            weights=weight or (),
            readout=readout,
            start=find_adapter(start) if start else None,
            published=published,
            team=team,
            progress=report,
        )
    if card is None:
        return
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


def _moment(until: datetime | None, out: Path) -> datetime:
    """Return the end of what is learnt from: as given, or as it was when the run was started.

    Raises:
        DataError: the run's note of it is damaged, or cannot be written.
    """
    if until is not None:
        return until.replace(tzinfo=UTC)
    note = out / _UNTIL
    try:
        if note.exists():
            return datetime.fromisoformat(note.read_text(encoding="utf-8").strip())
        now = datetime.now(UTC)
        out.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{now.isoformat()}\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{note}: {error}: name the moment by --until") from error
    return now


def _behaviour(settings: "Settings", until: datetime) -> "ListSource":
    from reranker.training.store_source import StoreBehaviour
    from reranker.wiring import catalogue_file

    return StoreBehaviour(name="store", catalogue=catalogue_file(settings), until=until)


def _shown(settings: "Settings", until: datetime, out: Path, report: "Progress") -> "ListSource":
    """Grade the lists of the store, and estimate how often each of their places is looked at."""
    from eval.logs import LoggedLists, read_impressions
    from eval.position_bias.curves import position_based_em
    from eval.statistics.estimates import RefusedEstimate
    from reranker.training.shown_source import ShownLists
    from reranker.wiring import build_labels, catalogue_file

    file = out / "data" / f"lists.{os.getpid()}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    build_labels(settings, file, until, purpose="training", progress=report)
    impressions = tuple(read_impressions(file))
    file.unlink()  # pseudonyms and queries are left where a request to forget looks
    examination: tuple[float, ...] = ()
    try:
        bias = position_based_em(LoggedLists.from_impressions(impressions))
        examination = tuple(place.value for place in bias.examination)
        seen = ", ".join(f"{value:.2f}" for value in examination)
        console.print(f"places are looked at, beside the first: {seen}", style="dim")
    except (RefusedEstimate, DataError) as error:
        console.print(
            plain(f"clicks count alike in every place, as the bias is not known: {error}"),
            style="yellow",
            soft_wrap=True,
        )
    return ShownLists(
        name="shown",
        catalogue=catalogue_file(settings),
        impressions=impressions,
        examination=examination,
    )


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
    return (
        f"--set ranking.card_tokens={card.card_tokens} "
        f"--set profile.max_tokens={card.profile_tokens}"
    )


def _required(folder: Path, names: tuple[str, ...]) -> Path:
    found = _file(folder, names)
    if found is None:
        wanted = " or ".join(f"{name}{_FORMS[0]}" for name in names)
        raise DataError(f"{folder}: {wanted} is missing (.csv and .jsonl will do, too)")
    return found


def _file(folder: Path, names: tuple[str, ...]) -> Path | None:
    places = [folder / f"{name}{form}" for name in names for form in _FORMS]
    return next((place for place in places if place.is_file()), None)
