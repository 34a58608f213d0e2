"""Addresses of servers, and how a connection to one is made."""

import ssl

import pytest

from reranker.errors import ConfigError
from reranker.models.vllm.http import _verification, base_url
from reranker.models.vllm.pool import ServerPool
from reranker.settings import ServerSettings
from server_pools import ASK


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "",
        "http://[x",
        "http://host:99999",
        "http://host:0",
        "http://host:8a",
        "http://ho st",
        "http://host?key=1",
        "http://host/v1?",
        "http://host#top",
        "http://anna:secret@host:99999",
    ],
)
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.urls") as caught:
        base_url(url)
    assert "secret" not in str(caught.value)


def test_addresses_are_brought_to_one_form() -> None:
    assert base_url("http://host:8000/v1/") == base_url("http://host:8000") == "http://host:8000"
    assert base_url("https://host/llm/v1") == "https://host/llm"
    assert base_url("HTTPS://Host:443/LLM") == "https://host:443/LLM"
    assert base_url(" http://host:8000\n") == "http://host:8000"
    assert base_url("http://[::1]:8000/v1") == "http://[::1]:8000"
    with pytest.raises(ConfigError, match=r"at host holds a password.*server\.api_key") as caught:
        base_url("http://anna:secret@host")
    assert "secret" not in str(caught.value)


def test_two_forms_of_an_address_are_one_server() -> None:
    pool = ServerPool(ServerSettings(urls=("http://Host:1/v1", "http://host:1")), real_call=ASK)
    assert [one.url for one in pool.servers] == ["http://host:1"]


def test_certificates_are_always_verified() -> None:
    assert _verification(base_url("HTTPS://host")) is True
    plain = _verification("http://host")
    assert isinstance(plain, ssl.SSLContext)
    assert plain.verify_mode is ssl.CERT_REQUIRED
    assert plain.check_hostname
