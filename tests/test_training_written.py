"""The language-model loss on a ranking that is written out behind a labels prompt."""

import string
from pathlib import Path

import pytest
import torch
from langchain_core.messages import AIMessage, HumanMessage
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from reranker.cli.tune import files_in
from reranker.errors import ConfigError
from reranker.models.asking import describe
from reranker.models.rendering import PromptRenderer, load_tokenizer
from reranker.models.tokenizing import HFTokenizer
from reranker.parsing import parse_ranking
from reranker.prompting import PromptBudget
from reranker.schema import Candidate, Product, Prompt, SearchRequest, TemplateRef
from reranker.settings import TrainingSettings
from reranker.training.encoding import EncodedList, ExampleEncoder, PromptMaker, ranked
from reranker.training.examples import TrainingExample
from reranker.training.network import TunedNetwork
from reranker.training.objective import list_loss
from reranker.training.record import read_record
from reranker.training.tuning import tune
from tuning_shop import tuning_settings


@pytest.fixture(scope="module")
def renderer(smollm2_folder: Path) -> PromptRenderer:
    return PromptRenderer(load_tokenizer(smollm2_folder))


def encoder(folder: Path, renderer: PromptRenderer, *, context: int = 2048) -> ExampleEncoder:
    spec = describe(renderer, name="tiny", context_length=context)
    budget = PromptBudget(card=16, profile=64)
    return ExampleEncoder(
        PromptMaker(HFTokenizer(folder), spec, readout="labels", budget=budget), renderer
    )


def example(
    *grades: float, teacher: tuple[float, ...] | None = None, title: str = "tea"
) -> TrainingExample:
    return TrainingExample(
        example_id="e",
        user_id="u",
        told=None,
        request=SearchRequest(query="tea"),
        candidates=tuple(
            Candidate(
                product=Product(product_id=f"{n}", title=f"{title} {n}"),
                recall_rank=n + 1,
                recall_score=0.0,
            )
            for n in range(len(grades))
        ),
        grades=grades,
        teacher=teacher,
    )


def test_the_wanted_come_first_and_then_what_a_teacher_likes() -> None:
    assert ranked((0, 2, 0, 1), None) == [1, 3]
    assert ranked((0, 2, 0, 1), (0.5, -9, 0.7, -8)) == [1, 3, 2, 0]
    assert ranked((0, 0), None) == []


def test_equals_are_written_in_a_drawn_order() -> None:
    alike = (1.0,) * 6
    orders = {tuple(ranked(alike, None, seed=str(number))) for number in range(20)}
    assert len(orders) > 15
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(6))}
    assert ranked(alike, None, seed="a") == ranked(alike, None, seed="a")


def test_what_is_written_goes_on_with_the_answer_and_is_read_by_our_parser(
    smollm2_folder: Path, renderer: PromptRenderer
) -> None:
    encodes = encoder(smollm2_folder, renderer)
    given = example(0, 1, 0, 0, teacher=(3.0, 0.0, 1.0, 2.0))
    one = encodes.encode(given, writes=True)
    plain = encodes.encode(given)
    assert plain.written == ()
    assert one.prompt == plain.prompt
    assert len(one) == len(plain) + len(one.written)
    assert one.written[0] == one.prompt.label_ids[one.grades.index(1.0)]
    assert one.written[-1] == renderer.end_id
    answer = renderer.decode(one.prompt.token_ids[-1:] + one.written)
    labels = "ABCD"
    parsed = parse_ranking(answer, labels)
    assert one.teacher is not None
    order = [labels[slot] for slot in ranked(one.grades, one.teacher)]
    assert answer.strip() == " > ".join(f"[{label}]" for label in order)
    assert [labels[slot] for slot in parsed.order] == order
    bought = encodes.encode(example(0, 1, 0), writes=True)
    assert len(bought.written) == 3  # the label, its bracket, the end
    assert encodes.encode(example(0, 0, 0), writes=True).written == ()


def test_a_ranking_that_the_context_has_no_room_for_is_left_out_and_said_once(
    smollm2_folder: Path, renderer: PromptRenderer, caplog: pytest.LogCaptureFixture
) -> None:
    given = example(1, *[0.0] * 19, teacher=(0.0,) * 20, title="tea of lemon and honey")
    length = len(encoder(smollm2_folder, renderer).encode(given))
    tight = encoder(smollm2_folder, renderer, context=length + 60)
    assert tight.encode(given, writes=True).written == ()
    assert tight.encode(given, writes=True) == tight.encode(given)
    assert caplog.text.count("no room") == 1
    assert "lower training.candidates" in caplog.text


