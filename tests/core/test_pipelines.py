"""The pipelines of transformers on a saved folder, for users who know none of our classes."""

import functools
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FillMaskPipeline,
    GPT2Config,
    GPT2LMHeadModel,
    TextGenerationPipeline,
    TextStreamer,
    logging,
)
from transformers import pipeline as any_pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from hf_maskgit import (
    MaskGitForMaskedLM,
    MaskGitGenerationConfig,
    MaskGitTextGenerationPipeline,
)
from hf_maskgit.core.pipeline_fill_mask import MaskGitFillMaskPipeline
from tests.support.drawn_tokenizers import Table
from tests.support.tiny import tiny_encoder, tiny_model, tokenizer_for
from tests.support.tiny_tokenizers import SENTENCES, TOKENIZERS, byte_level_tokenizer, model_for

pipeline = functools.partial(any_pipeline, device="cpu")  # also where there is a GPU


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


def inputs_of(pipe, text):
    inputs = pipe.tokenizer(text, return_tensors="pt")
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def words(text):
    return [w for w in text.split() if not w.startswith(("[", "<"))]


def only_words(writer):
    """Options under which every new token is a word, so that words count tokens."""
    return {"suppress_tokens": [writer.tokenizer.sep_token_id]}


def test_text_generation_continues_a_prompt(writer):
    (whole,) = writer("w1 w2", max_new_tokens=4, seed=0)
    (new,) = writer("w1 w2", max_new_tokens=4, seed=0, return_full_text=False)
    assert whole["generated_text"] == "w1 w2" + new["generated_text"]
    assert new["generated_text"].startswith(" w")
    ids = writer.model.generate(**inputs_of(writer, "w1 w2"), max_new_tokens=4, seed=0)[0, 4:]
    expected = [w for w in writer.tokenizer.convert_ids_to_tokens(ids) if w.startswith("w")]
    assert whole["generated_text"].split() == ["w1", "w2", *expected]
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
    (out,) = writer(text, do_sample=False)
    (same,) = writer(text, return_tensors=True, do_sample=False)
    filled = writer.tokenizer.convert_ids_to_tokens(same["generated_token_ids"][2])
    assert out["generated_text"] == f"w1 {filled} w3"
    (out,) = writer(text, return_full_text=False)
    assert out["generated_text"] == ""


def test_a_batch_with_masks_is_filled_row_by_row(writer):
    mask = writer.tokenizer.mask_token
    prompts = [f"w1  {mask} {mask}\tw3", f"{mask} w9 w9 w9 w9", "w2"]
    options = {"max_new_tokens": 2, "do_sample": False, **only_words(writer)}
    together = writer(prompts, batch_size=3, **options)
    assert together == [writer(prompt, **options) for prompt in prompts]
    first, second, third = (out["generated_text"] for (out,) in together)
    assert re.fullmatch(r"w1  w\d+ w\d+\tw3 w\d+ w\d+", first)
    assert re.fullmatch(r"w\d+ w9 w9 w9 w9 w\d+ w\d+", second)
    assert re.fullmatch(r"w2 w\d+ w\d+", third)


def test_a_pipeline_can_be_shown(writer):
    assert "MaskGitForMaskedLM" in repr(writer)


def test_a_seed_goes_through(writer):
    def run(seed):
        return writer("w1", max_new_tokens=8, seed=seed)[0]["generated_text"]

    assert run(1) == run(1) != run(2)


def test_a_wrong_option_is_refused_in_our_words(writer):
    with pytest.raises(ValueError, match="Masked decoding has no option 'num_beams'"):
        writer("w1", num_beams=2)


@pytest.mark.grid(2)
@pytest.mark.parametrize("name", ["stop_sequence", "stop_strings"])
def test_stop_strings_end_a_text(writer, name):
    """Unannealed and wide: among many texts some have the word; all of these end with it."""
    options = {"max_new_tokens": 24, "anneal_temperature": False, "temperature": 5.0}
    options |= {"choice_temperature": 0, **only_words(writer)}
    prompts = [f"w{i}" for i in range(12)]
    free = writer(prompts, batch_size=12, seed=0, return_full_text=False, **options)
    stop = words(free[0][0]["generated_text"])[4]
    cut = writer(
        prompts, batch_size=12, seed=0, return_full_text=False, **options, **{name: [stop]}
    )
    assert len(words(cut[0][0]["generated_text"])) <= 5
    ended = 0
    for (out,) in cut:
        text = words(out["generated_text"])
        ended += stop in text
        assert len(text) == 24 if stop not in text else text.index(stop) == len(text) - 1
    assert 0 < ended < 12


def test_a_wrong_stop_string_is_refused(writer):
    with pytest.raises(ValueError, match="`stop_strings` must be a string or a list of strings"):
        writer("w1", stop_sequence=["w3", ""])


