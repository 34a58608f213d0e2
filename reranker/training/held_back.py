"""Who is held back to validate on: settled once, for all sources of a training."""

from collections.abc import Collection, Sequence
from pathlib import Path

from reranker.errors import ConfigError
from reranker.ports import Progress, Tokenizer
from reranker.settings import Settings
from reranker.training.purchases import drawn_shoppers, split_by_shopper
from reranker.training.sources import Gathered, Lists, ListSource
from retrieval.behaviour.pseudonyms import Pseudonym


def held_back(sources: Sequence[Gathered], *, seed: int) -> frozenset[str]:
    """Return the shoppers whom no list of a training may be of.

    Each source draws as many of its own as it wants held back, as it would by itself: whoever
    measures an adapter on one source finds shoppers whom the adapter has not learnt from. Whom one
    source holds back, no other learns from either. Shoppers are the same where their ids are.

    Args:
        sources: of the training.
        seed: of the draw, the same in all sources.

    Raises:
        DataError: a source has no more shoppers than it wants held back.
    """
    drawn = [drawn_shoppers(one.purchases, one.held, seed=seed) for one in sources]
    return frozenset().union(*drawn)


def lists_of_all(
    sources: Sequence[ListSource],
    work: Path,
    settings: Settings,
    tokenizer: Tokenizer,
    progress: Progress,
) -> list[Lists]:
    """Return the lists of the sources of a training: nobody is learnt from who is held back.

    Args:
        sources: what to learn from.
        work: folder for what is made on the way.
        settings: of the training, and of what is told of a shopper.
        tokenizer: of the model.
        progress: told what is being done.

    Raises:
        DataError: a source cannot be used.
    """
    gathered = [
        source.gather(work / str(number), settings, tokenizer, progress)
        for number, source in enumerate(sources)
    ]
    seed = settings.training.seed
    held = held_back(gathered, seed=seed)
    return [one.lists(split_by_shopper(one.purchases, held, seed=seed)) for one in gathered]


def validated_on_strangers(
    lists: Sequence[Lists], known: Collection[Pseudonym], adapter: Path
) -> list[Lists]:
    """Return lists without those to validate on of shoppers whom an adapter has learnt from.

    Other sources, or a store in which shoppers have come and gone, draw others to hold back.

    Args:
        lists: of a training that begins with the adapter.
        known: the shoppers whom it has learnt from.
        adapter: its folder.

    Raises:
        ConfigError: nobody is left to validate on.
    """
    found = [
        one.model_copy(
            update={
                "validation": tuple(
                    held for held in one.validation if Pseudonym.written(held.user_id) not in known
                )
            }
        )
        for one in lists
    ]
    if not any(one.validation for one in found):
        raise ConfigError(
            f"{adapter}: it has learnt from all shoppers who are held back here, so that there is "
            "nobody to validate on: learn from its own sources, too, or start from another adapter"
        )
    return found
