"""What one tuning is made of: lists, network, and what is written of them.

Importing this module loads torch, transformers and peft.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from reranker.errors import ConfigError
from reranker.models.adapter import (
    AdapterCard,
    BaseModelCard,
    DataCard,
    SourceCard,
    read_card,
    read_data_card,
)
from reranker.models.adapter_use import readout_answers
from reranker.models.asking import describe
from reranker.models.rendering import PromptRenderer, load_tokenizer
from reranker.models.tokenizing import HFTokenizer
from reranker.models.weights import resolve
from reranker.ports import Progress
from reranker.prompting import PromptBudget
from reranker.quiet import quiet_transformers
from reranker.schema import Readout
from reranker.settings import Settings
from reranker.training.encoding import EncodedList, ExampleEncoder, PromptMaker
from reranker.training.folder import recover, write_adapter
from reranker.training.held_back import lists_of_all, validated_on_strangers
from reranker.training.logged_lists import check_logged
from reranker.training.loop import Trainer
from reranker.training.network import TunedNetwork
from reranker.training.plan import Curriculum
from reranker.training.process_group import ProcessGroup
from reranker.training.sources import Lists, ListSource
from reranker.training.validation import shared_out
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.privacy.traces import SHOPPERS, read_shoppers

ADAPTER_FOLDER = "adapter"
_SAMPLED, _SAMPLED_LEARNT = 16, 64
_FREE = ("lists", "validate_every", "checkpoint_every", "patience", "validation_lists")
"""Settings that a training may go on with changed."""
_HELD_BACK = ("seed", "validation_shoppers")
"""Settings that decide which shoppers are held back."""


class TuningRun:
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
        published: bool = False,
        processes: ProcessGroup | None = None,
        progress: Progress,
    ) -> None:
        """Make the lists, and load the model.

        Args:
            settings: of model, prompts and training.
            sources: of the lists.
            folder: of the run.
            work: folder of this process alone, for what is made on the way.
            name: of the adapter.
            readout: that the model is tuned for.
            published: see `tune`.
            processes: those that train together.
            progress: told what is being done.

        Raises:
            ConfigError: the model cannot be asked in this way, or the lists do not tell what the
                objective learns from.
            DataError: a source cannot be used.
            ModelUnavailable: the model cannot be fetched or loaded.
        """
        if settings.training.written and readout != "labels":
            raise ConfigError(
                f"training.written = {settings.training.written:g}: a ranking is written out "
                f"behind prompts for labels, and this model is tuned for {readout}: set "
                "ranking.readout = labels"
            )
        self._processes = processes or ProcessGroup()
        if self._processes.is_first:
            recover(folder / ADAPTER_FOLDER)
        training, base = settings.training, resolve(settings.model.name, progress=progress)
        with quiet_transformers():
            renderer = PromptRenderer(load_tokenizer(base), name=settings.model.name)
        tokenizer = HFTokenizer(base)
        self._settings, self._folder, self._name = settings, folder, name
        self._readout = readout
        self._start = ""
        self._published = published
        self._before = DataCard(sources=())
        self._before_shoppers: list[Pseudonym] = []
        self.lists = lists_of_all(sources, work, settings, tokenizer, progress)
        check_logged(self.lists, training)
        progress(f"loading {settings.model.name}", 0, 1)
        self.network = TunedNetwork(base, training, dtype=settings.model.dtype)
        progress(f"loading {settings.model.name}", 1, 1)
        spec = describe(renderer, name=renderer.name, context_length=self.network.context_length)
        self._answer = readout_answers(renderer, spec)[readout]
        budget = PromptBudget(
            card=settings.ranking.card_tokens, profile=settings.profile.max_tokens
        )
        prompts = PromptMaker(tokenizer, spec, readout=readout, budget=budget)
        self._encoder = ExampleEncoder(prompts, renderer, seed=training.seed)
        self.validation = self._encoded_validation()

    def trainer(self, weights: Sequence[float]) -> Trainer:
        """Return the trainer of this run, at the step that it has reached.

        Raises:
            ConfigError: the folder is of another training, or the processes do not have the same.
            DataError: its checkpoint is damaged.
        """
        training = self._settings.training
        self._curriculum = curriculum = Curriculum(
            [one.train for one in self.lists],
            weights,
            batch=training.batch,
            seed=training.seed,
            # By what they are, not what a folder is called: an adapter's next training goes on.
            keys=[one.card.sha256 for one in self.lists],
            seen=[self._seen_of(one.card) for one in self.lists],
        )
        plan = self._plan(weights)
        if len(set(self._processes.gather([plan]))) > 1:
            raise ConfigError(
                "the processes of this training do not read the same lists: give them the same "
                "files, and the same --until"
            )
        rest = iter(self.validation)
        held = [list(islice(rest, len(one.validation))) for one in self.lists]
        looked_at = shared_out(held, weights, training.validation_lists)
        return Trainer(
            self.network,
            self._encoder,
            curriculum,
            looked_at,
            training,
            self._folder,
            plan=plan,
            processes=self._processes,
        )

    def start_from(self, adapter: Path) -> None:
        """Begin with the weights of an adapter; whoever it learnt from, this one has, too.

        Of the same purchases what it has seen is passed over; of a store's shoppers nobody is
        validated on whom it has learnt from.

        Raises:
            ConfigError: the adapter was tuned in another way, held back other shoppers, learnt
                from shoppers of another key, or from all who are held back.
            DataError: it is damaged.
        """
        card, data = read_card(adapter), read_data_card(adapter)
        if card.readout != self._readout:
            raise ConfigError(
                f"{adapter}: it was tuned for {card.readout}: set ranking.readout = {card.readout}"
            )
        own = self._settings.training.model_dump()
        for setting in _HELD_BACK:
            if setting in card.training and card.training[setting] != own[setting]:
                raise ConfigError(
                    f"{adapter}: it was tuned with training.{setting} = {card.training[setting]}, "
                    f"and with {own[setting]} it would be validated on shoppers that it has learnt "
                    "from: set the same"
                )
        keys = {one.key_fingerprint for one in self._kept if one.key_fingerprint}
        if data.key_fingerprint and keys - {data.key_fingerprint}:
            raise ConfigError(
                f"{adapter}: it learnt from shoppers whose pseudonyms were made with another key, "
                "so that nobody could be found in both: start from one of the same key"
            )
        self._start = self.network.start_from(adapter)
        self._before = data
        if data.shoppers:
            self._before_shoppers = [
                Pseudonym(one) for one in read_shoppers(adapter / data.shoppers)
            ]
            self.lists = validated_on_strangers(self.lists, set(self._before_shoppers), adapter)
            self.validation = self._encoded_validation()

    def _encoded_validation(self) -> list[EncodedList]:
        held = [example for lists in self.lists for example in lists.validation]
        return [self._encoder.encode(example) for example in held]

    @property
    def _kept(self) -> Sequence[Lists]:
        """The lists of whose shoppers a list is kept."""
        return () if self._published else self.lists

    def _seen_of(self, card: SourceCard) -> int:
        """Return how many lists of a source the adapter has seen that was begun with."""
        same = (one for one in self._before.sources if one.sha256 == card.sha256)
        return next((one.seen for one in same), 0)

    def write(self, measures: Mapping[str, float], step: int) -> AdapterCard:
        """Write the network's present adapter, reached at a step, with its cards."""
        settings = self._settings
        training = settings.training.model_dump(mode="json")
        ours = [one.card for one in self.lists]
        here = {card.sha256 for card in ours}
        sources = (
            *(one for one in self._before.sources if one.sha256 not in here),
            *(
                card.model_copy(update={"seen": seen})
                for card, seen in zip(ours, self._curriculum.seen(step), strict=True)
            ),
        )
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
            "training": {**training, "lists_seen": sum(one.seen for one in sources)},
        }
        shoppers = [pseudonym for one in self._kept for pseudonym in one.pseudonyms]
        shoppers += self._before_shoppers
        keys = [one.key_fingerprint for one in self._kept if one.key_fingerprint]
        data = DataCard(
            sources=sources,
            shoppers=SHOPPERS if shoppers else None,
            key_fingerprint=next(iter(keys), self._before.key_fingerprint),
            erased_shoppers=self._before.erased_shoppers,
        )
        folder = self._folder / ADAPTER_FOLDER
        return write_adapter(folder, self.network, facts, data, shoppers)

    def _plan(self, weights: Sequence[float]) -> str:
        """Return the identity of all that a training must not change on the way."""
        training = self._settings.training.model_dump(mode="json", exclude_defaults=True)
        adaptive = self._settings.training.method == "adalora"  # when ranks go is planned by them
        free = set(_FREE) - {"lists"} if adaptive else _FREE
        plan = {
            "training": {name: value for name, value in training.items() if name not in free},
            "base": self.network.fingerprint,
            "sources": [one.card.model_dump(mode="json") for one in self.lists],
            "weights": list(weights),
            "start": self._start,
            "readout": self._readout,
            # Whatever settings, templates or profiles come to, they come to these tokens.
            "lists": [one.prompt.token_ids for one in self.validation[:_SAMPLED]],
            "learnt": [
                self._encoder.encode(one.train.example(row, 0)).prompt.token_ids
                for one in self.lists
                for row in range(min(len(one.train), _SAMPLED_LEARNT))
            ],
        }
        return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
