"""How the facts of a summary share the tokens that it may have."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Need:
    """What one fact would take up.

    Attributes:
        weight: its claim against the others.
        fixed: tokens of its label.
        entries: tokens of each of its names, the most telling first.
    """

    weight: float
    fixed: int
    entries: tuple[int, ...]

    def cost(self, number: int) -> int:
        """Return the tokens of the fact with its first names."""
        return self.fixed + sum(self.entries[:number]) if number else 0

    def fitting(self, room: float) -> int:
        """Return how many names fit, from the first on."""
        left = room - self.fixed
        for number, tokens in enumerate(self.entries):
            left -= tokens
            if left < 0:
                return number
        return len(self.entries)


def share_room(needs: Sequence[Need], room: int) -> list[int]:
    """Return how many names each fact may say.

    Weighted max-min fairness: a fact that needs less than its share leaves the rest to the others.
    What names as a whole leave over then goes to the facts in their order.
    """
    whole = [need.cost(len(need.entries)) for need in needs]
    if sum(whole) <= room:
        return [len(need.entries) for need in needs]
    caps = _caps(needs, whole, room)
    numbers = [need.fitting(cap) for need, cap in zip(needs, caps, strict=True)]
    left = room - sum(need.cost(number) for need, number in zip(needs, numbers, strict=True))
    for place, need in enumerate(needs):
        own = need.cost(numbers[place])
        numbers[place] = need.fitting(own + left)
        left -= need.cost(numbers[place]) - own
    return numbers


def _caps(needs: Sequence[Need], whole: Sequence[int], room: float) -> list[float]:
    caps = [0.0] * len(needs)
    rest = set(range(len(needs)))
    while rest:
        unit = room / sum(needs[place].weight for place in rest)
        content = {place for place in rest if whole[place] <= unit * needs[place].weight}
        for place in content or rest:
            caps[place] = min(whole[place], unit * needs[place].weight)
        if not content:
            break
        room -= sum(whole[place] for place in content)
        rest -= content
    return caps
