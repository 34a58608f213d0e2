"""Tune the embedded model on purchases: from settings and files to an adapter folder.

Importing this module loads torch, transformers and peft.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from reranker.errors import ConfigError
from reranker.models.adapter import (
    AdapterCard,
    adapter_of,
    read_card,
)
from reranker.models.embedded import EmbeddedModel
from reranker.models.weights import resolve
from reranker.ports import Progress, no_progress
from reranker.prompting import PromptBudget
from reranker.schema import Readout
from reranker.settings import Settings
from reranker.training.encoding import PromptMaker
from reranker.training.held_back import lists_of_all
from reranker.training.process_group import ProcessGroup
from reranker.training.run import TuningRun
from reranker.training.served import ServedMeasures, measure_served
from reranker.training.sources import ListSource
from reranker.training.speed import SpeedComparison, compare_speed


def tune(
    settings: Settings,
    sources: Sequence[ListSource],
    folder: Path,
    *,
    name: str,
    weights: Sequence[float] = (),
    readout: Readout = "verdict",
    start: Path | None = None,
    published: bool = False,
    processes: ProcessGroup | None = None,
    progress: Progress = no_progress,
) -> AdapterCard | None:
    """Tune an adapter, or go on with a tuning that was stopped.

    The folder holds the checkpoint, the record (``record.jsonl``, TensorBoard files) and, from the
    first validation that is better than the untuned model on, the best adapter so far.

    Args:
        settings: the model, how prompts are made (``ranking.card_tokens``, ``profile.max_tokens``)
            and how is trained.
        sources: what to learn from.
        folder: of the run.
        name: of the adapter.
        weights: of the sources, how many lists of each are seen; none: alike.
        readout: that the model is tuned for.
        start: adapter whose weights the training starts from; None starts from nothing.
        published: the behaviour of the store is a published data set, whose shoppers nobody will
            ask to be forgotten: the adapter keeps no list of their pseudonyms.
        processes: those that train together; None is one alone.
        progress: told what is being done.

    Returns:
        The card of the best adapter, measured on all lists that were held back; None in all
        processes but the first, which writes it.

    Raises:
        ConfigError: the model cannot be asked in this way, or the folder is of another training.
        DataError: a file cannot be used, or the training has diverged.
        ModelUnavailable: the model cannot be fetched or loaded.
    """
    processes = processes or ProcessGroup()
    with ExitStack() as stack:
        # What the catalogue is made of would be written over by the others.
        other = None if processes.is_first else stack.enter_context(TemporaryDirectory())
        run = TuningRun(
            settings,
            sources,
            folder,
            folder / "data" if other is None else Path(other),
            name=name,
            readout=readout,
            published=published,
            processes=processes,
            progress=progress,
        )
        if start is not None:
            run.start_from(start)
        trainer = run.trainer(weights or [1.0] * len(sources))
        trainer.run(improved=run.write, progress=progress)
        run.network.restore(trainer.best_weights)
        measures = trainer.measure(run.validation, progress)
        card = run.write(measures, trainer.best.step) if processes.is_first else None
        processes.wait()
        return card


def evaluate(
    settings: Settings,
    source: ListSource,
    *,
    lists: int,
    shuffles: int,
    progress: Progress = no_progress,
) -> ServedMeasures:
    """Measure the settings' model and adapter, as served, on the lists that tuning holds back.

    Args:
        settings: of model, prompts and training.
        source: of the lists.
        lists: most lists that are judged.
        shuffles: orders in which each is shown.
        progress: told what is being done.

    Raises:
        ConfigError: the adapter was made for something else.
        DataError: a file cannot be used.
        ModelUnavailable: the model cannot be fetched or loaded.
    """
    import asyncio

    settings = _as_tuned(settings)
    model = EmbeddedModel.load(settings.model, progress=progress)
    readout: Readout = "verdict" if "verdict" in model.spec.readouts else "labels"
    with TemporaryDirectory() as work:
        without_teacher = settings.training.model_copy(update={"teacher": 0.0})
        plain = settings.model_copy(update={"training": without_teacher})
        (found,) = lists_of_all([source], Path(work), plain, model.tokenizer, progress)
    budget = PromptBudget(card=settings.ranking.card_tokens, profile=settings.profile.max_tokens)
    prompts = PromptMaker(model.tokenizer, model.spec, readout=readout, budget=budget)

    async def judge() -> ServedMeasures:
        judged = found.validation[:lists]
        try:
            return await measure_served(
                model, prompts, judged, shuffles=shuffles, readout=readout, progress=progress
            )
        finally:
            await model.aclose()

    return asyncio.run(judge())


def compare(
    settings: Settings,
    source: ListSource,
    work: Path,
    *,
    rounds: int,
    progress: Progress = no_progress,
) -> SpeedComparison:
    """Time steps of tuning against a bare peft loop; see `compare_speed`.

    Args:
        settings: of model, prompts and training.
        source: of the lists.
        work: folder for what is made on the way.
        rounds: times that both take turns.
        progress: told what is being done.

    Raises:
        ConfigError: the method is not one of peft's.
        DataError: a file cannot be used.
        ModelUnavailable: the model cannot be fetched or loaded.
    """
    method = settings.training.method
    if method not in ("lora", "dora"):
        message = f"training.method = {method}: the loop beside it is bare peft's: set lora or dora"
        raise ConfigError(message)
    run = TuningRun(
        settings, [source], work, work, name="speed", readout="verdict", progress=progress
    )
    base = resolve(settings.model.name)
    return compare_speed(run.trainer([1.0]), base, settings, rounds=rounds, progress=progress)


def _as_tuned(settings: Settings) -> Settings:
    """Take what decides prompts and held-back shoppers from the adapter's card, if there is one."""
    folder = adapter_of(settings.model)
    if folder is None:
        return settings
    card = read_card(folder)
    held = {n: card.training[n] for n in ("seed", "validation_shoppers") if n in card.training}
    ranking = settings.ranking.model_copy(update={"card_tokens": card.card_tokens})
    profile = settings.profile.model_copy(update={"max_tokens": card.profile_tokens})
    training = settings.training.model_copy(update=held)
    return settings.model_copy(
        update={"ranking": ranking, "profile": profile, "training": training}
    )
