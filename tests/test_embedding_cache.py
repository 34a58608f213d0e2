"""The cache of vectors: what is put is found, and what is damaged is not trusted."""

import logging
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reranker.errors import DataError, IndexMismatchError
from retrieval.embedding_cache import EmbeddingCache


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path, "model", 4)


def _rows(*hashes: int) -> tuple[np.ndarray, np.ndarray]:
    keys = np.array(hashes, np.uint64)
    return keys, np.repeat(keys.astype(np.float32)[:, None], 4, axis=1)


def test_the_cache_returns_what_was_put(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache.put(*_rows(5, 1, 2**63 + 7))
    cache.put(*_rows(3))
    for opened in (cache, EmbeddingCache(tmp_path, "model", 4)):
        wanted, vectors = _rows(3, 2**63 + 7, 5, 3)
        np.testing.assert_array_equal(opened.get(wanted), vectors)
        assert opened.missing(_rows(9, 1, 4, 9)[0]).tolist() == [4, 9]
        assert len(opened) == 4
        with pytest.raises(DataError, match="index build"):
            opened.get(_rows(4)[0])


@pytest.fixture(params=["cut short", "one bit", "empty", "half written"])
def damage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Damage the second of two shards in one of the ways that happen."""
    cache = EmbeddingCache(tmp_path, "model", 4)
    cache.put(*_rows(1, 2))
    cache.put(*_rows(3, 4))
    first, second = sorted(tmp_path.glob("*.npy"))
    content = bytearray(second.read_bytes())
    content[-3] ^= 1
    match request.param:
        case "cut short":
            second.write_bytes(second.read_bytes()[:-5])
        case "one bit":
            second.write_bytes(content)
        case "empty":
            second.write_bytes(b"")
        case _:
            second.rename(second.with_suffix(".npy.abc.tmp"))
    yield
    assert first.exists()


@pytest.fixture
def few_files(tmp_path: Path) -> Iterator[None]:
    """Let hardly more files be opened than are open already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (tmp_path / "next").open("wb") as following:
        resource.setrlimit(resource.RLIMIT_NOFILE, (following.fileno() + 9, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_shard_that_cannot_be_read_stays(
    cache: EmbeddingCache, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for number in range(30):
        cache.put(*_rows(number))
    request.getfixturevalue("few_files")
    with pytest.raises(DataError, match=r"\d-.*\.npy: the vectors cannot be read \(Too many"):
        EmbeddingCache(tmp_path, "model", 4)
    assert len(list(tmp_path.glob("*.npy"))) == 30


@pytest.mark.usefixtures("damage")
def test_a_damaged_shard_is_never_trusted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    with caplog.at_level(logging.WARNING):
        cache = EmbeddingCache(tmp_path, "model", 4)
    assert cache.missing(_rows(1, 2, 3, 4)[0]).tolist() == [3, 4]
    half_written = "half written" in request.node.name
    assert half_written or "corrupt" in caplog.text
    assert not list(tmp_path.glob("*.tmp"))
    cache.put(*_rows(3, 4))
    again = EmbeddingCache(tmp_path, "model", 4)
    np.testing.assert_array_equal(again.get(_rows(4, 1)[0]), _rows(4, 1)[1])


def test_many_small_shards_become_one(cache: EmbeddingCache, tmp_path: Path) -> None:
    for number in range(70):
        cache.put(*_rows(number))
    assert len(list(tmp_path.glob("*.npy"))) == 70
    again = EmbeddingCache(tmp_path, "model", 4)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    np.testing.assert_array_equal(again.get(_rows(*range(70))[0]), _rows(*range(70))[1])


@pytest.mark.parametrize(("model", "dimension"), [("other", 4), ("model", 5)])
def test_a_cache_belongs_to_one_model(
    cache: EmbeddingCache, tmp_path: Path, model: str, dimension: int
) -> None:
    cache.put(*_rows(1))
    with pytest.raises(IndexMismatchError, match=r"cache\.json.*another model"):
        EmbeddingCache(tmp_path, model, dimension)
