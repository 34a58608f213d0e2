"""RankLens: films that people liked out of those that they were shown (Metarank; CC BY-SA 4.0).

Columns as documented at github.com/metarank/ranklens: ``metadata.jsonl.gz`` holds the films,
``ranking.jsonl.gz`` a row for each group that a visitor was shown.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.cases.fields import moment_of
from eval.cases.values import Case, Target
from eval.convert import writing
from eval.convert.writing import rows_of, the_file

_FILM = ("id", "title", "overview", "genres", "tags", "director", "topActors")
_GROUP = ("id", "user", "ts", "shown", "liked")
_TAGS = 6


def convert(source: Path, target: writing.Target) -> None:
    """Convert it: a case for each group; what was liked in earlier groups is the history."""
    films = the_file(source, "metadata.jsonl.gz", "metadata.jsonl")
    known = {str(row["id"]) for row in rows_of(films, _FILM) if row.get("title")}
    target.products(_film(row) for row in rows_of(films, _FILM) if row.get("title"))
    groups = sorted(
        rows_of(the_file(source, "ranking.jsonl.gz", "ranking.jsonl"), _GROUP),
        key=lambda row: (row["ts"], row["id"]),
    )
    cases = list(_cases(groups, known))
    target.cases(cases)
    elsewhere = sum(bool(set(row["liked"]) - set(row["shown"])) for row in groups)
    if elsewhere:
        target.notes.append(
            f"{elsewhere} groups like films that were not shown; these are left out"
        )
    target.arguments += ["--rankers", "random,recall,interest,llm", "--compare-with", "recall"]
    target.notes.append(f"{len(cases)} groups of {len({case.user_id for case in cases})} visitors")


def _cases(groups: list[dict[str, Any]], known: set[str]) -> Iterator[Case]:
    liked: dict[str, list[tuple[str, Any]]] = {}
    for row in groups:
        user, at = str(row["user"]), moment_of(row["ts"])
        shown = [film for film in dict.fromkeys(map(str, row["shown"])) if film in known]
        chosen = [film for film in dict.fromkeys(map(str, row["liked"])) if film in shown]
        before = [(film, then) for film, then in liked.get(user, []) if then < at]
        if shown:
            yield Case(
                case_id=str(row["id"]),
                user_id=user,
                at=at,
                history=tuple(film for film, _ in before),
                history_at=tuple(then for _, then in before),
                candidates=tuple(shown),
                targets=tuple(Target(product_id=film) for film in chosen),
            )
        liked.setdefault(user, []).extend((film, at) for film in chosen)


def _film(row: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        "genres": _names(row.get("genres")),
        "director": (row.get("director") or {}).get("name") or "",
        "actors": _names(row.get("topActors")),
        "tags": ", ".join(map(str, (row.get("tags") or [])[:_TAGS])),
    }
    return {
        "product_id": str(row["id"]),
        "title": row["title"],
        "description": row.get("overview") or None,
        "category": next(iter(facts["genres"].split(", ")), None) or None,
        "attributes": {name: text for name, text in facts.items() if text},
    }


def _names(values: Any) -> str:
    return ", ".join(str(value["name"]) for value in values or [])
