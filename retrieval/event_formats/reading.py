"""How the files of an import are to be read: what its caller, or the command line, says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reranker.errors import ConfigError
from reranker.schema import BehaviourEvent, EventKind
from retrieval.event_formats.actions import ActionTable
from retrieval.event_formats.detection import Format, detect, format_named

FIELDS = tuple(BehaviourEvent.model_fields)
REQUIRED = ("user_id", "kind", "at")


def columns_of(settings: Iterable[str]) -> dict[str, str]:
    """Split the ``FIELD=COLUMN`` of the setting cleaning.columns.

    Raises:
        ConfigError: one has no ``=`` or no column, or its field is unknown.
    """
    found = {}
    for text in settings:
        name, _, column = (part.strip() for part in text.partition("="))
        if not column:
            raise ConfigError(f"setting cleaning.columns: {text!r} is not FIELD=COLUMN")
        if name not in FIELDS:
            raise ConfigError(
                f"setting cleaning.columns: unknown field {name}; the fields are "
                f"{', '.join(FIELDS)}"
            )
        found[name] = column
    return found


@dataclass(frozen=True)
class Reading:
    """How the files of an import are to be read.

    Attributes:
        mapping: field to column, or to path in a document, where the names differ.
        format: of all files; None tells it from the content of each.
        default_kind: of events that name none, such as those of a purchase history.
        ordinals_from: the first ``position.ordinal`` of UBI events.
        actions: what the kinds and actions in the files mean.
        fields: that native files may have.
        needed: of these, what they must have.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    format: Format | None = None
    default_kind: EventKind | None = None
    ordinals_from: int = 1
    actions: ActionTable = field(default_factory=ActionTable)
    fields: tuple[str, ...] = FIELDS
    needed: tuple[str, ...] = REQUIRED

    def __post_init__(self) -> None:
        unknown = ", ".join(sorted(set(self.mapping) - set(self.fields)))
        if unknown:
            known = ", ".join(self.fields)
            raise ConfigError(f"--map: unknown field {unknown}; the fields are {known}")

    @classmethod
    def of(
        cls,
        *,
        mapping: Mapping[str, str] | None = None,
        log_format: str | None = None,
        default_kind: str | None = None,
        kinds: Iterable[tuple[str, str]] = (),
        ordinals_from: int = 1,
    ) -> "Reading":
        """Check what people have written; later pairs of ``kinds`` go before earlier ones.

        Raises:
            ConfigError: a field, format or kind is unknown.
        """
        if default_kind is not None and default_kind not in set(EventKind):
            names = ", ".join(EventKind)
            raise ConfigError(f"--kind {default_kind}: unknown; the kinds are {names}")
        return cls(
            mapping=mapping or {},
            format=None if log_format is None else format_named(log_format),
            default_kind=None if default_kind is None else EventKind(default_kind),
            ordinals_from=ordinals_from,
            actions=ActionTable.of(kinds),
        )

    @property
    def wanted(self) -> dict[str, str]:
        """The column of each field."""
        return {name: self.mapping.get(name, name) for name in self.fields}

    @property
    def required(self) -> tuple[str, ...]:
        """The fields that a file of native events must have."""
        return tuple(name for name in self.needed if name != "kind" or self.default_kind is None)

    def format_of(self, names: Sequence[str]) -> Format:
        """Tell the format of a file by its columns or keys, unless it is insisted on."""
        return self.format or detect(names, [self.wanted[name] for name in self.required])
