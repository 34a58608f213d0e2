"""The values of a cases file: one row, one `Case`.

A cases file is Parquet, or JSONL (also as .gz) with one object a line:

==============  =========================================  =======================================
column          value                                      absent or null
==============  =========================================  =======================================
``case_id``     text or whole number, each once            needed
``user_id``     text or whole number                       a shopper of their own
``query``       text, not blank                            no query: a recommendation
``at``          ISO 8601 with a zone, or epoch             the moment is not known
``history``     product ids, oldest first                  a shopper without a past
``history_at``  times of ``history``, one each             the order is known, the times are not
``candidates``  product ids to rank, each once             recall from the whole catalogue
``targets``     product ids, or objects of                 a case without a target: it is ranked,
                ``product_id`` and ``grade`` (whole, 0..)  counted, and in no mean
``target``      one product id, in place of ``targets``
``segments``    names under which it is reported apart     in no segment
==============  =========================================  =======================================
"""

from collections.abc import Hashable
from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from reranker.schema import Identifier, Value

LONGEST_QUERY = 2000
HIGHEST_GRADE = 1000


class Target(Value):
    """A product that would have been right, and how right it would have been.

    Attributes:
        grade: 0 is not relevant; clicks, carts and purchases are usually 1, 2 and 3.
    """

    product_id: Identifier
    grade: Annotated[int, Field(ge=0, le=HIGHEST_GRADE)] = 1


class Case(Value):
    """One list to be ranked.

    Attributes:
        history: what the shopper had chosen before, oldest first.
        history_at: when; None where only the order is known.
        candidates: what is to be ranked, in no order that means anything unless a ranker says so;
            None asks for recall from the whole catalogue.
        segments: under which the case is reported apart.
    """

    case_id: Identifier
    user_id: Identifier | None = None
    query: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_QUERY)] | None = None
    at: AwareDatetime | None = None
    history: tuple[Identifier, ...] = ()
    history_at: tuple[AwareDatetime, ...] | None = None
    candidates: Annotated[tuple[Identifier, ...], Field(min_length=1)] | None = None
    targets: tuple[Target, ...] = ()
    segments: tuple[str, ...] = ()

    @property
    def grades(self) -> dict[str, int]:
        """Return the grade of each target."""
        return {target.product_id: target.grade for target in self.targets}

    @property
    def relevant(self) -> frozenset[str]:
        """Return the targets with a grade above 0; none: a case without a target."""
        return frozenset(target.product_id for target in self.targets if target.grade > 0)

    @property
    def shopper(self) -> Hashable:
        """Return who counts as one independent unit: the shopper, or the case if nobody is named.

        A pair, so that no user id is ever taken for a case id.
        """
        return ("user", self.user_id) if self.user_id is not None else ("case", self.case_id)
