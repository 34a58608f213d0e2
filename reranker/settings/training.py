"""Settings of tuning."""

from typing import Annotated, Literal

from pydantic import Field

from reranker.settings.section import Section


class TrainingSettings(Section):
    """Tuning of the embedded model on a shop's purchases."""

    lists: Annotated[int, Field(ge=1)] = Field(8000, description="lists to learn from, all in all")
    batch: Annotated[int, Field(ge=1)] = Field(8, description="lists between two steps")
    candidates: Annotated[int, Field(ge=2, le=200)] = Field(
        20, description="products of a list, the one that was bought among them"
    )
    random_negatives: Annotated[float, Field(ge=0)] = Field(
        1.0, description="weight of products drawn from the whole catalogue"
    )
    popular_negatives: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of products drawn by how often they are bought"
    )
    category_negatives: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="weight of products of the category of the one that was bought; of a store's "
        "purchases always 5, as searches find products of one kind",
    )
    objective: Literal["listwise", "ranknet", "lambdarank", "preference", "policy"] = Field(
        "listwise",
        description="loss of what was wanted: cross-entropy of the list, of its pairs, of pairs by "
        "what they do to nDCG, direct preference against the untuned model, or the logged reward "
        "by inverse propensity, which files alone can bring (lists without one: listwise)",
    )
    written: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="weight of an auxiliary loss of ranking.readout = labels: the language model's "
        "on the ranking written out behind the prompt, the wanted first, those that a teacher "
        "grades in its order; what is served is still the first label; 0: none",
    )
    preference_strength: Annotated[float, Field(gt=0)] = Field(
        0.5, description="beta of direct preference: higher stays closer to the untuned model"
    )
    policy_weight: Annotated[float, Field(gt=0)] = Field(
        10.0, description="highest weight by inverse propensity of a logged list"
    )
    hostile: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="share of lists in which the text of one product, whichever, asks to be ranked "
        "first, or looks like scores and verdicts: nothing follows from it",
    )
    teacher: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="share of the loss by the interest learnt from the histories of files, or by "
        "scores that they bring; lists of a store have none; 0: none",
    )
    temperature: Annotated[float, Field(gt=0)] = Field(
        2.0, description="of the teacher's part: higher counts the order of unlikely products more"
    )
    profile_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="share of lists that say nothing of the shopper"
    )
    sales_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05,
        description="share of lists that say of no product how much it sells, as where nothing has "
        "been learnt",
    )
    method: Literal["lora", "qlora", "dora", "adalora", "prefix", "full"] = Field(
        "lora",
        description="what is trained: matrices of low rank beside the layers (LoRA, which vLLM "
        "serves as they are), those beside layers kept in 4 bits (QLoRA, for large models on a "
        "GPU; saved as LoRA), those and the layers' lengths (DoRA), those with ranks that move to "
        "the layers that need them (AdaLoRA, saved as LoRA), keys and values before every prompt "
        "(prefix tuning, which the embedded model alone uses), or all weights but the "
        "vocabulary's; of DoRA and all weights vLLM serves the merged model",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of what goes into the matrices of low rank that is left out"
    )
    gradient_checkpointing: bool = Field(
        False,
        description="compute a layer's inside again on the way back (gradient checkpointing): less "
        "memory, more time",
    )
    rank: Annotated[int, Field(ge=1, le=512)] = Field(
        8,
        description="of the matrices of low rank; of AdaLoRA's on average in the end, half as much "
        "again in the beginning",
    )
    alpha: Annotated[float, Field(gt=0)] = Field(
        32.0,
        description="products of the matrices are scaled by alpha / rank, of AdaLoRA's by their "
        "rank in the beginning",
    )
    prefix_tokens: Annotated[int, Field(ge=1, le=512)] = Field(
        16, description="length of a learned prefix"
    )
    rank_stabilised: bool = Field(False, description="scale by alpha / sqrt(rank) (rsLoRA)")
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="highest, of AdamW")
    schedule: Literal["cosine", "trapezoid"] = Field(
        "cosine",
        description="of the learning rate after the warm-up: cosine to 0, or constant and then "
        "straight to 0 over the last fifth",
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.03, description="share of the steps in which the learning rate rises"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="of AdamW")
    clip: Annotated[float, Field(gt=0)] = Field(1.0, description="longest gradient")
    average: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.98,
        description="share of the weights' average that a step keeps; the average is what is "
        "validated and saved",
    )
    pass_tokens: Annotated[int, Field(ge=64)] = Field(
        1024, description="tokens, padding included, that are computed at once"
    )
    validation_shoppers: Annotated[int, Field(ge=1)] = Field(
        1000,
        description="shoppers of each source held back, whose last purchases are validated on; "
        "no other source learns from them, where it has the same ids",
    )
    validation_lists: Annotated[int, Field(ge=1)] = Field(
        200,
        description="lists of theirs that are looked at during the training, of each source in "
        "the share in which it is learnt from",
    )
    validate_every: Annotated[int, Field(ge=1)] = Field(
        100, description="steps between two validations"
    )
    checkpoint_every: Annotated[int, Field(ge=1)] = Field(
        25, description="steps between two checkpoints"
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="validations without a better one after which training ends; 0: never"
    )
    seed: int = Field(0, description="of all that is drawn")
