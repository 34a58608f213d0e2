import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reranker.errors import ModelUnavailable
from reranker.models.stored_folder import MANIFEST, build_once, defect
from toy_packages import FILES, fill, names


@pytest.mark.parametrize("content", [None, "", "{}", '{"source": "s", "files": {"a": 1}}'])
def test_a_folder_without_a_sound_manifest_is_built_again(
    tmp_path: Path, content: str | None
) -> None:
    folder = build_once(tmp_path / "toy", "s", fill)
    manifest = folder / MANIFEST
    if content is None:
        manifest.unlink()
    else:
        manifest.write_text(content)
    assert defect(folder, "s") is not None
    build_once(folder, "s", fill)
    assert defect(folder, "s") is None


def test_another_source_is_another_folder(tmp_path: Path) -> None:
    build_once(tmp_path / "toy", "version 1", fill)
    assert defect(tmp_path / "toy", "version 2") == "it was built from version 1, not version 2"
    build_once(tmp_path / "toy", "version 2", fill)
    assert defect(tmp_path / "toy", "version 2") is None


KILLED = """
import sys, time
from pathlib import Path
from reranker.models.stored_folder import build_once

def make(content, work):
    (content / "config.json").write_text("half")
    print("building", flush=True)
    time.sleep(60)

build_once(Path(sys.argv[1]), "s", make)
"""


def test_a_killed_build_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        process.send_signal(signal.SIGKILL)
    assert not folder.exists()
    assert names(tmp_path) == [f"toy.partial-{process.pid}", f"toy.partial-{process.pid}.work"]
    build_once(folder, "s", fill)
    assert names(tmp_path) == ["toy"]
    assert (folder / "config.json").read_bytes() == FILES["config.json"]


def test_two_at_once_build_once(tmp_path: Path) -> None:
    made, told = [], []

    def slow(content: Path, work: Path) -> None:
        made.append(content)
        time.sleep(0.3)
        fill(content, work)

    def run() -> None:
        build_once(tmp_path / "toy", "s", slow, progress=lambda *step: told.append(step))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert told == [("waiting for another process that fetches toy", 0, 0)] * 2


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    def overflow(content: Path, _work: Path) -> None:
        (content / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ModelUnavailable, match=r"toy: the disk is full.*SHELFWISE_CACHE"):
        build_once(tmp_path / "toy", "s", overflow)
    with pytest.raises(ModelUnavailable, match=r"needs \d+ MB and the disk has"):
        build_once(tmp_path / "toy", "s", fill, needs=1 << 60)
    assert names(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelUnavailable, match=r"cannot be written.*SHELFWISE_CACHE"):
        build_once(tmp_path / "file" / "toy", "s", fill)
