"""What a model stores of calls, and who calls it: a caller gets what it reads, and texts are full.

Whatever a model stores of what is returned, how many texts and where they stop, the library's own
callers make of it what they make of a model that stores none of it.
"""

import pytest
import torch
from transformers import pipeline

from hf_maskgit.evaluation.caches import compare_caches
from hf_maskgit.evaluation.greedy_parts import written_greedily
from hf_maskgit.evaluation.samplers import compare_samplers
from hf_maskgit.evaluation.texts import TextWriter, check_writes
from hf_maskgit.hub.card import own_examples, own_samples
from hf_maskgit.hub.reloading import answers_of
from hf_maskgit.rows.writer import RowWriter
from hf_maskgit.visualization.editing import Editor
from hf_maskgit.visualization.recording import record_unmasking
from tests.support.grids import wide
from tests.support.tiny import tiny_model, word_tokenizer

TOKENIZER = word_tokenizer()
MASK = TOKENIZER.mask_token_id
MASKED = torch.tensor([[2, 7, MASK, MASK, 9, 3]])
STOPS = {"stop_strings": ["never"]}
OF_CALLS = {
    "num_return_sequences": 3,
    "return_dict_in_generate": True,
    "output_history": True,
    "output_alternatives": 2,
    **STOPS,
}
# Stored of an output that nobody asks for: no call is refused for it.
PARTS = {"output_history": True, "output_alternatives": 2}


def infilled(model):
    return pipeline("infilling", model=model, tokenizer=TOKENIZER)


def written_behind(model):
    write = pipeline("text-generation", model=model, tokenizer=TOKENIZER)
    return write(["w1", "w2 [MASK]"], seed=1)


def rows(model):
    writer = RowWriter(model, TOKENIZER, {"steps": 2})
    return [writer.write(some, [1, 2]) for some in (["w1", "w2 w3"], ["[MASK]", "w2 [MASK]"])]


def edited(model):
    editor = Editor(infilled(model))
    return editor.text(editor.fill(editor.read("w1 {blank:2} w3", 0), seed=0)[0])


CALLERS = {
    "texts of a training": lambda m: TextWriter(m, TOKENIZER, ["", "w1", "[MASK] w2"], 2).write(m),
    "samples of a card": lambda m: own_samples(m, TOKENIZER, [6, 9]),
    "examples of a card": lambda m: own_examples(m, TOKENIZER),
    "what must reload": lambda m: answers_of(m, TOKENIZER)["the seeded sample"],
    "samplers": lambda m: [
        one.texts.tolist()
        for one in compare_samplers(m, MASKED, [{}, {"steps": 2}], num_texts=2, progress=False)
    ],
    "caches": lambda m: [
        one.texts.tolist() for one in compare_caches(m, MASKED, [{}], num_texts=2, judged=False)
    ],
    "rows": rows,
    "a text that is edited": edited,
    "a text that is watched": lambda m: (
        record_unmasking(m, TOKENIZER, max_new_tokens=4, seed=0).text
    ),
}
# These return as many texts as are stored.
PIPELINES = {
    "infilling": lambda m: infilled(m)(["w1 {blank:2} w3", "w1 [MASK]"], seed=0),
    "text generation": written_behind,
}


def made_by(caller, stored):
    model = tiny_model()
    model.generation_config.max_new_tokens = 4
    for name, value in stored.items():
        setattr(model.generation_config, name, value)
    return caller(model)


LONGER = ("texts of a training", "samplers", "caches", "text generation")


@pytest.mark.parametrize("name", [wide(name) if name in LONGER else name for name in CALLERS])
def test_what_is_stored_of_calls_changes_nothing_of_what_a_caller_makes(name):
    assert made_by(CALLERS[name], OF_CALLS) == made_by(CALLERS[name], {})


@pytest.mark.parametrize("name", [wide(name) if name in LONGER else name for name in PIPELINES])
def test_stored_stops_and_parts_change_nothing_of_what_a_pipeline_makes(name):
    plain = made_by(PIPELINES[name], {})
    assert made_by(PIPELINES[name], STOPS | PARTS) == plain
    assert all(len(texts) == 3 for texts in made_by(PIPELINES[name], OF_CALLS))


def test_parts_of_an_output_that_nobody_asks_for_are_none():
    model = tiny_model()
    for name, value in PARTS.items():
        setattr(model.generation_config, name, value)
    assert isinstance(model.generate(MASKED, seed=0), torch.Tensor)
    out = model.generate(MASKED, seed=0, return_dict_in_generate=True)
    assert out.history is not None
    assert out.alternatives.shape[-1] == 2
    model.generation_config.return_dict_in_generate = True
    assert isinstance(model.generate(MASKED, seed=0, return_dict_in_generate=False), torch.Tensor)


def test_stored_stop_strings_are_for_texts_that_are_continued():
    model = tiny_model()
    plain = model.generate(MASKED, seed=0)
    model.generation_config.stop_strings = ["w1"]
    assert torch.equal(model.generate(MASKED, seed=0), plain)
    with pytest.raises(ValueError, match="pass the model's `tokenizer=` too"):
        model.generate(max_new_tokens=4, seed=0)
    with pytest.raises(ValueError, match="nothing is appended here; leave them out"):
        model.generate(MASKED, seed=0, stop_strings="w1", tokenizer=TOKENIZER)


WAYS = ["fixed", "sampled", "window", "pattern"]


