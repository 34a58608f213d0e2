"""Tune the embedded model on purchases: from settings and files to an adapter folder.

Importing this module loads torch, transformers and peft.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reranker.errors import ConfigError
from reranker.models.adapter import (
    AdapterCard,
    BaseModelCard,
    DataCard,
    adapter_of,
    read_card,
    read_data_card,
    readout_answers,
)
from reranker.models.asking import describe
from reranker.models.conversion import quiet_transformers
from reranker.models.embedded import EmbeddedModel
from reranker.models.rendering import PromptRenderer, load_tokenizer
from reranker.models.tokenizing import HFTokenizer
from reranker.models.weights import resolve
from reranker.ports import Progress, no_progress
from reranker.prompting import PromptBudget
from reranker.schema import Readout
from reranker.settings import Settings
from reranker.training.encoding import ExampleEncoder, PromptMaker
from reranker.training.folder import recover, write_adapter
from reranker.training.loop import Trainer
from reranker.training.network import TunedNetwork
from reranker.training.plan import Curriculum
from reranker.training.served import ServedMeasures, measure_served
from reranker.training.sources import Lists, ListSource
from reranker.training.speed import SpeedComparison, compare_speed
from reranker.training.team import Team
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.privacy.traces import SHOPPERS, read_shoppers

ADAPTER_FOLDER = "adapter"
_SAMPLED = 16
_FREE = ("lists", "validate_every", "checkpoint_every", "patience", "validation_lists")
"""Settings that a training may go on with changed."""


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
    team: Team | None = None,
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
        team: the processes that train together; None is one alone.
        progress: told what is being done.

    Returns:
        The card of the best adapter, measured on all lists that were held back; None in all
        processes but the first, which writes it.

    Raises:
        ConfigError: the model cannot be asked in this way, or the folder is of another training.
        DataError: a file cannot be used, or the training has diverged.
        ModelUnavailable: the model cannot be fetched or loaded.
    """
    team = team or Team()
    with ExitStack() as stack:
        # What the catalogue is made of would be written over by the others.
        other = None if team.is_first else stack.enter_context(TemporaryDirectory())
        work = folder / "data" if other is None else Path(other)
        run = _Run(settings, sources, folder, work, name=name, readout=readout, progress=progress)
        run.published = published
        if start is not None:
            run.start_from(start)
        team.wait()  # none of them writes what another one still looks for
        trainer = run.trainer(weights or [1.0] * len(sources), team)
        trainer.run(improved=run.write, progress=progress)
        run.network.restore(trainer.best_weights)
        measures = trainer.measure(run.validation, progress)
        card = run.write(measures, trainer.best.step) if team.is_first else None
        team.wait()
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
        found = source.lists(Path(work), plain, model.tokenizer, progress)
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
        DataError: a file cannot be used.
        ModelUnavailable: the model cannot be fetched or loaded.
    """
    run = _Run(settings, [source], work, work, name="speed", readout="verdict", progress=progress)
    base = resolve(settings.model.name)
    return compare_speed(
        run.trainer([1.0], Team()), base, settings, rounds=rounds, progress=progress
    )


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


class _Run:
    """What one tuning is made of."""

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[ListSource],
        folder: Path,
        work: Path,
        *,
        name: str,
        readout: Readout,
        progress: Progress,
    ) -> None:
        recover(folder / ADAPTER_FOLDER)
        training, base = settings.training, resolve(settings.model.name, progress=progress)
        with quiet_transformers():
            renderer = PromptRenderer(load_tokenizer(base), name=settings.model.name)
        tokenizer = HFTokenizer(base)
        self._settings, self._folder, self._name = settings, folder, name
        self._readout = readout
        self._start = ""
        self._seen_before = 0
        self._passed_over = 0
        self.published = False
        self._before = DataCard(sources=())
        self._before_shoppers: list[Pseudonym] = []
        self.lists: list[Lists] = [
            source.lists(work / str(number), settings, tokenizer, progress)
            for number, source in enumerate(sources)
        ]
        progress(f"loading {settings.model.name}", 0, 1)
        with quiet_transformers():
            self.network = TunedNetwork(base, training, dtype=settings.model.dtype)
        progress(f"loading {settings.model.name}", 1, 1)
        spec = describe(renderer, name=renderer.name, context_length=self.network.context_length)
        self._answer = readout_answers(renderer, spec)[readout]
        budget = PromptBudget(
            card=settings.ranking.card_tokens, profile=settings.profile.max_tokens
        )
        prompts = PromptMaker(tokenizer, spec, readout=readout, budget=budget)
        self._encoder = ExampleEncoder(prompts, renderer, seed=training.seed)
        held = [example for lists in self.lists for example in lists.validation]
        self.validation = [self._encoder.encode(example) for example in held]

    def trainer(self, weights: Sequence[float], team: Team) -> Trainer:
        """Return the trainer of this run, at the step that it has reached."""
        training = self._settings.training
        curriculum = Curriculum(
            [one.train for one in self.lists],
            weights,
            batch=training.batch,
            seed=training.seed,
            seen=self._passed_over,
        )
        # Spread over all sources, however many lists each of them holds back.
        held, looked_at = self.validation, min(training.validation_lists, len(self.validation))
        spread = [held[number * len(held) // looked_at] for number in range(looked_at)]
        return Trainer(
            self.network,
            self._encoder,
            curriculum,
            spread,
            training,
            self._folder,
            plan=self._plan(weights),
            team=team,
        )

    def start_from(self, adapter: Path) -> None:
        """Begin with the weights of an adapter; whoever it learnt from, this one has, too.

        Where it was tuned on the same purchases in the same order, what it has seen is passed over.

        Raises:
            ConfigError: the adapter was tuned in another way, or on shoppers of another key.
            DataError: it is damaged.
        """
        card = read_card(adapter)
        if card.readout != self._readout:
            raise ConfigError(
                f"{adapter}: it was tuned for {card.readout}: set ranking.readout = {card.readout}"
            )
        self._start = self.network.start_from(adapter)
        data = read_data_card(adapter)
        self._seen_before = int(card.training.get("lists_seen", 0))
        ours = {one.card.sha256 for one in self.lists}
        others = tuple(one for one in data.sources if one.sha256 not in ours)
        self._before = data.model_copy(update={"sources": others})
        if not others and card.training.get("seed") == self._settings.training.seed:
            self._passed_over = self._seen_before
        if data.shoppers:
            self._before_shoppers = [
                Pseudonym(one) for one in read_shoppers(adapter / data.shoppers)
            ]

    def write(self, measures: Mapping[str, float], step: int) -> AdapterCard:
        """Write the network's present adapter with its cards."""
        settings = self._settings
        training = settings.training.model_dump(mode="json")
        seen = self._seen_before + step * settings.training.batch
        facts: dict[str, Any] = {
            "name": self._name,
            "base": BaseModelCard(name=settings.model.name, fingerprint=self.network.fingerprint),
            "readout": self._readout,
            "answer": self._answer,
            "templates": tuple(self._encoder.templates.values()),
            "card_tokens": settings.ranking.card_tokens,
            "profile_tokens": settings.profile.max_tokens,
            "candidates": settings.training.candidates,
            "validation": dict(measures),
            "training": {**training, "lists_seen": seen},
        }
        kept = () if self.published else self.lists
        before = self._before
        shoppers = [pseudonym for one in kept for pseudonym in one.pseudonyms]
        shoppers += self._before_shoppers
        keys = {one.key_fingerprint for one in kept if one.key_fingerprint}
        if before.key_fingerprint:
            keys.add(before.key_fingerprint)
        if len(keys) > 1:
            message = (
                "--from: the adapter learnt from shoppers whose pseudonyms were made with another "
                "key, so that nobody could be found in both: start from one of the same key"
            )
            raise ConfigError(message)
        data = DataCard(
            sources=(*before.sources, *(one.card for one in self.lists)),
            shoppers=SHOPPERS if shoppers else None,
            key_fingerprint=next(iter(keys), None),
            erased_shoppers=before.erased_shoppers,
        )
        folder = self._folder / ADAPTER_FOLDER
        return write_adapter(folder, self.network, facts, data, shoppers)

    def _plan(self, weights: Sequence[float]) -> str:
        """Return the identity of all that a training must not change on the way."""
        training = self._settings.training.model_dump(mode="json", exclude_defaults=True)
        plan = {
            "training": {name: value for name, value in training.items() if name not in _FREE},
            "base": self.network.fingerprint,
            "sources": [one.card.model_dump(mode="json") for one in self.lists],
            "weights": list(weights),
            "start": self._start,
            "readout": self._readout,
            # Whatever settings, templates or profiles come to, they come to these tokens.
            "lists": [one.prompt.token_ids for one in self.validation[:_SAMPLED]],
        }
        return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
