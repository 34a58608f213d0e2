"""Whether lists tell what the objective ``policy`` learns from."""

import logging
from collections.abc import Sequence

from reranker.errors import ConfigError
from reranker.settings import TrainingSettings
from reranker.training.sources import Lists

logger = logging.getLogger(__name__)


def check_logged(lists: Sequence[Lists], settings: TrainingSettings) -> None:
    """Refuse to learn by logged rewards where no list has a propensity; say how many have none.

    Args:
        lists: of all sources of a training.
        settings: of the training.

    Raises:
        ConfigError: the objective is ``policy``, and no list has a propensity.
    """
    if settings.objective != "policy":
        return
    logged = [one.train.logged() for one in lists]
    if not any(logged):
        names = ", ".join(one.train.name for one in lists)
        raise ConfigError(
            "training.objective = policy learns from how likely it was that a product was shown "
            f"first, and no list of {names} says that (the behaviour of a store never does): set "
            "another objective, or give files of purchases with the columns candidates, as they "
            "were shown, grades and propensity, of the first"
        )
    for one, known in zip(lists, logged, strict=True):
        if known < len(one.train):
            logger.warning(
                "%s: %d of %d lists have no propensity: these are learnt from by cross-entropy, "
                "not by training.objective = policy",
                one.train.name,
                len(one.train) - known,
                len(one.train),
            )
