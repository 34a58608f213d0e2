"""Settings of the language model, of asking it, and of the final order."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from reranker.settings.section import Section, split_text


class ModelSettings(Section):
    """The language model that ranks."""

    name: str = Field(
        "smollm2-135m-instruct",
        description="built-in name, folder or hub id of an instruction-tuned causal model",
    )
    adapter: str = Field(
        "auto",
        description="tuned adapter that is merged into the embedded model: a folder, or a name of "
        "`shelfwise adapter list`; auto: the one that comes along for this model, if there is one; "
        "none: the model as it is",
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="auto takes bfloat16 where the processor computes it"
    )
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads; 0 takes all")
    prefix_cache: Annotated[int, Field(ge=0)] = Field(
        8, description="prompt prefixes (task, profile, query) whose computation is kept"
    )


class ServerSettings(Section):
    """vLLM servers that run the language model, in place of the one in this process."""

    urls: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_text)] = Field(
        (),
        description="base URLs of servers of the same model, with commas between them in the "
        "environment and arguments; none: the embedded model",
    )
    served_name: str | None = Field(
        None, description="name of the model at the servers; none: the only one that they serve"
    )
    adapter: str | None = Field(None, description="LoRA adapter asked for, by its name there")
    api_key: SecretStr | None = Field(None, description="sent as bearer token")
    cache_key: SecretStr | None = Field(
        None,
        description="secret that keeps what servers cache of a shopper apart from all others; "
        "none: a new one each start, which finds nothing that an earlier start has cached",
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        30.0, description="seconds after which a call counts as failed, whatever the deadline"
    )
    connections: Annotated[int, Field(ge=1)] = Field(
        64,
        description="most calls under way at one server; fewer where it cannot do so many in time",
    )
    failures: Annotated[int, Field(ge=1)] = Field(
        3, description="failures in a row after which a server is left alone for a while"
    )
    recovery_s: Annotated[float, Field(gt=0)] = Field(
        2.0, description="seconds between looks whether a server that failed is back"
    )


class RankingSettings(Section):
    """How the model is asked and its answer is used."""

    readout: Literal["auto", "labels", "verdict", "generate"] = Field(
        "auto",
        description="how the answer is read; auto: as the model's adapter was tuned for, else by "
        "the first of labels, verdict and generate that the model can be asked by",
    )
    strategy: Literal["pivot", "sliding"] = Field(
        "pivot", description="how candidates beyond one window are judged"
    )
    depth: Annotated[int, Field(ge=0)] = Field(
        20,
        description="recalled candidates that the model judges, the most promising first, and at "
        "least two and the k that are shown; 0: all. A list given to rerank is always judged whole",
    )
    window: Annotated[int, Field(ge=2)] = Field(
        20, description="most candidates in one prompt; fewer where the context has no room"
    )
    step: Annotated[int, Field(ge=1)] = Field(
        10, description="candidates by which the sliding window moves; less than the window"
    )
    shuffles: Annotated[int, Field(ge=1, le=32)] = Field(
        1,
        description="orders in which each window is shown, their scores averaged: more of them "
        "make up for a model that looks at places, and take their multiple of the time",
    )
    seed: int = Field(0, description="of the shuffles, where they are more than one")
    card_tokens: Annotated[int, Field(ge=8)] = Field(
        48, description="longest product card in the model's tokens"
    )
    min_label_mass: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05, description="probability on all labels below which the answer is not believed"
    )
    reasons: Annotated[int, Field(ge=0, le=10)] = Field(
        3, description="products that the generate readout gives a reason for"
    )
    language: Literal["auto", "en", "zh"] = Field(
        "auto", description="of prompts; auto follows the query"
    )
    deadline_ms: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="milliseconds from the request until its answer; waiting for the model ends "
        "a little sooner",
    )


class FusionSettings(Section):
    """Weights of the blend that makes the final order of what the model judged."""

    model: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the model's order")
    recall: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of recall order")
    interest: Annotated[float, Field(ge=0)] = Field(
        1.5,
        description="weight of the profile's interest: where shoppers buy things again it is the "
        "better half of the order; it is near 0 for what they never bought nor touched",
    )
    fallback_interest: Annotated[float, Field(ge=0)] = Field(
        1.0, description="weight of interest, beside recall's 1, where the model has no say"
    )
