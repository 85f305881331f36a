"""In every pipeline a text in a batch becomes what it becomes alone, whatever stands beside it."""

import functools
import pickle
import re

import pytest
import torch
from datasets import Dataset
from transformers import pipeline as any_pipeline

from hf_maskgit import Pattern
from hf_maskgit.core import pipeline_maskgit
from hf_maskgit.core.pipeline_text_generation import _Sized
from tests.support.grids import wide
from tests.support.tiny import tiny_model, tokenizer_for, word_tokenizer

pipeline = functools.partial(any_pipeline, device="cpu")  # also where there is a GPU


def pipe_over(task, side="right", **tokenizer_options):
    """A pipeline in float64, where padding does not show in the last digit of a result."""
    tokenizer = tokenizer_for("bert")
    tokenizer.padding_side = side
    for name, value in tokenizer_options.items():
        setattr(tokenizer, name, value)
    return pipeline(task, model=tiny_model("bert").double(), tokenizer=tokenizer)


@pytest.fixture(scope="module", params=["right", "left"])
def write(request):
    return pipe_over("text-generation", request.param)


@pytest.fixture(scope="module", params=["right", "left"])
def fill(request):
    return pipe_over("infilling", request.param)


def assert_alone_is_together(pipe, texts, draw=dict, **options):
    """`draw` makes what a call draws from, anew for each."""
    one_by_one = pipe(texts, batch_size=1, **draw(), **options)
    if draw is dict:
        assert one_by_one == [pipe(text, **options) for text in texts]
    for size in (2, len(texts)):
        together = pipe(texts, batch_size=size, **draw(), **options)
        assert [rounded(one) for one in together] == [rounded(one) for one in one_by_one]


def rounded(result):
    if isinstance(result, float):
        return round(result, 9)
    if isinstance(result, dict):
        return {name: rounded(value) for name, value in result.items()}
    return [rounded(value) for value in result] if isinstance(result, list) else result


PROMPTS = ["w1 w2", "w3", "w4 w5 w6 w7"]


@pytest.mark.grid(2)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_return_sequences": 2},
        {"return_tensors": True},
        {"return_full_text": False, "skip_special_tokens": False},
        {"return_dict_in_generate": True, "output_history": True, "num_return_sequences": 2},
        {"do_sample": False, "return_tensors": True},
        {"preset": "remdm", "steps": 6},
        {"allowed_token_ids": {5: [20, 21], 4: [22]}, "return_tensors": True},
        {"stop_strings": ["w9", "w12"], "temperature": 5.0, "anneal_temperature": False},
    ],
    ids=repr,
)
def test_one_seed_writes_the_same_whatever_the_batch(write, options):
    seed = {} if "do_sample" in options else {"seed": 5}
    assert_alone_is_together(write, PROMPTS, max_new_tokens=4, **options, **seed)


def test_the_same_prompt_twice_comes_out_the_same_twice_and_as_it_always_did(write):
    """The first text of a batch had this seed before; now every text has it."""
    (one,), (two,) = write(["w1", "w1"], batch_size=2, max_new_tokens=6, seed=3)
    ids = write.tokenizer("w1", return_tensors="pt")
    expected = write.model.generate(**ids, max_new_tokens=6, seed=3)[0]
    assert one == two == write("w1", max_new_tokens=6, seed=3)[0]
    (tensors,) = write("w1", max_new_tokens=6, seed=3, return_tensors=True)
    assert tensors["generated_token_ids"] == expected.tolist()


@pytest.mark.grid(2, first=1)
def test_what_a_row_alone_looks_like_in_a_batch(write):
    """No padding, and one history per text: as many states as the text took passes."""
    options = {"return_dict_in_generate": True, "output_history": True, "max_new_tokens": 3}
    options |= {"num_return_sequences": 2, "suppress_tokens": [write.tokenizer.sep_token_id]}
    for records, prompt in zip(write(PROMPTS, batch_size=3, **options), PROMPTS, strict=True):
        length = len(write.tokenizer(prompt)["input_ids"]) + 3
        assert len(records) == 2
        for record in records:
            assert len(record["reveal_steps"]) == length
            assert [len(state) for state in record["history"]] == [length] * 3
            assert record["denoiser_passes"] == 3
            last = write.tokenizer.decode(record["history"][-1], skip_special_tokens=True)
            assert last == record["generated_text"]


@pytest.mark.grid(2)
@pytest.mark.parametrize("named", [{}, {"max_new_tokens": 2}])
def test_texts_to_fill_may_stand_beside_texts_to_continue(write, named):
    texts = ["w1 [MASK] w3", "w2", "[MASK]", "w4 w5"]
    assert_alone_is_together(write, texts, seed=1, steps=4, return_tensors=True, **named)


