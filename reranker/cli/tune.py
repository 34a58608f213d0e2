"""`shelfwise tune`: tuning of the embedded model on purchases."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.options import ConfigOption, JsonOption, SetOption, StoreOption, load_settings
from reranker.cli.output import console, plain, print_json, progress_bars
from reranker.cli.tune_checks import check_arguments
from reranker.errors import ConfigError, DataError

if TYPE_CHECKING:
    from reranker.models.adapter import AdapterCard
    from reranker.ports import Progress
    from reranker.schema import Readout
    from reranker.settings import Settings
    from reranker.training.process_group import ProcessGroup
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
    often their place is looked at. Some shoppers of each source are held back to validate on
    (training.validation_shoppers), and no source that has the same ids learns from them. The
    adapter is for the verdict readout, or with ranking.readout=labels for that. The best one so far
    is always in OUT/adapter. Several GPUs share the lists of a step: accelerate launch
    --num_processes N $(command -v shelfwise) tune ...
    """
    from reranker.models.adapter import find_adapter
    from reranker.training.process_group import ProcessGroup
    from reranker.training.tuning import tune as run

    of_store = behaviour or shown
    given = {"--published": published, "--until": until is not None}
    misfits = [] if of_store else [option for option, there in given.items() if there]
    wanted = len(folders or ()) + behaviour + shown
    check_arguments(out, name, weight or (), wanted, misfits)
    settings, processes = load_settings(config, store, sets), ProcessGroup()
    sources: list[ListSource] = [files_in(folder) for folder in folders or ()]
    if of_store:
        moment = processes.agree(_moment(until, out) if processes.is_first else None)
        store_lists = _StoreLists(settings, moment, out, processes)
        sources += store_lists.of(behaviour=behaviour, shown=shown)
    if settings.ranking.readout == "generate":
        raise ConfigError("ranking.readout = generate: tuning is for verdict (or auto) and labels")
    readout: Readout = "labels" if settings.ranking.readout == "labels" else "verdict"
    with _reporting(processes) as report:
        card = run(
            settings,
            sources,
            out,
            name=name,
            weights=weight or (),
            readout=readout,
            start=find_adapter(start) if start else None,
            published=published,
            processes=processes,
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
    from retrieval.files import replacing

    note = out / _UNTIL
    try:
        if note.exists():
            return datetime.fromisoformat(note.read_text(encoding="utf-8").strip())
        now = datetime.now(UTC)
        out.mkdir(parents=True, exist_ok=True)
        with replacing(note) as temporary:
            temporary.write_text(f"{now.isoformat()}\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{note}: {error}: name the moment by --until") from error
    return now


def _reporting(processes: "ProcessGroup") -> AbstractContextManager["Progress"]:
    """Show the progress of the first of several processes."""
    from reranker.ports import no_progress

    return progress_bars() if processes.is_first else nullcontext(no_progress)


@dataclass(frozen=True)
class _StoreLists:
    """What of a store's behaviour before a moment can be learnt from."""

    settings: "Settings"
    until: datetime
    out: Path
    processes: "ProcessGroup"

    def of(self, *, behaviour: bool, shown: bool) -> "list[ListSource]":
        """Return its purchases, and the lists that its shoppers were shown."""
        found = [self._purchases()] if behaviour else []
        if shown:
            with _reporting(self.processes) as report:
                found.append(self._shown(report))
        return found

    def _purchases(self) -> "ListSource":
        from reranker.training.store_source import StoreBehaviour
        from reranker.wiring import catalogue_file

        file = catalogue_file(self.settings)
        return StoreBehaviour(name="store", catalogue=file, until=self.until)

    def _shown(self, report: "Progress") -> "ListSource":
        """Grade the lists shown, and estimate how often each of their places is looked at."""
        from eval.logs import LoggedLists, read_impressions
        from eval.position_bias.curves import position_based_em
        from eval.statistics.estimates import RefusedEstimate
        from reranker.training.shown_source import ShownLists
        from reranker.wiring import build_labels, catalogue_file

        file = self.out / "data" / f"lists.{self.processes.rank}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            build_labels(self.settings, file, self.until, purpose="training", progress=report)
            impressions = tuple(read_impressions(file))
        finally:  # pseudonyms and queries are left where a request to forget looks
            file.unlink(missing_ok=True)
        examination: tuple[float, ...] = ()
        try:
            bias = position_based_em(LoggedLists.from_impressions(impressions))
            examination = tuple(place.value for place in bias.examination)
            seen = ", ".join(f"{value:.2f}" for value in examination)
            if self.processes.is_first:
                console.print(f"places are looked at, beside the first: {seen}", style="dim")
        except (RefusedEstimate, DataError) as error:
            if self.processes.is_first:
                console.print(
                    plain(f"clicks count alike in every place, as the bias is not known: {error}"),
                    style="yellow",
                    soft_wrap=True,
                )
        return ShownLists(
            name="shown",
            catalogue=catalogue_file(self.settings),
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
