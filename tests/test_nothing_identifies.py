"""Nothing that tells who a shopper is reaches a prompt, a log line or an error message."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reranker import SearchRequest, Settings, build
from reranker.cli.app import app
from reranker.errors import DataError
from reranker.models.embedded import EmbeddedModel
from reranker.schema import Prompt, SlotScores
from reranker.wiring import import_events, import_products, index_catalogue
from retrieval.behaviour import BehaviourStore

NAME = "zwetschgenmus.liebhaberin@example.org"
AT = datetime(2026, 3, 5, tzinfo=UTC)


class Listening(EmbeddedModel):
    """The embedded model, which keeps the prompts that it is asked."""

    heard: list[Prompt]

    async def read(
        self, prompts: Sequence[Prompt], *, scope: str | None = None, seconds: float = math.inf
    ) -> tuple[SlotScores, ...]:
        self.heard.extend(prompts)
        return await super().read(prompts, scope=scope, seconds=seconds)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A shop in which a shopper searches for her own address and number."""
    (tmp_path / "p.csv").write_text(
        "product_id,title,category\n1,Plum jam,Jam\n2,Apple jam,Jam\n3,Phone case,Phone\n"
    )
    (tmp_path / "e.csv").write_text(
        "user_id,kind,at,product_id,query\n"
        + "".join(f"{NAME},purchase,2026-02-0{day},{day},\n" for day in (1, 2, 3))
        + f"{NAME},search,2026-02-04,,case for {NAME}\n"
        + f"{NAME},search,2026-02-05,,call +49 30 901820\n{NAME},jump,2026-02-06,1,\n"
    )
    settings = Settings.load(None, {"store.path": tmp_path / "store"})
    import_products(settings, [tmp_path / "p.csv"])
    import_events(settings, [tmp_path / "e.csv"])
    index_catalogue(settings)
    return settings


@pytest.fixture
def secrets(settings: Settings) -> list[str]:
    with BehaviourStore(settings.store.path, read_only=True, privacy=settings.privacy) as store:
        pseudonym = store.pseudonym(NAME)
    return [NAME, "liebhaberin", pseudonym.hex, str(pseudonym.uuid), "901820"]


def test_prompts_and_log_lines(
    settings: Settings, secrets: list[str], model: EmbeddedModel, caplog: pytest.LogCaptureFixture
) -> None:
    listening = object.__new__(Listening)
    listening.__dict__ = {**model.__dict__, "heard": []}
    with caplog.at_level(logging.DEBUG), build(settings, model=listening) as shelf:
        request = SearchRequest(query="jam", user_id=NAME, at=AT, k=3)
        result = shelf.search(request)
        assert result.personalised
        shelf.search(request.model_copy(update={"query": None}))
    assert listening.heard
    said = "\n".join(str(message.content) for p in listening.heard for message in p.messages)
    assert "Plum jam" in said
    for text in (said, caplog.text):
        assert not [secret for secret in secrets if secret in text]


def test_error_messages(
    settings: Settings, secrets: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    store = str(settings.store.path)
    outputs = [
        CliRunner().invoke(app, ["profile", NAME, "--at", "2020-01-01", "--store", store]),
        CliRunner().invoke(app, ["privacy", "consent", NAME, "--grant", "x", "--store", store]),
        CliRunner().invoke(app, ["behaviour", "import", "none.csv", "--store", store]),
        CliRunner().invoke(app, ["behaviour", "rejected", "--store", store]),
    ]
    told = [f"{each.output} {each.exception or ''}" for each in outputs]
    with ExitStack() as closed, BehaviourStore(settings.store.path) as behaviour:
        closed.enter_context(pytest.raises(DataError))
        behaviour.import_consent([settings.store.path.parent / "e.csv"])
    for text in [*told, caplog.text]:
        assert not [secret for secret in (NAME, "901820") if secret in text]
