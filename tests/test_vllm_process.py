"""Starting and ending servers: the guard with small commands, the command line with real vLLM."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from processes import alive, until
from questions import ask, widest_gap
from reranker.cli.app import app
from reranker.errors import ConfigError
from reranker.models.adapter import CARD_FILE, WEIGHTS_FILE, AdapterCard, BaseModelCard
from reranker.models.asking import describe
from reranker.models.embedded import EmbeddedModel
from reranker.models.loading import load_causal_model
from reranker.models.merging import merge
from reranker.models.rendering import PromptRenderer, load_tokenizer
from reranker.models.stored_folder import file_sha256
from reranker.models.vllm import guard
from reranker.models.vllm.adapters import load_adapter, unload_adapter
from reranker.models.vllm.client import VLLMModel
from reranker.models.vllm.process import RunningServer
from reranker.schema import Prompt
from reranker.settings import ModelSettings, ServerSettings

pytestmark = pytest.mark.alone

KEY = "sesame"


SHELFWISE = [sys.executable, "-c", "from reranker.cli import main; main()"]


needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")


def serve(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*SHELFWISE, "llm", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SHELFWISE_SERVER__API_KEY": KEY},
    )


@needs_vllm
def test_a_port_in_use_is_named(smollm2_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = serve(str(smollm2_folder), "--port", port)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"--port {port}" in err
    assert "--port 0" in err
    assert not out


@needs_vllm
def test_a_failed_start_shows_the_log_and_the_remedy(smollm2_folder: Path) -> None:
    process = serve(str(smollm2_folder), "--port", "0", "--", "--no-such-flag")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 5
    assert "vLLM ended while it started (exit code 2); correct the arguments behind --" in err
    assert "unrecognized arguments: --no-such-flag" in err


@pytest.fixture(scope="module")
def adapter(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with random weights, loud enough to be heard."""
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, weight in load_file(smollm2_folder / "model.safetensors").items():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            rows, columns = weight.shape
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            weights[f"{stem}.lora_A.weight"] = 0.02 * torch.randn(4, columns, generator=generator)
            weights[f"{stem}.lora_B.weight"] = 0.2 * torch.randn(rows, 4, generator=generator)
    folder = tmp_path_factory.mktemp("adapter")
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(smollm2_folder),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def with_card(
    adapter: Path, folder: Path, base: str, *, scale: float, readout: str = "labels"
) -> Path:
    """Copy an adapter, its weights scaled, and give it the card that tuning would."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(adapter, folder)
    weights = load_file(folder / WEIGHTS_FILE)
    renderer = PromptRenderer(load_tokenizer(Path(base)))
    labels = describe(renderer, name=base, context_length=1).labels
    save_file({n: w * scale if "lora_B" in n else w for n, w in weights.items()},
              folder / WEIGHTS_FILE)  # fmt: skip
    card = AdapterCard(
        name=folder.name,
        created=datetime.now(UTC),
        base=BaseModelCard(name=base, fingerprint="0" * 64),
        readout=readout,  # type: ignore[arg-type]
        answer=labels,
        templates=(),
        card_tokens=48,
        profile_tokens=256,
        candidates=20,
        validation={},
        training={},
        weights_sha256=file_sha256(folder / WEIGHTS_FILE),
    )
    (folder / CARD_FILE).write_text(card.model_dump_json(), encoding="utf-8")
    return folder


def merged_scores(
    folder: Path, adapter: Path, prompts: Sequence[Prompt]
) -> list[tuple[float, ...]]:
    """Ask the model of a folder in this process, an adapter merged into it."""
    from reranker.models.prefill import CausalScorer  # loads torch

    model = load_causal_model(folder, "float32")
    merge(model, adapter)
    renderer = PromptRenderer(load_tokenizer(folder))
    return CausalScorer(model, prefixes=0).score([renderer.render(one) for one in prompts])


def best_first(logprobs: Sequence[float]) -> list[int]:
    return sorted(range(len(logprobs)), key=lambda slot: -logprobs[slot])


@pytest.fixture(scope="module")
def command_line(
    smollm2_folder: Path, adapter: Path
) -> "Iterator[tuple[subprocess.Popen[str], ServerSettings]]":
    """`shelfwise llm serve` with an adapter and an API key; it is up in half a minute."""
    options = ["--dtype", "float32", "--kv-cache-gib", "1", "--context-length", "1024"]
    process = serve(
        str(smollm2_folder),
        "--name",
        "base",
        "--port",
        "0",
        "--adapter",
        f"loud={adapter}",
        "--lora",
        *options,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True)
    reader.start()
    line = process.stdout.readline()
    assert "base is served at http://127.0.0.1:" in line, "".join(log)
    url = line.split(" at ")[1].split()[0].rstrip(".")
    yield process, ServerSettings(urls=(url,), api_key=KEY)
    process.kill()
    process.wait(30)
    reader.join(60)
    process.stdout.close()
    process.stderr.close()


@needs_vllm
class TestCommandLine:
    """One server, in this order: the last test kills it."""

    Running = tuple["subprocess.Popen[str]", ServerSettings]

    def test_an_adapter_is_asked_for_by_name(
        self, command_line: Running, smollm2_folder: Path, adapter: Path, model: EmbeddedModel
    ) -> None:
        _, settings = command_line
        named = ModelSettings(name=str(smollm2_folder))
        base = VLLMModel.load(named, settings)
        loud = VLLMModel.load(named, settings.model_copy(update={"adapter": "loud"}))
        assert loud.spec.adapter == "loud"
        prompts = [ask("labels", seed) for seed in range(2)]
        ours = anyio.run(model.read, prompts)
        assert widest_gap(anyio.run(base.read, prompts), ours) < 0.02
        served = anyio.run(loud.read, prompts)
        assert widest_gap(served, ours) > 0.1
        for one, merged in zip(
            served, merged_scores(smollm2_folder, adapter, prompts), strict=True
        ):
            assert one.logprobs == pytest.approx(merged, abs=0.02)
            assert best_first(one.logprobs) == best_first(merged)
        for one in (base, loud):
            assert one.spec.readouts == {"labels", "generate"}
            with pytest.raises(ConfigError, match=r"LoRA on .* merge the adapter"):
                anyio.run(one.read, [ask("verdict", 0)])
            anyio.run(one.aclose)

    def test_without_the_key_it_is_named(self, command_line: Running, smollm2_folder: Path) -> None:
        process, settings = command_line
        for wrong in (None, "wrong"):
            given = ServerSettings(urls=settings.urls, api_key=wrong)
            with pytest.raises(ConfigError, match=r"server\.api_key.*SHELFWISE_SERVER__API_KEY"):
                VLLMModel.load(ModelSettings(name=str(smollm2_folder)), given)
        for pid in [process.pid, *guard.descendants(process.pid)]:
            assert KEY not in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")

    def test_check_tells_what_works(self, command_line: Running, smollm2_folder: Path) -> None:
        _, settings = command_line
        arguments = ["llm", "check", settings.urls[0], "--model", str(smollm2_folder), "--json"]
        told = CliRunner(env={"SHELFWISE_SERVER__API_KEY": KEY}).invoke(app, arguments)
        report = json.loads(told.stdout)
        assert told.exit_code == 0, report
        statuses = {one["name"]: one["status"] for one in report["findings"]}
        assert statuses.pop("verdict") == "not offered"
        assert set(statuses.values()) == {"ok"}, report
        assert set(statuses) >= {"labels", "generate", "prefix cache", "adapters", "latency"}
        assert report["readouts"] == ["labels", "generate"]

    def test_check_tells_what_does_not(self, command_line: Running, smollm2_folder: Path) -> None:
        _, settings = command_line
        arguments = ["llm", "check", settings.urls[0], "--model", str(smollm2_folder)]
        told = CliRunner().invoke(app, arguments)
        assert told.exit_code == 5
        assert "server.api_key" in " ".join(told.stdout.split())

    def test_adapters_are_swapped_under_load_without_losing_a_request(
        self, command_line: Running, smollm2_folder: Path, adapter: Path, tmp_path: Path
    ) -> None:
        """Two adapters of one name take turns while the base and the adapter are asked."""
        _, settings = command_line
        settings = settings.model_copy(update={"timeout_s": 300.0})  # lost is not slow
        (url,) = settings.urls
        name = str(smollm2_folder)
        louder = with_card(adapter, tmp_path / "louder", name, scale=2.0)
        quiet = with_card(adapter, tmp_path / "quiet", name, scale=0.0)
        assert load_adapter(url, louder, settings, base=name, name="hot").done == "loaded"
        named = ModelSettings(name=name)
        base = VLLMModel.load(named, settings)
        hot = VLLMModel.load(named, settings.model_copy(update={"adapter": "hot"}))
        prompt = ask("labels", 7)

        async def under_load() -> list[tuple[float, ...]]:
            heard: list[tuple[float, ...]] = []
            over = anyio.Event()

            async def asking(model: VLLMModel) -> None:
                while not over.is_set():
                    (answer,) = await model.read([prompt])
                    if model is hot:
                        heard.append(answer.logprobs)

            async with anyio.create_task_group() as group:
                for model in (base, hot, hot):
                    group.start_soon(asking, model)
                for folder in (quiet, louder, quiet):
                    await anyio.sleep(0.5)
                    done = await anyio.to_thread.run_sync(
                        partial(load_adapter, url, folder, settings, base=name, name="hot")
                    )
                    assert done.done == "swapped"
                await anyio.sleep(0.5)
                over.set()
            (last,) = await hot.read([prompt])
            (plain,) = await base.read([prompt])
            assert (
                max(abs(a - b) for a, b in zip(last.logprobs, plain.logprobs, strict=True)) < 0.02
            )
            return heard

        heard = anyio.run(under_load)
        assert len({tuple(round(value, 1) for value in each) for each in heard}) >= 2
        assert unload_adapter(url, "hot", settings).done == "unloaded"
        with pytest.raises(ConfigError, match="has no such one; there are loud"):
            unload_adapter(url, "hot", settings)
        for model in (base, hot):
            anyio.run(model.aclose)

    def test_an_adapter_that_would_kill_the_engine_is_not_sent(
        self, command_line: Running, smollm2_folder: Path, adapter: Path, tmp_path: Path
    ) -> None:
        _, settings = command_line
        name = str(smollm2_folder)
        verdict = with_card(adapter, tmp_path / "verdict", name, scale=1.0, readout="verdict")
        with pytest.raises(ConfigError, match=r"kill vLLM's engine .* shelfwise adapter merge"):
            load_adapter(settings.urls[0], verdict, settings, base=name)
        with pytest.raises(ConfigError, match=r"was tuned for .* and model\.name is other"):
            load_adapter(
                settings.urls[0],
                with_card(adapter, tmp_path / "labels", name, scale=1.0),
                settings,
                base="other",
            )

    def test_nothing_is_left_when_all_hang_and_the_command_is_killed(
        self, command_line: Running
    ) -> None:
        process, _ = command_line
        (guarding,) = [
            pid
            for pid in guard.descendants(process.pid)
            if "guard.py" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
        ]
        below = guard.descendants(guarding)
        assert len(below) >= 2
        for pid in below:
            os.kill(pid, signal.SIGSTOP)
        process.kill()
        until(lambda: not any(map(alive, [guarding, *below])), seconds=60)


@needs_vllm
def test_a_running_server_knows_its_processes(vllm_server: RunningServer) -> None:
    assert vllm_server.exit_code is None
    assert all(map(alive, vllm_server.pids))
    assert len(vllm_server.pids) >= 2
    assert vllm_server.last_lines
    assert vllm_server.settings(timeout_s=3).urls == (vllm_server.url,)
