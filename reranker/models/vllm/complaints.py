"""What may be repeated of a server's words when it refuses or fails.

Servers echo the request in some errors, and with it what a shopper looks for and likes. Messages of
errors reach logs, results and other people, so they hold the kind of error and known phrases
without a word of the request; the whole text goes to the log at level DEBUG only.
"""

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import httpx

_log = logging.getLogger(__name__)
_LONGEST = 2000
_KIND = re.compile(r"[A-Za-z]+(?: [A-Za-z]+){0,3}")
_PHRASES = re.compile(
    r"maximum context length is \d+ tokens|context (?:length|size|window)|"
    r"does not exist|not found|EngineCore|engine is dead|"
    r"out of memory|overloaded|too many requests|rate limit|queue is full|"
    r"\b(?:logprob_token_ids|top_logprobs|prompt_logprobs|max_logprobs|logprobs|response_format|"
    r"json_schema|structured_outputs|cache_salt|max_tokens)\b",
    re.IGNORECASE,
)


def complaint(response: httpx.Response) -> str:
    """Return the kind of an error and the known phrases in it; empty where nothing is known.

    Such as ``BadRequestError: maximum context length is 4096 tokens``.
    """
    show(response)
    body = _body(response)
    kind = body.get("type")
    known = kind if isinstance(kind, str) and len(kind) <= 40 and _KIND.fullmatch(kind) else ""
    phrases = dict.fromkeys(found[0] for found in _PHRASES.finditer(str(body.get("message", ""))))
    return ": ".join(part for part in (known, ", ".join(phrases)) if part)


def show(response: httpx.Response) -> None:
    """Write what a server said to the log at level DEBUG, without the key that some echo."""
    if not _log.isEnabledFor(logging.DEBUG):
        return
    key = response.request.headers.get("Authorization", "").removeprefix("Bearer ")
    said = response.text.replace(key, "***") if key else response.text
    url = response.request.url.copy_with(query=None)
    _log.debug("%s: HTTP %d: %s", url, response.status_code, said[:_LONGEST])


def _body(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    error = body.get("error", body) if isinstance(body, Mapping) else body
    return error if isinstance(error, Mapping) else {"message": error}