@pytest.mark.grid(3)
@pytest.mark.parametrize(
    "prompts", [["", "", ""], ["", "w1 w2", ""], ["w1", "", "[MASK] w2"]], ids=repr
)
@pytest.mark.parametrize("framed", [True, False])
def test_an_empty_prompt_may_stand_beside_others(write, prompts, framed):
    options = {"max_new_tokens": 3, "seed": 1, "add_special_tokens": framed}
    assert_alone_is_together(write, prompts, **options)


@pytest.mark.grid(2, first=1)
def test_a_chat_may_stand_beside_others(write, monkeypatch):
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    monkeypatch.setattr(write.tokenizer, "chat_template", template, raising=False)
    chats = [[{"role": "user", "content": text}] for text in PROMPTS]
    assert_alone_is_together(write, chats, max_new_tokens=3, seed=2)


def drawn():
    return {"generator": torch.Generator().manual_seed(7)}


@pytest.mark.grid(2)
def test_a_generator_draws_in_the_order_of_the_texts(write):
    """Also where texts of several kinds are sorted into calls of their own."""
    texts = ["w1 [MASK]", "w2", "[MASK] w3", "w4 w5"]
    assert_alone_is_together(write, texts, drawn, steps=4, num_return_sequences=2)


BLANKS = ["w1 {blank}", "w2 [MASK] w3 w4", "{blank:2-6} w5", "w6 {blank:2}"]


@pytest.mark.grid(2)
@pytest.mark.parametrize("options", [{}, {"num_return_sequences": 2}], ids=repr)
def test_a_generator_draws_lengths_and_tokens_in_the_order_of_the_texts(fill, options):
    assert_alone_is_together(fill, BLANKS, drawn, return_probabilities=True, **options)


@pytest.mark.grid(2)
def test_torchs_global_generator_too(fill, write):
    def seeded(pipe, texts, size, **options):
        torch.manual_seed(3)
        return pipe(texts, batch_size=size, **options)

    for pipe, texts, options in ((fill, BLANKS, {}), (write, PROMPTS, {"max_new_tokens": 3})):
        assert seeded(pipe, texts, 1, **options) == seeded(pipe, texts, 4, **options)


@pytest.mark.grid(2)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_return_sequences": 2, "return_probabilities": True},
        {"allowed_token_ids": {2: [20, 21], 1: [22]}, "num_return_sequences": 2},
    ],
    ids=repr,
)
def test_one_seed_fills_the_same_whatever_the_batch(fill, options):
    assert_alone_is_together(fill, ["[MASK] [MASK]", *BLANKS[:3]], seed=5, **options)


