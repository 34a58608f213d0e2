"""`shelfwise benchmark faults`: searches under load while the model's server fails."""

import os
import signal
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from anyio import to_thread
from rich.table import Table

from reranker.cli.benchmarks.shop import lists_of, served_by
from reranker.cli.options import ConfigOption, JsonOption, SetOption, StoreOption, load_settings
from reranker.cli.output import console, print_json, progress_bars

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from eval.benchmarks.fault_proxy import Fault, FaultProxy
    from eval.benchmarks.faults import FaultPhase, FaultRun, ServerFault
    from reranker.models.vllm.process import RunningServer
    from reranker.ports import Progress
    from reranker.settings import Settings

_PROXY_FAULTS: tuple[tuple["Fault", str], ...] = (
    ("garbage", "answers garbage"),
    ("error", "answers 500"),
    ("slow", "answers after 5 s"),
    ("refuse", "drops connections"),
)


def faults(
    deadline_ms: Annotated[int, typer.Option(min=50, help="Of each search.")] = 2000,
    concurrency: Annotated[int, typer.Option(min=1, help="Searches under way at a time.")] = 20,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each phase.")] = 8.0,
    window: Annotated[int, typer.Option(min=2, help="Candidates that the model judges.")] = 5,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Kill, freeze and disturb a real vLLM server under a load of searches with a deadline.

    The process is killed and started again, stopped and continued; a proxy before it answers
    garbage, answers 500, answers late, and drops connections. Searches go through the whole
    pipeline over the store, for which the demo's will do. On a small machine a small window keeps
    the model able to answer so many searches within the deadline.
    """
    import anyio

    settings = load_settings(config, store, sets)
    ranking = settings.ranking.model_copy(
        update={"depth": window, "window": max(window, 2), "shuffles": 1, "min_label_mass": 0.0}
    )
    settings = settings.model_copy(update={"ranking": ranking})
    with progress_bars() as report:
        harness = _Harness(settings, report)
        try:
            result = anyio.run(harness.run, deadline_ms, concurrency, seconds)
        finally:
            harness.close()
    if as_json:
        print_json(result)
    else:
        _show(result)


class _Harness:
    """A server that can be killed and started again on its port, and a proxy before it."""

    def __init__(self, settings: "Settings", report: "Progress") -> None:
        self._settings = settings
        self._report = report
        self._port = 0
        self._start()

    def _start(self) -> None:
        from reranker.models.vllm.launch import ServeOptions
        from reranker.models.vllm.process import start_server

        options = ServeOptions(model=self._settings.model.name, port=self._port)
        self._context: AbstractContextManager[RunningServer] = start_server(
            options, progress=self._report
        )
        self._server = self._context.__enter__()
        self._port = urlsplit(self._server.url).port or 0

    def close(self) -> None:
        self._context.__exit__(None, None, None)

    async def run(self, deadline_ms: int, concurrency: int, seconds: float) -> "FaultRun":
        from eval.benchmarks.fault_proxy import FaultProxy
        from eval.benchmarks.faults import FaultRun, fault_run
        from reranker.models.vllm.client import VLLMModel
        from reranker.wiring import build

        async with FaultProxy("127.0.0.1", self._port) as proxy:
            served = served_by(self._settings, self._server.url)
            model = VLLMModel.load(served.model, served.server)
            lists = lists_of(served, model, 50, self._report)
            # As many as one window holds: more places would take several, one after the other.
            changed = {"deadline_ms": deadline_ms, "k": served.ranking.window}
            requests = [entry.request.model_copy(update=changed) for entry in lists]
            served = served_by(self._settings, proxy.url)
            # In a thread: the proxy answers in this one.
            model = await to_thread.run_sync(VLLMModel.load, served.model, served.server)
            with build(served, model=model) as shelf:
                phases = await fault_run(
                    shelf,
                    requests,
                    self._faults(proxy),
                    seconds=seconds,
                    concurrency=concurrency,
                    progress=self._report,
                )
        return FaultRun(deadline_ms=deadline_ms, concurrency=concurrency, phases=phases)

    def _faults(self, proxy: "FaultProxy") -> "list[ServerFault]":
        from eval.benchmarks.faults import ServerFault

        async def mend() -> None:
            proxy.set(None)

        def by_proxy(kind: "Fault", name: str) -> ServerFault:
            async def begin() -> None:
                proxy.set(kind)

            return ServerFault(name=name, begin=begin, end=mend)

        return [
            ServerFault(name="process frozen", begin=self._freeze, end=self._thaw),
            *(by_proxy(kind, name) for kind, name in _PROXY_FAULTS),
            ServerFault(name="process killed", begin=self._kill, end=self._restart),
        ]

    async def _freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    async def _thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    async def _restart(self) -> None:
        await to_thread.run_sync(self.close)
        await to_thread.run_sync(self._start)

    def _signal(self, number: int) -> None:
        for pid in self._server.pids:
            os.kill(pid, number)


def _show(result: "FaultRun") -> None:
    table = Table(
        "Phase",
        "Searches",
        "Failed",
        "Not whole",
        "Recall cut short",
        "By the model",
        "Median ms",
        "Latest beyond deadline, ms",
        "Model back after, s",
        box=None,
        pad_edge=False,
    )
    for phase in result.phases:
        table.add_row(*_row(phase))
    console.print(table)
    console.print(
        f"{result.concurrency} searches at a time, deadline {result.deadline_ms} ms", style="dim"
    )


def _row(phase: "FaultPhase") -> tuple[str, ...]:
    back = f"{phase.recovery_s:.1f}" if phase.recovery_s is not None else ""
    return (
        phase.name,
        str(phase.searches),
        str(phase.failed),
        str(phase.incomplete),
        str(phase.cut_short),
        f"{phase.by_model / max(phase.searches, 1):.0%}",
        f"{phase.p50_ms:.0f}",
        f"{phase.latest_ms:+.0f}",
        back,
    )
