"""Profiles and results as text for people."""

from datetime import UTC
from typing import TYPE_CHECKING

from rich.table import Table

from reranker.cli.output import console, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reranker.schema import RankedItem, RerankResult, UserProfile


def show_profile(profile: "UserProfile") -> None:
    """Print a profile for people."""
    console.print(
        f"Shopper {plain(profile.user_id)}: {profile.event_count} events before "
        f"{profile.as_of.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        style="bold",
    )
    console.print(plain(profile.summary), style="cyan")
    table = Table("Taste", "For", "Share", "Events", box=None, pad_edge=False)
    for affinity in profile.affinities[:12]:
        share = f"{affinity.weight:.0%}"
        table.add_row(affinity.kind, plain(affinity.name), share, str(affinity.evidence))
    if profile.affinities:
        console.print(table)
    for repeat in profile.repeat_purchases[:5]:
        rhythm = f", every {repeat.interval_days:.0f} days" if repeat.interval_days else ""
        due = ", due again" if profile.timed and repeat.is_due(profile.as_of) else ""
        console.print(f"bought {repeat.count} times{rhythm}{due}: {plain(repeat.title)}")
    for fact in _further_facts(profile):
        console.print(plain(fact))
    console.print()


def _further_facts(profile: "UserProfile") -> "Iterator[str]":
    if (price := profile.price) is not None:
        yield f"pays {price.relative:.0%} of the usual price ({price.evidence} purchases)"
    if (use := profile.promotions) is not None:
        yield f"{use.discounted} of {use.purchases} purchases at a discount"
    for item in profile.returned_items[:5]:
        yield f"sent back: {item.title}"
    if (session := profile.session) is not None:
        searched = f", searched for {', '.join(session.queries)}" if session.queries else ""
        yield (
            f"in the shop since {session.started_at.astimezone(UTC):%H:%M} UTC: "
            f"{len(session.items)} products{searched}"
        )


def show_result(result: "RerankResult", *, k: int, explain: bool) -> None:
    """Print the first k places for people."""
    table = Table("Rank", "Was", "Product", "Brand", "Price", box=None, pad_edge=False)
    if explain:
        table.add_column("Model", justify="right")
        table.add_column("Interest", justify="right")
        table.add_column("Why")
    for item in result.items[:k]:
        table.add_row(*_row(item, explain=explain))
    console.print(table if result.items else "no product matches")
    for issue in result.issues:
        console.print(f"{issue.code}: {plain(issue.detail)}", style="yellow")
    if explain:
        console.print(_footer(result), style="dim")


def _row(item: "RankedItem", *, explain: bool) -> list[str]:
    product = item.product
    price = "" if product.price is None else f"{product.price:.2f} {product.currency or ''}"
    cells = [
        str(item.rank),
        str(item.recall_rank),
        plain(product.title),
        plain(product.brand or ""),
        price.strip(),
    ]
    if explain:
        logprob = "" if item.llm_logprob is None else f"{item.llm_logprob:.2f}"
        interest = "" if item.interest is None else f"{item.interest:.2f}"
        cells += [logprob, interest, plain(item.reason)]
    return cells


def _footer(result: "RerankResult") -> str:
    times = result.timings
    facts = [
        f"outcome {result.outcome}",
        f"{len(result.items)} candidates",
        f"prompts: {result.windows}, rounds: {result.rounds}",
        f"model {result.model}" + (f" + {result.adapter}" if result.adapter else ""),
    ]
    if result.template:
        facts.append(
            f"template {result.template.name}.v{result.template.version}.{result.template.language}"
        )
    if result.label_mass is not None:
        facts.append(f"label mass {result.label_mass:.2f}")
    if result.instability is not None:
        facts.append(f"instability {result.instability:.1f} places")
    facts.append(
        f"profile {times.profile_ms:.0f} ms, recall {times.recall_ms:.0f} ms, "
        f"model {times.model_ms:.0f} ms, total {times.total_ms:.0f} ms"
    )
    return "; ".join(facts)
