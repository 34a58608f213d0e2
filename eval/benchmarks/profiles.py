"""How fast behaviour is imported and profiles are made, at the size of a large shop.

The events are synthetic: a few shoppers do much, most do little; a few products draw most of the
attention. They go through the real import, from a Parquet file, and the profiles are those that
serving makes.
"""

import resource
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
from pydantic import Field, SecretStr

from eval.benchmarks.row import Row
from reranker.ports import Progress, no_progress
from reranker.schema import Product, Value
from reranker.settings import PrivacySettings, ProfileSettings
from retrieval.behaviour import FILE_NAME, BehaviourStore
from retrieval.product_table import ProductTable
from retrieval.profiles import DuckDBProfileStore
from retrieval.profiles.export import export_profiles

PRIVACY = PrivacySettings(key=SecretStr("of the generated shoppers"))
"""The key of the store that is built here: of nobody who lives."""
_YEAR_END = datetime(2026, 1, 1, tzinfo=UTC)
_STEPS = 7
_LEAST_RATIO, _MOST_MS, _MOST_MB = 0.5, 10, 2048
"""The targets."""
_SHARES = (
    ("impression", 0.45),
    ("view", 0.75),
    ("click", 0.88),
    ("search", 0.92),
    ("favourite", 0.94),
    ("cart", 0.97),
    ("purchase", 1.0),
)


class ProfileBenchmark(Value):
    """What was measured.

    Attributes:
        import_rate: events a second through the real import.
        import_ratio: that rate by the rate of a bare ``INSERT .. SELECT`` of the same file into
            an unsorted table, in the same run.
        import_cpu_ratio: the same by processor seconds, which other processes disturb less.
        everyone: profiles made of all shoppers in one pass; None where that was not asked for.
        everyone_seconds: that it took, until they were in a Parquet file.
        peak_rss_mb: highest resident memory of the whole process so far.
    """

    events: int
    shoppers: int
    products: int
    profiles: int = Field(ge=1)
    import_rate: float
    import_ratio: float
    import_cpu_ratio: float
    profile_p50_ms: float
    profile_p95_ms: float
    profile_p99_ms: float
    summary_tokens_mean: float
    popular_ms: float
    everyone: int | None = None
    everyone_seconds: float | None = None
    peak_rss_mb: float

    def rows(self) -> tuple[Row, ...]:
        """Return the figures as lines for people."""
        return (*self.lines(), *self._pass(), self._memory())

    def lines(self) -> tuple[Row, ...]:
        """Return those of the import and of single profiles."""
        return (
            Row(
                name="events imported per second",
                value=f"{self.import_rate:,.0f}",
                beside=f"{self.import_ratio:.2f} of a bare INSERT .. SELECT "
                f"({self.import_cpu_ratio:.2f} by processor time)",
                target=">= .5",
                met=self.import_ratio >= _LEAST_RATIO,
            ),
            Row(
                name=f"profile p50 / p95 at {self.events:,} events",
                value=f"{self.profile_p50_ms:.1f} / {self.profile_p95_ms:.1f} ms",
                target="p95 < 10 ms",
                met=self.profile_p95_ms < _MOST_MS,
            ),
        )

    def _pass(self) -> tuple[Row, ...]:
        if not self.everyone or not self.everyone_seconds:
            return ()
        return (
            Row(
                name="profiles of all shoppers in one pass",
                value=f"{self.everyone:,} in {self.everyone_seconds:.0f} s",
                beside=f"{self.everyone / self.everyone_seconds:,.0f} a second, written to Parquet",
            ),
        )

    def _memory(self) -> Row:
        return Row(
            name="peak memory of the whole run",
            value=f"{self.peak_rss_mb:,.0f} MB",
            target="< 2,048 MB",
            met=self.peak_rss_mb < _MOST_MB,
        )


class _WordTokenizer:
    """Counts words: the model's own tokenizer is measured elsewhere."""

    def count(self, text: str) -> int:
        return len(text.split())

    def count_all(self, texts: Sequence[str]) -> list[int]:
        return [self.count(text) for text in texts]

    def truncate(self, text: str, max_tokens: int) -> str:
        return " ".join(text.split()[:max_tokens])


