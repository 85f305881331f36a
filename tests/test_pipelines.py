"""The pipelines of transformers on a saved folder, for users who know none of our classes."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, logging, pipeline

from hf_maskgit import MaskGitForMaskedLM
from tests.tiny import tiny_model, tokenizer_for


@pytest.fixture(scope="module", params=["bert", "roberta", "modernbert"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    path = tmp_path_factory.mktemp(kind)
    logging.disable_progress_bar()
    tiny_model(kind).save_pretrained(path)
    tokenizer_for(kind).save_pretrained(path)
    return str(path)


@pytest.fixture
def writer(folder):
    return pipeline("text-generation", model=folder)


def words(text):
    return [w for w in text.split() if not w.startswith(("[", "<"))]


def only_words(writer):
    """Options under which every new token is a word, so that words count tokens."""
    return {"suppress_tokens": [writer.tokenizer.sep_token_id]}


def test_text_generation_continues_a_prompt(writer):
    (whole,) = writer("w1 w2", max_new_tokens=4, seed=0)
    (new,) = writer("w1 w2", max_new_tokens=4, seed=0, return_full_text=False)
    # transformers itself puts prompt and new text together, without a space between them.
    assert whole["generated_text"] == "w1 w2" + new["generated_text"]
    (new,) = writer("w1 w2", max_new_tokens=4, return_full_text=False, **only_words(writer))
    assert len(words(new["generated_text"])) == 4


def test_text_generation_takes_a_batch(writer):
    prompts = ["w1 w2 w3", "w4", "w5 w6"]
    options = {"max_new_tokens": 3, **only_words(writer)}
    together = writer(prompts, batch_size=3, seed=0, **options)
    assert len(together) == 3
    for prompt, (out,) in zip(prompts, together, strict=True):
        assert out["generated_text"].startswith(prompt)
        assert len(words(out["generated_text"][len(prompt) :])) == 3


def test_a_batch_gives_what_single_prompts_give(writer):
    prompts = ["w1 w2 w3", "w4"]
    options = {"max_new_tokens": 3, "do_sample": False}
    together = writer(prompts, batch_size=2, **options)
    assert together == [writer(prompt, **options) for prompt in prompts]


def test_text_generation_writes_from_an_empty_prompt(writer):
    (out,) = writer("", max_new_tokens=5, **only_words(writer))
    assert len(words(out["generated_text"])) == 5
    (out,) = writer("", max_new_tokens=5, add_special_tokens=False, **only_words(writer))
    assert len(words(out["generated_text"])) == 5


def test_the_length_is_the_models_own_where_none_is_named(writer):
    """transformers would put 256 in its place, more than the encoder has positions."""
    (out,) = writer("w1", return_tensors=True, **only_words(writer))
    prompt, own = writer.tokenizer("w1")["input_ids"], writer.model.generation_config.max_new_tokens
    assert own in (32, 33)
    assert len(out["generated_token_ids"]) == len(prompt) + own


def test_text_generation_returns_several_texts(writer):
    out = writer("w1", num_return_sequences=3, max_new_tokens=6, return_full_text=False, seed=0)
    assert len({o["generated_text"] for o in out}) == 3


def test_text_generation_fills_masks_and_appends_nothing(writer):
    text = f"w1 {writer.tokenizer.mask_token} w3"
    (out,) = writer(text, return_tensors=True)
    ids, prompt = out["generated_token_ids"], writer.tokenizer(text)["input_ids"]
    assert [a == b for a, b in zip(ids, prompt, strict=True)] == [True, True, False, True, True]


def test_a_pipeline_can_be_shown(writer):
    assert "MaskGitForMaskedLM" in repr(writer)


def test_a_seed_goes_through(writer):
    def run(seed):
        return writer("w1", max_new_tokens=8, seed=seed)[0]["generated_text"]

    assert run(1) == run(1) != run(2)


def test_a_wrong_option_is_refused_in_our_words(writer):
    with pytest.raises(ValueError, match="Masked decoding has no option 'num_beams'"):
        writer("w1", num_beams=2)


def test_fill_mask_ranks_as_the_model_does(folder):
    fill = pipeline("fill-mask", model=folder)
    mask = fill.tokenizer.mask_token
    out = fill(f"w1 {mask} w3")
    text = fill.tokenizer(f"w1 {mask} w3", return_tensors="pt")["input_ids"]
    model = MaskGitForMaskedLM.from_pretrained(folder)
    law = model(input_ids=text).logits[0, 2].softmax(-1)
    best = law.topk(5)
    assert [o["token"] for o in out] == best.indices.tolist()
    assert [o["score"] for o in out] == pytest.approx(best.values.tolist(), rel=1e-4)


def test_fill_mask_takes_a_batch_with_several_masks(folder):
    fill = pipeline("fill-mask", model=folder)
    mask = fill.tokenizer.mask_token
    out = fill([f"w1 {mask} w3", f"{mask} w5 {mask}"], batch_size=2, top_k=3)
    assert len(out) == 2
    assert len(out[0]) == 3
    assert len(out[1]) == 2
    assert all(len(position) == 3 for position in out[1])


def test_a_model_in_memory_serves_too(kind):
    writer = pipeline("text-generation", model=tiny_model(kind), tokenizer=tokenizer_for(kind))
    (out,) = writer("w1 w2", max_new_tokens=2, return_full_text=False, **only_words(writer))
    assert len(words(out["generated_text"])) == 2


def test_the_causal_class_is_the_same_model(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is MaskGitForMaskedLM
    tokenizer = AutoTokenizer.from_pretrained(folder)
    out = model.generate(**tokenizer("w1", return_tensors="pt"), max_new_tokens=2)
    assert torch.equal(out[0, :1], tokenizer("w1", return_tensors="pt")["input_ids"][0, :1])