def test_a_streamer_tells_what_the_pipeline_returns(writer):
    told = []

    class Notes(TextStreamer):
        def on_finalized_text(self, text, stream_end=False):
            told.append(text)

    notes = Notes(writer.tokenizer, skip_prompt=True, skip_special_tokens=True)
    options = {"max_new_tokens": 8, "seed": 0}
    (out,) = writer("w1 w2", streamer=notes, return_full_text=False, **options)
    assert "".join(told).split() == out["generated_text"].split()
    with pytest.raises(ValueError, match="A streamer shows one text, and 2 are asked for"):
        writer(["w1", "w2"], batch_size=2, streamer=notes, **options)


def test_what_else_generate_returns_comes_along(writer):
    (out,) = writer("w1 w2", max_new_tokens=3, seed=0, return_dict_in_generate=True)
    prompt = writer.tokenizer("w1 w2")["input_ids"]
    assert out["generated_text"].startswith("w1 w2 ")
    assert out["reveal_steps"][: len(prompt)] == [-1] * len(prompt)


def writer_over(kind):
    tokenizer = TOKENIZERS[kind]()
    torch.manual_seed(0)
    return pipeline("text-generation", model=model_for(tokenizer), tokenizer=tokenizer)


def continue_with(pipe, monkeypatch, ids):
    """Let the model write given tokens behind every prompt."""

    def generate(input_ids, attention_mask, **options):
        return torch.cat([input_ids, torch.tensor([ids] * len(input_ids))], 1)

    monkeypatch.setattr(pipe.model, "generate", generate)


@pytest.mark.parametrize("kind", list(TOKENIZERS))
def test_a_text_continued_with_its_own_words_is_the_text(kind, monkeypatch):
    """Whatever the tokenizer does to spaces; the prompt stays to the letter."""
    pipe = writer_over(kind)
    spoken = str
    if kind == "wordpiece":
        spoken = pipe.tokenizer.backend_tokenizer.normalizer.normalize_str
    chains = {"protein": "MKTAYIAKQRQISFV", "molecule": "CC(=O)Nc1ccc(O)cc1"}
    text = chains.get(kind, SENTENCES[0].replace(":", ","))  # WordPiece writes " :"
    for end in [m.end() for m in re.finditer("." if kind in chains else r"\w+", text)][:-1]:
        prompt = text[:end]
        whole = pipe.tokenizer(text, add_special_tokens=False)["input_ids"]
        known = pipe.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert whole[: len(known)] == known
        continue_with(pipe, monkeypatch, whole[len(known) :])
        (out,) = pipe(prompt)
        assert out["generated_text"].startswith(prompt)
        assert spoken(out["generated_text"]) == spoken(text)
        (new,) = pipe(prompt, return_full_text=False)
        assert prompt + new["generated_text"] == out["generated_text"]


@pytest.mark.parametrize(
    ("kind", "prompt", "tokens", "expected"),
    [
        ("wordpiece", "The play", ["##ers", "sat"], "The players sat"),
        ("wordpiece", "The play", ["cat", "sat"], "The play cat sat"),
        ("wordpiece", "The play ", ["cat"], "The play cat"),
        ("wordpiece", "The  PLAY\n", ["cat"], "The  PLAY\ncat"),
        ("wordpiece", "the cat", [",", "the"], "the cat, the"),
        ("wordpiece", "It isn't", ["(", "as"], "It isn't ( as"),
        ("wordpiece", "a \u0416", ["cat"], "a \u0416 cat"),
        ("wordpiece", "the", ["cat", "[SEP]", "[PAD]"], "the cat"),
        ("wordpiece", "", ["cat", "sat"], "cat sat"),
        ("byte-level", "The", ["\u0120cat"], "The cat"),
        ("byte-level", "The ", ["\u0120cat"], "The cat"),
        ("byte-level", "The play", ["ers"], "The players"),
        ("unigram", "The", ["\u2581cat"], "The cat"),
        ("unigram", "The play", ["ers"], "The players"),
        ("protein", "MKT", ["A", "Y"], "MKTAY"),
        ("protein", "M K T", ["A", "Y"], "M K T A Y"),
    ],
)
def test_a_continuation_joins_on_as_its_tokens_say(kind, prompt, tokens, expected, monkeypatch):
    pipe = writer_over(kind)
    ids = pipe.tokenizer.convert_tokens_to_ids(tokens)
    assert pipe.tokenizer.unk_token_id not in ids
    continue_with(pipe, monkeypatch, ids)
    (out,) = pipe(prompt)
    assert out["generated_text"] == expected
    if prompt:
        assert pipe(prompt, add_special_tokens=False) == [out]