def test_greedy_filling_draws_nothing(fill):
    before = torch.get_rng_state()
    fill("w1 [MASK] {blank:2}", do_sample=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_is_not_for_worker_processes(fill, monkeypatch):
    monkeypatch.setattr(pipeline_maskgit, "get_worker_info", lambda: "a worker")
    with pytest.raises(ValueError, match="`generator` cannot be shared .* give a `seed`, or leave"):
        fill("w1 [MASK]", generator=torch.Generator())
    fill("w1 [MASK]", seed=1)


@pytest.mark.grid(2)
@pytest.mark.parametrize("task", ["text-generation", "infilling"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_tokenizer_without_an_attention_mask(task, side):
    """FNet's is of that kind; padding between texts of several lengths is no text for it either."""
    pipe = pipe_over(task, side, model_input_names=["input_ids", "token_type_ids"])
    usual = pipe_over(task, side)
    texts = PROMPTS if task == "text-generation" else BLANKS
    options = {"seed": 1, "steps": 4}
    assert_alone_is_together(pipe, texts, **options)
    assert pipe(texts, batch_size=4, **options) == usual(texts, batch_size=4, **options)
    if task == "text-generation":  # padding that was asked for is known by its id
        padded = {"tokenizer_encode_kwargs": {"padding": "max_length", "max_length": 9}}
        assert pipe("w1 w2", **options, **padded) == usual("w1 w2", **options)


@pytest.mark.grid(2)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("inputs", [{}, {"model_input_names": ["input_ids", "token_type_ids"]}])
def test_fill_mask_ranks_the_same_whatever_the_batch(side, inputs):
    guess = pipe_over("fill-mask", side, **inputs)
    texts = ["w1 [MASK]", "w2 w3 [MASK] w4 w5 [MASK]", "[MASK] w6 w7"]
    assert_alone_is_together(guess, texts, top_k=3)
    padded = {"tokenizer_kwargs": {"padding": "max_length", "max_length": 9}}
    assert rounded(guess("w1 [MASK]", **padded)) == rounded(guess("w1 [MASK]"))


def test_fill_mask_refuses_a_text_that_is_too_long():
    guess = pipe_over("fill-mask")
    with pytest.raises(
        ValueError, match="comes to 73 tokens, the encoder takes 64. Shorten it, or"
    ):
        guess("w1 " * 70 + "[MASK]")
    cut = {"truncation": True, "max_length": 20}
    assert len(guess("[MASK] " + "w1 " * 70, tokenizer_kwargs=cut)) == 5


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_pipeline_leaves_the_tokenizer_as_it_was(side):
    assert pipe_over("text-generation", side).tokenizer.padding_side == side


@pytest.mark.parametrize("text", ["w1 {blank:2} w3", "{blank}", "w1 {blank:x"])
def test_blanks_are_refused_where_they_are_not_filled(write, text, monkeypatch):
    said = 'holds a blank, which the text-generation pipeline does not fill. .*"infilling"'
    with pytest.raises(ValueError, match=said):
        write(text)
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    monkeypatch.setattr(write.tokenizer, "chat_template", template, raising=False)
    with pytest.raises(ValueError, match=said):
        write([{"role": "user", "content": text}])
    assert write("w1 {blanket}", max_new_tokens=1)  # another word
    with pytest.raises(ValueError, match="holds a blank, which the fill-mask pipeline does not"):
        pipe_over("fill-mask")(f"{text} [MASK]")


LENGTHS = {"lengths": {"3": 2, "7": 3, "12": 2}, "end_fill": 14}


@pytest.mark.wide
@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": [2, 5, 1, 0]},
        wide({"num_tokens": "sampled"}),
        wide({"num_tokens": "window"}),
        {"num_tokens": "sampled", "num_return_sequences": 3},
        wide({"max_new_tokens": [2, 5, 1, 3], "num_return_sequences": 2}),
    ],
    ids=str,
)
def test_texts_of_different_lengths_are_what_they_are_alone(options):
    model, tokenizer = tiny_model("bert", **LENGTHS).double(), word_tokenizer()
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    texts = ["w1 w2", "w3", "w4 [MASK] w5 w6", ""]
    for asked in ({"return_tensors": True}, {"return_full_text": False}):
        alone = []
        for i, text in enumerate(texts):
            new = options.get("max_new_tokens")
            own = options if new is None else {**options, "max_new_tokens": new[i]}
            alone.append(pipe(text, seed=3, **own, **asked))
        for batch_size in (1, 3, 4):
            assert pipe(texts, seed=3, batch_size=batch_size, **options, **asked) == alone


def test_numbers_that_do_not_fit_the_texts_are_refused():
    model, tokenizer = tiny_model("bert"), word_tokenizer()
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    for texts, new in ((["w1", "w2"], [1, 2, 3]), ("w1", [1, 2]), ([], [1])):
        with pytest.raises(ValueError, match="`max_new_tokens` has . entries, .* as many texts"):
            pipe(texts, max_new_tokens=new)
    with pytest.raises(ValueError, match="goes with a list of as many texts .* of type list"):
        pipe([[{"role": "user", "content": "w1"}]], max_new_tokens=[1])
    with pytest.raises(ValueError, match="`max_new_tokens` must be an integer of at least 0, got "):
        pipe(["w1", "w2"], max_new_tokens=[1, -2])


def test_a_text_with_its_number_reaches_the_process_of_a_loader():
    sized = pickle.loads(pickle.dumps(_Sized("w1", 3)))
    assert (sized, sized.max_new_tokens) == ("w1", 3)


@pytest.mark.grid(2)
def test_patterns_are_of_the_rows_of_a_batch(write):
    """Texts that are continued and written from nothing go through different calls."""
    texts = ["w1 w2", "", "w3"]
    patterns = [Pattern.from_regex(f"w{i}( w[5-9]){{1,3}}", write.tokenizer) for i in range(3)]
    options = {"num_tokens": "pattern", "seed": 1, "num_return_sequences": 2}
    together = write(texts, pattern=patterns, batch_size=3, **options)
    copies = [one for pattern in patterns for one in [pattern] * 2]
    assert write(texts, pattern=copies, batch_size=3, **options) == together
    for number, text in enumerate(texts):
        assert write(text, pattern=patterns[number], **options) == together[number]
        for out in together[number]:
            new = out["generated_text"].removeprefix(text).strip()
            assert re.fullmatch(f"w{number}( w[5-9]){{1,3}}", new)
    other = Pattern.from_choices(["a"], word_tokenizer(words=["a", "b"]))
    with pytest.raises(ValueError, match="compiled for another tokenizer"):
        write("w1", pattern=other)
    with pytest.raises(ValueError, match="`pattern` has 2 entries for 3 returned rows"):
        write(texts, pattern=patterns[:2], batch_size=3)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("text-generation", "w1 w2"),
        wide("infilling", "w1 {blank:2}"),
        wide("fill-mask", "w1 [MASK]"),
    ],
)
def test_a_column_of_a_data_set_or_a_tuple_is_several_texts(task, text):
    """What `dataset["text"]` gives is no list, and no text."""
    pipe, texts = pipe_over(task), [text, f"w3 {text}"]
    options = {} if task == "fill-mask" else {"seed": 1}
    expected = pipe(texts, **options)
    assert len(expected) == 2
    assert pipe(Dataset.from_dict({"text": texts})["text"], **options) == expected
    assert pipe(tuple(texts), **options) == expected
    assert pipe((), **options) == []