def benchmark_profiles(
    folder: Path,
    *,
    events: int = 10_000_000,
    shoppers: int = 100_000,
    products: int = 1_000_000,
    profiles: int = 500,
    everyone: bool = False,
    seed: int = 0,
    progress: Progress = no_progress,
) -> ProfileBenchmark:
    """Build the store in a folder, unless it is there from an earlier run, and measure.

    Args:
        folder: takes about 1 GB for ten million events; what is in it already is used again,
            except for the behaviour store, since its import is measured.
        events: number of events in a year.
        shoppers: number of shoppers, of whom a few do most.
        products: number of products.
        profiles: number of profiles timed, of shoppers drawn evenly.
        everyone: also make the profiles of all shoppers in one pass, into a file.
        seed: of everything drawn.
        progress: told what is being done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress("generating events", 0, _STEPS)
    source = folder / f"events-{events}-{shoppers}-{products}-{seed}.parquet"
    if not source.exists():
        _generate(source, events, shoppers, products, seed)
    progress("building the catalogue", 1, _STEPS)
    table = _catalogue(folder / f"products-{products}.arrow", products)
    progress("inserting without order or checks", 2, _STEPS)
    bare_seconds, bare_cpu = _bare_insert(folder / "bare.duckdb", source)
    progress("importing", 3, _STEPS)
    _remove(folder / FILE_NAME)
    with BehaviourStore(folder, privacy=PRIVACY) as store:
        wall, cpu = time.perf_counter(), time.process_time()
        store.import_events([source])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        progress("making profiles", 4, _STEPS)
        maker = DuckDBProfileStore(store, table, ProfileSettings(), _WordTokenizer())
        drawn = np.random.default_rng(seed).integers(0, shoppers, profiles + 1)
        times, lengths = _time_profiles(maker, [user_name(number) for number in drawn])
        started = time.perf_counter()
        maker.popular(_YEAR_END, k=100)
        popular = time.perf_counter() - started
        progress("making the profiles of all shoppers", 5, _STEPS)
        made, seconds = _everyone(maker, folder / "profiles.parquet") if everyone else (None, None)
    progress("done", _STEPS, _STEPS)
    p50, p95, p99 = (float(np.percentile(times, q)) for q in (50, 95, 99))
    return ProfileBenchmark(
        events=events,
        shoppers=shoppers,
        products=len(table),
        profiles=len(times),
        import_rate=events / wall,
        import_ratio=bare_seconds / wall,
        import_cpu_ratio=bare_cpu / cpu,
        profile_p50_ms=p50,
        profile_p95_ms=p95,
        profile_p99_ms=p99,
        summary_tokens_mean=float(np.mean(lengths)),
        popular_ms=popular * 1000,
        everyone=made,
        everyone_seconds=seconds,
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def user_name(number: int) -> str:
    """Name the nth shopper of the generated events."""
    return f"u{number:06d}"


def product_name(number: int) -> str:
    """Name the nth product of the generated events."""
    return f"p{number:07d}"


def _generate(path: Path, events: int, shoppers: int, products: int, seed: int) -> None:
    kinds = " ".join(f"WHEN r < {share} THEN '{kind}'" for kind, share in _SHARES[:-1])
    # Powers of an even draw give the skew: the first tenth of shoppers does a quarter of all.
    query = f"""
        SELECT 'u' || lpad((floor({shoppers} * pow(random(), 1.7)))::INT::VARCHAR, 6, '0')
            AS user_id,
        kind,
        make_timestamptz(epoch_us(TIMESTAMP '2025-01-01')
            + (random() * 364 * 86400000000)::BIGINT) AS "at",
        CASE WHEN kind <> 'search'
            THEN 'p' || lpad((floor({products} * pow(random(), 3)))::INT::VARCHAR, 7, '0') END
            AS product_id,
        CASE WHEN kind = 'search' THEN 'query ' || (random() * 20000)::INT END AS query,
        's' || (random() * {events} / 4)::INT AS session_id,
        'r' || number AS request_id,
        CASE WHEN kind <> 'search' THEN 1 + (random() * 20)::INT END AS position,
        CASE WHEN kind IN ('view', 'click') THEN (random() * 60000)::INT END AS dwell_ms,
        CASE WHEN kind = 'purchase' THEN 1.0 END::DOUBLE AS quantity,
        CASE WHEN kind = 'purchase' THEN round(random() * 100, 2) END AS value
        FROM (SELECT number, CASE {kinds} ELSE 'purchase' END AS kind
            FROM (SELECT number, random() AS r FROM range({events}) t(number)))"""
    with duckdb.connect(config={"memory_limit": "1GB", "threads": 1}) as connection:
        # One thread, since the seed covers the draws of one only.
        connection.execute("SELECT setseed($seed)", {"seed": (seed % 1000) / 1000})
        temporary = path.with_suffix(".tmp")
        connection.execute(f"COPY ({query}) TO '{temporary}' (FORMAT parquet)")
        temporary.rename(path)


def _catalogue(path: Path, count: int) -> ProductTable:
    if not path.exists():
        table, *_ = ProductTable.empty().upsert(_products(count))
        table.save(path)
    return ProductTable.open(path)


def _products(count: int) -> Iterator[Product]:
    for number in range(count):
        leaf = number * 7919 % 2000
        yield Product(
            product_id=product_name(number),
            title=f"Product number {number} of good quality",
            brand=f"Brand {number * 104729 % 20_000}",
            category=f"Department {leaf // 100} > Aisle {leaf // 10} > Shelf {leaf}",
            price=1 + number * 31 % 997 / 10,
            currency="EUR",
        )


def _bare_insert(path: Path, source: Path) -> tuple[float, float]:
    """Return the wall and processor seconds of an insert without order, checks or keys."""
    _remove(path)
    with duckdb.connect(path, config={"memory_limit": "1GB"}) as connection:
        query = f"FROM read_parquet('{source}')"
        connection.execute(f"CREATE TABLE event AS {query} LIMIT 0")
        wall, cpu = time.perf_counter(), time.process_time()
        connection.execute(f"INSERT INTO event {query}")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    _remove(path)
    return wall, cpu


def _time_profiles(maker: DuckDBProfileStore, users: list[str]) -> tuple[list[float], list[int]]:
    """Return milliseconds and summary lengths; the first shopper only warms up."""
    times, lengths = [], []
    for place, user in enumerate(users):
        as_of = _YEAR_END - timedelta(hours=place)
        started = time.perf_counter()
        profile = maker.profile(user, as_of)
        times.append((time.perf_counter() - started) * 1000)
        lengths.append(len(profile.summary.split()) if profile else 0)
    return times[1:], lengths[1:]


def _everyone(maker: DuckDBProfileStore, target: Path) -> tuple[int, float]:
    """Return how many profiles were made, and the seconds that it took."""
    started = time.perf_counter()
    made = export_profiles(maker.all_profiles(_YEAR_END), target)
    return made, time.perf_counter() - started


def _remove(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}.wal")):
        name.unlink(missing_ok=True)