def test_special_tokens_show_when_asked_for(monkeypatch):
    pipe = writer_over("wordpiece")
    continue_with(pipe, monkeypatch, pipe.tokenizer.convert_tokens_to_ids(["cat", "[SEP]"]))
    assert pipe("The", skip_special_tokens=False)[0]["generated_text"] == "The cat [SEP]"


def test_a_prompt_that_was_cut_is_decoded_whole():
    pipe = writer_over("wordpiece")
    text, cut = "The [MASK] sat on the [MASK]", {"truncation": True, "max_length": 5}
    options = {"tokenizer_encode_kwargs": cut, "do_sample": False}
    (out,) = pipe(text, **options)
    (same,) = pipe(text, return_tensors=True, **options)
    ids = same["generated_token_ids"]
    assert len(ids) == 5
    assert out["generated_text"] == pipe.tokenizer.decode(ids, skip_special_tokens=True)


CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def test_a_chat_is_answered_and_continued(monkeypatch):
    pipe = writer_over("wordpiece")
    pipe.tokenizer.chat_template = CHAT
    user = {"role": "user", "content": "The cat"}
    continue_with(pipe, monkeypatch, pipe.tokenizer.convert_tokens_to_ids(["sat", "on"]))
    (out,) = pipe([user])
    assert out["generated_text"] == [user, {"role": "assistant", "content": "sat on"}]
    begun = {"role": "assistant", "content": "The play"}
    continue_with(pipe, monkeypatch, pipe.tokenizer.convert_tokens_to_ids(["##ers", "sat"]))
    (out,) = pipe([user, begun])
    assert out["generated_text"] == [user, {**begun, "content": "The players sat"}]
    continue_with(pipe, monkeypatch, pipe.tokenizer.convert_tokens_to_ids(["sat"]))
    (out,) = pipe([user, begun])
    assert out["generated_text"] == [user, {**begun, "content": "The play sat"}]
    (out,) = pipe([user, begun], return_full_text=False)
    assert out["generated_text"] == " sat"


@pytest.fixture
def gpt2():
    tokenizer = byte_level_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64)
    return {"model": GPT2LMHeadModel(config).eval(), "tokenizer": tokenizer}


def test_the_pipelines_of_other_models_are_transformers_own(gpt2, tmp_path):
    pipe = pipeline("text-generation", **gpt2)
    assert type(pipe) is TextGenerationPipeline
    plain = TextGenerationPipeline(**gpt2, task="text-generation", device="cpu")
    options = {"do_sample": False, "max_new_tokens": 4, "stop_sequence": "never"}
    assert pipe("The cat", **options) == plain("The cat", **options)
    pipe.save_pretrained(tmp_path / "saved")
    assert "custom_pipelines" not in json.loads(Path(tmp_path, "saved/config.json").read_text())
    assert type(pipeline("text-generation", model=str(tmp_path / "saved"))) is type(pipe)


def test_registering_leaves_the_rest_of_the_task_as_it_was():
    entry = PIPELINE_REGISTRY.supported_tasks["text-generation"]
    assert entry["default"]["model"]
    assert entry["pt"] == (AutoModelForCausalLM,)


def test_our_text_generation_refuses_other_models(gpt2):
    with pytest.raises(ValueError, match="MaskGitTextGenerationPipeline needs .* type 'gpt2'"):
        MaskGitTextGenerationPipeline(**gpt2)


def test_fill_mask_ranks_as_the_model_does(folder):
    fill = pipeline("fill-mask", model=folder)
    mask = fill.tokenizer.mask_token
    out = fill(f"w1 {mask} w3")
    text = fill.tokenizer(f"w1 {mask} w3", return_tensors="pt")["input_ids"]
    model = MaskGitForMaskedLM.from_pretrained(folder)
    logits = model(input_ids=text).logits[0, 2]
    logits[fill.tokenizer.all_special_ids] = -torch.inf
    probability = logits.softmax(-1)
    best = probability.topk(5)
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


