"""Who may read the files that are written."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from profile_cases import NOW, TABLE, Words
from reranker.settings import ProfileSettings
from retrieval.behaviour import BehaviourStore
from retrieval.files import replacing
from retrieval.labels import build_labels
from retrieval.privacy.traces import write_shoppers
from retrieval.profiles import DuckDBProfileStore
from retrieval.profiles.export import export_profiles
from retrieval.profiles.written import WrittenSummaries, WrittenSummary
from snapshot_cases import fill


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0o000], indirect=True)
def test_the_umask_decides(tmp_path: Path, umask: int) -> None:
    for private, expected in ((False, 0o666 & ~umask), (True, 0o600)):
        for _ in range(2):
            with replacing(tmp_path / "a", private=private) as temporary:
                temporary.write_text("new")
            assert mode(tmp_path / "a") == expected
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("umask", [0o000], indirect=True)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_what_is_about_shoppers_is_its_owner_s_alone(
    tmp_path: Path, umask: int, suffix: str
) -> None:
    with BehaviourStore(tmp_path / "store") as store:
        fill(store)
        maker = DuckDBProfileStore(store, TABLE, ProfileSettings(), Words())
        export_profiles(maker.all_profiles(NOW), tmp_path / f"profiles.{suffix}")
        build_labels(store, tmp_path / "labels.parquet", NOW)
        shopper = store.pseudonym("anna")
        write_shoppers(tmp_path, [shopper])
    summary = WrittenSummary(key="k", model="m", language="en", sentences=())
    WrittenSummaries(tmp_path, maker._builder.summariser).save(shopper.hex, summary)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    found = {file.name: mode(file) for file in files if file.parent.name != "store"}
    assert len(found) == 4
    assert set(found.values()) == {0o600}


def test_labels_are_their_owner_s_alone_while_they_are_written(tmp_path: Path) -> None:
    seen = {}

    def look(stage: str, done: int, of: int) -> None:
        seen.update({file.stat().st_ino: mode(file) for file in tmp_path.glob("labels*")})

    with BehaviourStore(tmp_path / "store") as store:
        fill(store)
        build_labels(store, tmp_path / "labels.parquet", NOW, progress=look)
    # DuckDB writes into the file that was made private when it was empty, not into another.
    assert seen == {(tmp_path / "labels.parquet").stat().st_ino: 0o600}
