"""`shelfwise benchmark training`: a step of tuning beside the loop that peft alone makes."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from reranker.cli.options import ConfigOption, JsonOption, SetOption, load_settings
from reranker.cli.output import console, print_json, progress_bars
from reranker.cli.tune import files_in


def training(
    folder: Annotated[Path, typer.Argument(help="Folder of purchases, as for shelfwise tune.")],
    lists: Annotated[int, typer.Option(min=1, help="Lists of a step.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Times that both take turns.")] = 3,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time steps of tuning against a bare peft loop over the same lists."""
    from reranker.training.tuning import compare

    given = load_settings(config, None, sets)
    settings = given.model_copy(
        update={"training": given.training.model_copy(update={"batch": lists})}
    )
    with progress_bars() as report, TemporaryDirectory() as work:
        found = compare(settings, files_in(folder), Path(work), rounds=rounds, progress=report)
    if as_json:
        print_json(found)
        return
    mean = found.tokens / found.rounds
    for name, seconds, peak in (
        ("shelfwise", found.ours, found.peak_mib),
        ("bare peft loop", found.bare, found.bare_peak_mib),
    ):
        memory = "" if peak is None else f", peak {peak:,.0f} MiB"
        console.print(
            f"{name:15} {seconds:7.2f} s a step of {found.lists} lists, "
            f"{mean / seconds:6.0f} tokens/s{memory}"
        )
    console.print(
        f"ratio {found.ratio:.2f} over {found.rounds} rounds (a whole step of ours, lists put into "
        "tokens in it; theirs are tokens already)"
    )
