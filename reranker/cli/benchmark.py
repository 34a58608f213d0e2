"""`shelfwise benchmark`."""

import typer

benchmark = typer.Typer(help="Measure this machine.", no_args_is_help=True, rich_markup_mode=None)
