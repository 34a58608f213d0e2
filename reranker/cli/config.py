"""`shelfwise config`."""

import json
from typing import Any

import typer
from rich.table import Table

from reranker.cli.options import ConfigOption, JsonOption, SetOption, StoreOption, arguments
from reranker.cli.output import console, plain


def config(
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the settings in force and where each value came from."""
    from reranker.settings import CONFIG_FILE, ENV_PREFIX, Settings, flatten, origins

    given = arguments(store, sets)
    values = dict(flatten(Settings.load(config, given).model_dump(mode="json")))
    sources = origins(config, given)
    if as_json:
        rows = {name: {"value": value, "origin": sources[name]} for name, value in values.items()}
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table("Setting", "Value", "From", "Meaning", box=None, pad_edge=False)
    for name, value in values.items():
        origin = sources[name]
        style = "dim" if origin == "default" else "bold"
        shown = "none" if value is None else str(value)
        table.add_row(name, f"[{style}]{plain(shown)}[/]", origin, _meaning(name))
    console.print(table)
    console.print(
        f"\nSet a value in {CONFIG_FILE}, then by {ENV_PREFIX}MODEL__NAME=..., "
        "then by --set model.name=...; the later wins.",
        style="dim",
    )


def _meaning(name: str) -> str:
    from reranker.settings import Settings

    section, leaf = name.split(".")
    model: Any = Settings.model_fields[section].annotation
    return str(model.model_fields[leaf].description)