@pytest.mark.parametrize("way", WAYS)
def test_who_names_no_new_token_gets_none_however_lengths_are_found(way):
    model = tiny_model(lengths={"9": 1}, end_fill=16)
    model.generation_config.num_tokens = way
    for ids in (MASKED, MASKED.masked_fill(MASKED == MASK, 8)):
        assert model.generate(ids, max_new_tokens=0, seed=0).shape == ids.shape


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("known", [True, False])
def test_a_number_that_a_call_names_counts_where_a_stored_way_finds_none(way, known):
    """Of rows of 2, 6 and 9 words: by the longest of training (7), or its window (8 words)."""
    model = tiny_model(**({"lengths": {"7": 1}, "end_fill": 10} if known else {}))
    model.generation_config.num_tokens = way
    rows = TOKENIZER(["w1 w1", "w1 w1 w1 w1 w1 w1", " ".join(["w1"] * 9)], padding=True)
    ids, real = torch.tensor(rows["input_ids"]), torch.tensor(rows["attention_mask"])
    found = {"sampled": [4, 1, 4], "window": [4, 2, 4]}.get(way, [4, 4, 4]) if known else [4] * 3
    asked = {"max_new_tokens": 4, "seed": 0, "return_dict_in_generate": True}
    assert model.generate(ids, real, **asked).num_new_tokens.tolist() == found
    if way != "fixed":  # who names the way is told that there is none
        with pytest.raises(ValueError, match=f"num_tokens='{way}'"):
            model.generate(ids, real, num_tokens=way, **asked)


@pytest.mark.parametrize(
    "stored",
    [{"pace": "speculative"}, {"order": "random"}, {"remask": "p2"}, {"pace": "first_hitting"}],
    ids=lambda stored: next(iter(stored.values())),
)
def test_greedy_calls_go_with_every_stored_sampler(stored):
    model = tiny_model()
    plain = model.generate(MASKED, do_sample=False)
    model.generation_config.update(**stored)
    found = model.generate(MASKED, do_sample=False)
    assert found.shape == plain.shape
    assert not (found == MASK).any()


def test_a_stored_list_of_lengths_is_of_no_call_and_named_ones_do():
    model = tiny_model()
    model.generation_config.max_new_tokens = [3, 5]
    for asks in (lambda m: m.generate(seed=0), lambda m: own_examples(m, TOKENIZER), check_writes):
        with pytest.raises(
            ValueError, match=r"The model stores max_new_tokens=\[3, 5\], and a list"
        ):
            asks(model)
    assert model.generate(max_new_tokens=2, suppress_tokens=[3], seed=0).shape == (1, 4)
    assert answers_of(model, TOKENIZER)["the seeded sample"]


def test_blocks_that_the_stored_steps_do_not_reach_are_told_before_a_training():
    """As its card would be refused at its end."""
    model = tiny_model(trained_length=10)
    model.generation_config.update(block_length=2, steps=4)
    check_writes(model)  # 8 tokens
    for changed in ({"steps": 3}, {"block_length": 1}):
        narrow = tiny_model(trained_length=10)
        narrow.generation_config.update(**{"block_length": 2, "steps": 4, **changed})
        for asks in (check_writes, lambda m: own_examples(m, TOKENIZER)):
            with pytest.raises(ValueError, match="each needs a step of its own"):
                asks(narrow)
    # as long as the longest text, however the model finds lengths
    model.config.lengths = {"3": 5, "8": 1}
    model.generation_config.update(num_tokens="sampled", steps=3, max_new_tokens=2)
    with pytest.raises(ValueError, match="8 masks make 4 blocks of block_length=2"):
        check_writes(model)


# Whatever a model stores, what is greedy is the likeliest token, the surest place first.
STORED = [
    {"guidance_scale": 4.0},
    wide({"repetition_penalty": 9.0}),
    {"suppress_tokens": list(range(5, 30))},
    wide({"bad_words_ids": [[i] for i in range(5, 30)]}),
    wide({"eos_token_id": list(range(5, 30))}),
    {"use_cache": True, "cache_refresh_interval": 100, "block_length": 2},
    wide({"max_unknown_share": 0.0, "temperature": 0.1, "top_k": 1, "top_p": 0.1}),
    {"order": "random", "pace": "ancestral", "steps": 1, "schedule": "cosine"},
    {"num_tokens": "window", "max_new_tokens": 3},
    OF_CALLS,
]


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: next(iter(stored)))
def test_what_is_greedy_follows_from_no_stored_option(stored):
    model = tiny_model(end_fill=40)
    ids = torch.tensor([[2, *range(8, 14), 3], [2, 1, *range(20, 25), 3]])
    judged = torch.zeros_like(ids).bool()
    judged[:, 3:6] = True
    greedy = {"do_sample": False, "order": "top_probability", "schedule": "linear", "steps": 3}
    written = model.generate(ids.masked_fill(judged, MASK), **greedy)
    changed = written.clone()
    changed[:, 5] = 5 + (changed[:, 5] - 4) % 30
    examples = [
        {"input_ids": row, "maskable": places}
        for text in (written, changed)
        for row, places in zip(text.tolist(), judged.long().tolist(), strict=True)
    ]
    for name, value in stored.items():
        setattr(model.generation_config, name, value)
    assert written_greedily(model, examples) == [True, True, False, False]


@pytest.mark.wide
def test_a_greedy_pipeline_draws_the_lengths_that_it_samples():
    """Eight of 37 lengths are all the same once in 10 ** 10 runs."""
    model = tiny_model(lengths={str(n): 1 for n in range(3, 40)})
    model.generation_config.num_tokens = "sampled"
    write = pipeline("text-generation", model=model, tokenizer=TOKENIZER)
    asked = {"do_sample": False, "steps": 1, "return_tensors": True}
    texts = [write("w1", **asked)[0]["generated_token_ids"] for _ in range(8)]
    assert len(set(map(len, texts))) > 1
