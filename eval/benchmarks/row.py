"""One line of a benchmark's table."""

from reranker.schema import Value


class Row(Value):
    """What was measured, and whether it reaches its target."""

    name: str
    value: str
    beside: str = ""
    target: str = ""
    met: bool = True