def test_fill_mask_shows_every_word_and_nothing_else():
    """The mask, padding, an end, the unknown, a reserved token, a gap, a padded table: none."""
    words = {f"w{i}": 5 + i for i in range(10)}
    ids = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 20, "<reserved>": 17, **words}
    roles = {role: f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
    frame = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]")
    tokenizer = Table(ids, roles, ["<reserved>"], frame).build()
    encoder = tiny_encoder(vocab_size=24)
    model = MaskGitForMaskedLM.from_encoder(encoder, tokenizer=tokenizer, check_tokenizer=False)
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    shown = fill("w1 [MASK] w3", top_k=24)
    assert sorted(s["token"] for s in shown) == sorted(words.values())
    assert sorted(s["token_str"] for s in shown) == sorted(words)
    assert sum(s["score"] for s in shown) == pytest.approx(1, abs=1e-5)
    logits = encoder(**tokenizer("w1 [MASK] w3", return_tensors="pt")).logits[0, 2, 5:15]
    expected = dict(zip(words, logits.softmax(-1).tolist(), strict=True))
    assert {s["token_str"]: s["score"] for s in shown} == pytest.approx(expected, rel=1e-4)
    two = fill("w1 [MASK] w3", targets=["w5", "w7"])
    assert {s["token_str"]: s["score"] for s in two} == pytest.approx(
        {word: expected[word] for word in ("w5", "w7")}, rel=1e-4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["w1", "[MASK]"]}, r"come to the token '\[MASK\]' \(id 4\), which is no word"),
        ({"targets": "nobody"}, r"'\[UNK\]' \(id 1\), which is no word that the model could write"),
        ({"top_k": 0}, "`top_k` must be an integer of at least 1, got 0"),
        ({"top_k": "3"}, "`top_k` must be an integer of at least 1, got '3'"),
    ],
)
def test_what_fill_mask_cannot_show(options, message):
    fill = pipeline("fill-mask", model=tiny_model(), tokenizer=tokenizer_for("bert"))
    with pytest.raises(ValueError, match=message):
        fill("w1 [MASK] w3", **options)


@pytest.mark.parametrize("task", ["infilling", "text-generation", "fill-mask"])
def test_what_is_no_text_is_refused(task):
    read = pipeline(task, model=tiny_model(), tokenizer=tokenizer_for("bert"))
    for given, said in ((None, "got None of type NoneType"), (3, "got 3 of type int")):
        with pytest.raises(ValueError, match=rf"a text \(str\) or a list of texts, {said}"):
            read(given)


@pytest.mark.parametrize("task", ["infilling", "text-generation", "fill-mask"])
def test_of_no_text_nothing_comes(task):
    assert pipeline(task, model=tiny_model(), tokenizer=tokenizer_for("bert"))([]) == []


@pytest.mark.parametrize("task", ["infilling", "fill-mask"])
def test_what_are_no_keywords_of_a_tokenizer(task):
    read = pipeline(task, model=tiny_model(), tokenizer=tokenizer_for("bert"))
    with pytest.raises(ValueError, match="`tokenizer_kwargs` must be a dict of the tokenizer's"):
        read("w1 [MASK]", tokenizer_kwargs=3)


@pytest.mark.parametrize("targets", [3, [], ["w1", 2]], ids=str)
def test_targets_are_words(targets):
    fill = pipeline("fill-mask", model=tiny_model(), tokenizer=tokenizer_for("bert"))
    with pytest.raises(ValueError, match="`targets` must be a word or a list of words, got"):
        fill("w1 [MASK]", targets=targets)


def test_fill_mask_of_other_models_is_transformers_own():
    plain = pipeline("fill-mask", model=tiny_encoder(), tokenizer=tokenizer_for("bert"))
    assert type(plain) is FillMaskPipeline
    with pytest.raises(ValueError, match="MaskGitFillMaskPipeline needs .* type 'bert'"):
        MaskGitFillMaskPipeline(tiny_encoder(), tokenizer_for("bert"))


@pytest.mark.parametrize("task", ["infilling", "text-generation", "fill-mask"])
def test_a_tokenizer_that_has_grown_unnoticed_is_refused(task):
    model, tokenizer = tiny_model(), tokenizer_for("bert")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<user>"]})
    model.resize_token_embeddings(48, mean_resizing=False)
    with pytest.raises(ValueError, match=r"write the ids 41, 42, 43, 44, 45 and 2 more, for which"):
        pipeline(task, model=model, tokenizer=tokenizer)
    model.resize_token_embeddings(41, mean_resizing=False)
    with pytest.raises(ValueError, match=r"ids 40, which are special .*config\.read_tokenizer"):
        pipeline(task, model=model, tokenizer=tokenizer)
    model.config.read_tokenizer(tokenizer)
    pipeline(task, model=model, tokenizer=tokenizer)


@pytest.mark.wide
def test_what_nobody_stored_is_the_models_own_in_the_pipeline_too():
    """transformers' would be 256 tokens at temperature 0.7."""
    model, tokenizer = tiny_model(), tokenizer_for("bert")
    model.generation_config = MaskGitGenerationConfig(order="random")
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    prompt = tokenizer("w1 w2", return_tensors="pt")
    (out,) = write("w1 w2", seed=3, return_tensors=True, suppress_tokens=[3])
    expected = model.generate(**prompt, seed=3, suppress_tokens=[3])
    assert len(out["generated_token_ids"]) == 4 + 32
    assert out["generated_token_ids"] == expected[0].tolist()


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
