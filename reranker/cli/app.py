"""The root command: its sub-commands, and how errors end."""

import json
import logging
import sys
from typing import NoReturn

import typer

from reranker.cli import (
    adapter,
    config,
    demo,
    evaluate,
    events,
    interest,
    labels,
    llm,
    privacy,
    profiles,
    search,
    store,
    tune,
)
from reranker.cli.benchmarks import benchmark
from reranker.cli.output import errors, plain
from reranker.errors import (
    ConfigError,
    DataError,
    IndexMismatchError,
    ModelError,
    ShelfwiseError,
)

_EXIT_CODES: tuple[tuple[type[ShelfwiseError], int], ...] = (
    (ConfigError, 2),
    (DataError, 3),
    (IndexMismatchError, 4),
    (ModelError, 5),
    (ShelfwiseError, 1),
)

_DUCKDB_INTERRUPTED = "Query interrupted"
"""What DuckDB makes of Ctrl-C."""

app = typer.Typer(
    name="shelfwise",
    help="Re-rank a shop's search results for each shopper with an open LLM.",
    epilog="Exit codes: 0 done, 1 refused by the operating system, 2 wrong setting or argument, "
    "3 unusable data, 4 index of another model, 5 language model not available, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(store.catalogue, name="catalogue")
app.add_typer(events.behaviour, name="behaviour")
app.add_typer(labels.labels, name="labels")
app.add_typer(privacy.privacy, name="privacy")
app.add_typer(store.index, name="index")
app.add_typer(interest.interest, name="interest")
app.add_typer(llm.llm, name="llm")
app.command("profile")(profiles.profile)
app.command("search")(search.search)
app.command("demo")(demo.demo)
app.command("config")(config.config)
app.command("tune")(tune.tune)
app.add_typer(adapter.adapter, name="adapter")
app.add_typer(evaluate.evaluate, name="evaluate")
app.add_typer(benchmark, name="benchmark")


def _wants_json(words: list[str]) -> bool:
    """Tell whether the caller reads JSON: of `evaluate` itself --json names a file."""
    place = words.index("--json") if "--json" in words else len(words)
    of_a_file = words[:1] == ["evaluate"] and words[1:2] not in (
        ["check"],
        ["convert"],
        ["rankers"],
    )
    return place < len(words) and not of_a_file


def _end_interrupted() -> NoReturn:
    errors.print("interrupted")
    sys.exit(130)


def _tell(name: str, message: str) -> None:
    if _wants_json(sys.argv[1:]):
        body = {"error": name, "message": message}
        typer.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
    else:
        errors.print(plain(f"{name}: {message}"), style="red", soft_wrap=True)


def main() -> None:
    """Run the command line and turn Shelfwise's errors into a message and an exit code."""
    # Where it is installed other libraries import it, and it advises on packages not needed here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        app()
    except ShelfwiseError as error:
        _tell(type(error).__name__, str(error))
        sys.exit(next(code for kind, code in _EXIT_CODES if isinstance(error, kind)))
    except OSError as error:
        if error.filename is None:  # of no file that somebody named
            raise
        _tell("OSError", f"{error.filename}: {error.strerror}")
        sys.exit(1)
    except KeyboardInterrupt:
        _end_interrupted()
    except RuntimeError as error:
        if str(error) != _DUCKDB_INTERRUPTED:
            raise
        _end_interrupted()
