"""`shelfwise llm`: start a vLLM server for a model, and prove that one is fit."""

import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.options import ConfigOption, JsonOption, SetOption, load_settings, pairs
from reranker.cli.output import console, errors, plain, print_json
from reranker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reranker.models.vllm.check import CheckReport
    from reranker.models.vllm.launch import ServeOptions
    from reranker.models.vllm.process import RunningServer
    from reranker.ports import Progress

_LOG_SECONDS = 10.0
_SERVING = """\
{name} is served at {url}
To rank with it: shelfwise search "..." --set server.urls={url} --set model.name={model}
To see what it is fit for: shelfwise llm check {url} --model {model}"""

llm = typer.Typer(help="Serve the language model with vLLM.", no_args_is_help=True)


@llm.command("serve")
def serve(
    model: Annotated[
        str | None,
        typer.Argument(help="Built-in name, folder or hub id. [setting model.name]"),
    ] = None,
    extra: Annotated[
        list[str] | None, typer.Argument(help="Behind --: arguments of vLLM's server.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="By which clients ask for it. [default: the model's]")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Load a LoRA adapter; may be repeated."),
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Take adapters at run time too.")] = False,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto",
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--cpu", help="[default: a GPU where there is one]")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Prompt and answer together, in tokens.")
    ] = None,
    kv_cache_gib: Annotated[
        int | None, typer.Option(help="Memory for cached keys and values, without a GPU.")
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
) -> None:
    """Start vLLM with the flags that suit this machine, and end it with everything that is its.

    The API key, if there is to be one, comes from the setting server.api_key.
    """
    from reranker.models.vllm.process import start_server

    settings = load_settings(config, None, sets)
    further = list(extra or ())
    if model is not None and model.startswith("-"):  # there is only what stands behind --
        further.insert(0, model)
        model = None
    options = _options(
        model=model or settings.model.name,
        name=name,
        host=host,
        port=port,
        adapters=pairs(adapter, "--adapter"),
        lora=lora,
        dtype=dtype,
        device={None: "auto", True: "gpu", False: "cpu"}[gpu],
        context_length=context_length,
        kv_cache_gib=kv_cache_gib,
        api_key=settings.server.api_key,
        extra=tuple(further),
    )
    signal.signal(signal.SIGTERM, _end)
    with ExitStack() as resources:
        with _start_line() as report:
            server = resources.enter_context(start_server(options, progress=report))
        console.print(
            _SERVING.format(name=server.name, url=server.url, model=options.model),
            markup=False,
            soft_wrap=True,
        )
        code = _attend(server)
    raise typer.Exit(code)


@llm.command("check")
def check(
    url: Annotated[
        str | None, typer.Argument(help="Base URL. [setting server.urls, the first]")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model that it should serve. [setting model.name]")
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove a server fit for ranking; the exit code is 0 if at least one readout works."""
    import anyio

    from reranker.models.vllm.check import ServerCheck

    settings = load_settings(config, None, sets)
    address = url or next(iter(settings.server.urls), None)
    if address is None:
        raise ConfigError("name the server: shelfwise llm check URL, or set server.urls")
    named = settings.model.model_copy(update={"name": model} if model else {})
    report = anyio.run(ServerCheck(address, named, settings.server).run)
    if as_json:
        print_json(report)
    else:
        _show(report)
    raise typer.Exit(0 if report.usable else 5)


def _options(**fields: object) -> "ServeOptions":
    from pydantic import ValidationError

    from reranker.models.vllm.launch import ServeOptions

    try:
        return ServeOptions.model_validate(fields)
    except ValidationError as error:
        lines = [
            f"--{str(problem['loc'][0]).replace('_', '-')}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from None


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _attend(server: "RunningServer") -> int:
    """Show vLLM's log and pass signals on until it ends; return its exit code."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        server.signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    server.echo = lambda line: errors.print(line, markup=False, soft_wrap=True)
    return server.wait()


@contextmanager
def _start_line() -> "Iterator[Progress]":
    """Show how far the start is: one changing line in a terminal, else one every ten seconds."""
    last = -_LOG_SECONDS

    def line(stage: str, done: int, total: int) -> str:
        amount = f"{done:,} of {total:,}" if total else f"{done} s"
        return plain(f"{stage} ({amount})")

    def log(stage: str, done: int, total: int, /) -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_SECONDS:
            last = time.monotonic()
            errors.print(line(stage, done, total), soft_wrap=True)

    if not errors.is_terminal:
        yield log
        return
    with errors.status("starting") as status:
        yield lambda stage, done, total, /: status.update(line(stage, done, total))


def _show(report: "CheckReport") -> None:
    styles = {"ok": "green", "failed": "red", "not offered": "yellow"}
    table = Table("Looked at", "", "Found", box=None, pad_edge=False)
    for one in report.findings:
        table.add_row(one.name, f"[{styles[one.status]}]{one.status}[/]", plain(one.detail))
    console.print(table)
    can = ", ".join(report.readouts)
    console.print(f"{report.url}: " + (f"fit for {can}" if can else "not fit for ranking"))