def test_nothing_else_is_learnt_of_a_model_that_puts_a_sign_before_words() -> None:
    """As Llama 2 and the older Mistral models do: encoded alone, a text begins with that sign."""
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    words.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=103,  # the alphabet alone: nothing runs together
        special_tokens=["<unk>", "</s>"],
        initial_alphabet=[*string.printable, "▁"],
        show_progress=False,
    )
    words.train_from_iterator(["[A] > [B] > [C] tea ] >"] * 5, trainer)
    loaded = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", unk_token="<unk>")
    loaded.chat_template = (
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}{% if not loop.last or "
        "add_generation_prompt %}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    renderer = PromptRenderer(loaded)
    prompt = Prompt(
        messages=(HumanMessage("tea"), AIMessage("[")),
        order=(0, 1, 2),
        labels=("A", "B", "C"),
        readout="labels",
        template=TemplateRef(name="t", version=1, language="en", sha256="0"),
        token_count=9,
    )
    rendered = renderer.render(prompt)
    written = renderer.continued(prompt, rendered, ["B", "C", "A"])
    assert written[0] == rendered.label_ids[1]
    pieces = loaded.convert_ids_to_tokens(list(written))
    assert "".join(pieces) == "B]▁>▁[C]▁>▁[A]</s>"


def test_written_tokens_have_the_log_probabilities_of_the_whole_model(
    smollm2_folder: Path, renderer: PromptRenderer, tiny_folder: Path
) -> None:
    from transformers import AutoModelForCausalLM

    encodes = encoder(smollm2_folder, renderer)
    group: list[EncodedList] = [
        encodes.encode(given, writes=True)
        for given in (
            example(0, 1, 0, teacher=(1.0, 2.0, 3.0)),
            example(0, 0, 0),  # nothing to write
            example(1, 0, 0, 0, 0, title="green tea"),
        )
    ]
    made = TunedNetwork(tiny_folder, TrainingSettings(rank=4), dtype="float32")
    whole = AutoModelForCausalLM.from_pretrained(str(tiny_folder), dtype=torch.float32)
    with torch.no_grad():
        found = made.scores_and_written(group)
        for one, (scores, written), alone in zip(group, found, made.scores(group), strict=True):
            torch.testing.assert_close(scores, alone, atol=1e-4, rtol=0)
            tokens = torch.tensor([*one.prompt.token_ids, *one.written])
            logprobs = torch.log_softmax(whole(input_ids=tokens[None]).logits[0], dim=-1)
            start = len(one.prompt.token_ids)
            places = torch.arange(start, len(tokens))
            torch.testing.assert_close(
                written, logprobs[places - 1, tokens[start:]], atol=1e-4, rtol=0
            )
    settings = TrainingSettings(teacher=0, written=0.5)
    scores, written = found[0]
    plain = list_loss(scores, group[0], settings)
    joined = list_loss(scores, group[0], settings, written=written)
    assert float(joined - plain) == pytest.approx(-0.5 * float(written.mean()), rel=1e-4)


def test_a_model_learns_to_write_rankings(
    tiny_folder: Path, toy_files: Path, tmp_path: Path
) -> None:
    losses = {}
    for written in (0.0, 1.0):
        settings = tuning_settings(tiny_folder, lists=48, written=written)
        run = tmp_path / str(written)
        tune(settings, [files_in(toy_files)], run, name="toy", readout="labels")
        steps = [line["loss"] for line in read_record(run) if line["kind"] == "step"]
        losses[written] = [float(loss) for loss in steps]
    # A random model has no idea of the tokens: at first they cost much, and after 12 steps less.
    more = [a - b for a, b in zip(losses[1.0], losses[0.0], strict=True)]
    assert more[0] > 3
    assert more[-1] < 0.75 * more[0]


def test_verdicts_write_nothing(tiny_folder: Path, toy_files: Path, tmp_path: Path) -> None:
    settings = tuning_settings(tiny_folder, written=1.0)
    with pytest.raises(ConfigError, match=r"training\.written = 1: .* set ranking\.readout"):
        tune(settings, [files_in(toy_files)], tmp_path, name="toy")
