"""What the actions of event logs mean: one table for all formats, which a shop can extend."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reranker.errors import ConfigError
from reranker.schema import EventKind
from retrieval.event_formats.sql import literal

IGNORE = "ignore"
ACTIONS: Mapping[str, EventKind] = {
    # UBI 1.3 names the first seven; "watch" is its word for looking at a video or a page.
    "impression": EventKind.IMPRESSION,
    "view": EventKind.VIEW,
    "watch": EventKind.VIEW,
    "click": EventKind.CLICK,
    "click_through": EventKind.CLICK,
    "add_to_cart": EventKind.CART,
    "purchase": EventKind.PURCHASE,
    "search": EventKind.SEARCH,
    "on_search": EventKind.SEARCH,
    "query": EventKind.SEARCH,
    "product_impression": EventKind.IMPRESSION,
    "view_item": EventKind.VIEW,
    "product_view": EventKind.VIEW,
    "item_view": EventKind.VIEW,
    "item_click": EventKind.CLICK,
    "product_click": EventKind.CLICK,
    "select_item": EventKind.CLICK,
    "favourite": EventKind.FAVOURITE,
    "favorite": EventKind.FAVOURITE,
    "like": EventKind.FAVOURITE,
    "wishlist": EventKind.FAVOURITE,
    "add_to_wishlist": EventKind.FAVOURITE,
    "cart": EventKind.CART,
    "addtocart": EventKind.CART,
    "basket": EventKind.CART,
    "add_to_basket": EventKind.CART,
    "buy": EventKind.PURCHASE,
    "order": EventKind.PURCHASE,
    "transaction": EventKind.PURCHASE,
    "return": EventKind.RETURN,
    "returned": EventKind.RETURN,
    "refund": EventKind.RETURN,
    "item_return": EventKind.RETURN,
    "product_return": EventKind.RETURN,
}
"""Action, in lower case with underscores, to kind. Hovers, page exits and logins are in no kind."""


@dataclass(frozen=True)
class ActionTable:
    """The actions known to an import. Build it with `of`.

    Attributes:
        given: what the shop says, which goes before `ACTIONS`; a kind or `IGNORE`.
    """

    given: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, *layers: Iterable[tuple[str, str]]) -> "ActionTable":
        """Check and merge pairs of action and kind, the later layers first.

        Raises:
            ConfigError: a kind is unknown.
        """
        given: dict[str, str] = {}
        for action, kind in (pair for layer in layers for pair in layer):
            _check_kind(action, kind, "--map-kind")
            given[_plain(action)] = kind
        return cls(given)

    def kind(self, raw: str) -> str:
        """Return the SQL of an event's kind from its action; NULL for an unknown one."""
        name = f"replace(replace(lower({raw}), '-', '_'), ' ', '_')"
        known = f"TRY_CAST(lower({raw}) AS event_kind)"
        built_in = {action: kind for action, kind in ACTIONS.items() if action != kind}
        parts = [known, f"TRY_CAST({_case(name, built_in)} AS event_kind)"]
        if self.given:
            kinds = {action: kind for action, kind in self.given.items() if kind != IGNORE}
            parts.insert(0, f"TRY_CAST({_case(name, kinds)} AS event_kind)" if kinds else "NULL")
        return f"coalesce({', '.join(parts)})"

    def ignored(self, raw: str) -> str:
        """Return the SQL that tells whether an action is left out."""
        names = [action for action, kind in self.given.items() if kind == IGNORE]
        if not names:
            return "false"
        name = f"replace(replace(lower({raw}), '-', '_'), ' ', '_')"
        return f"coalesce({name} IN ({', '.join(map(literal, names))}), false)"


def pairs_of(settings: Iterable[str]) -> list[tuple[str, str]]:
    """Split the ``ACTION=KIND`` of the setting cleaning.kinds.

    Raises:
        ConfigError: one has no ``=``, or an unknown kind.
    """
    found = []
    for text in settings:
        action, separator, kind = (part.strip() for part in text.rpartition("="))
        if not separator or not action:
            raise ConfigError(f"setting cleaning.kinds: {text!r} is not ACTION=KIND")
        _check_kind(action, kind, "setting cleaning.kinds:")
        found.append((action, kind))
    return found


def _check_kind(action: str, kind: str, where: str) -> None:
    if kind not in {*EventKind, IGNORE}:
        names = ", ".join([*EventKind, IGNORE])
        raise ConfigError(f"{where} {action}={kind}: unknown kind; the kinds are {names}")


def _case(name: str, table: Mapping[str, str]) -> str:
    whens = " ".join(f"WHEN {literal(key)} THEN '{kind}'" for key, kind in table.items())
    return f"CASE {name} {whens} END"


def _plain(action: str) -> str:
    return action.strip().lower().replace("-", "_").replace(" ", "_")
