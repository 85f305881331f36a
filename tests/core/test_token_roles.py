"""Laws of tokens over all tokenizers: whatever roles they share, lack, reserve or leave out."""

import copy
import functools
import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from transformers import pipeline

from hf_maskgit import DataCollatorForMaskGit, MaskGitConfig, MaskGitForMaskedLM
from hf_maskgit.core.special_tokens import tokenizer_fields
from hf_maskgit.training.framing import pack_bodies
from tests.support.drawn_tokenizers import Table, tables
from tests.support.tiny import TableModel, bert_config

SIX_OF_ALL = {"mask": "<mask>", **dict.fromkeys(("pad", "unk", "bos", "eos", "cls", "sep"), "<s>")}


@functools.lru_cache
def model_of(num_rows):
    """Random weights, as many rows as are asked for; its configuration is set by each test."""
    torch.manual_seed(0)
    encoder = bert_config(vocab_size=num_rows, num_hidden_layers=1)
    return MaskGitForMaskedLM(MaskGitConfig(text_config=encoder, mask_token_id=0)).eval()


def config_of(table, padding=0):
    """The configuration of a model whose table has `padding` rows more than the tokenizer ids."""
    fields = tokenizer_fields(table.build())
    return MaskGitConfig(text_config=bert_config(vocab_size=table.size + padding), **fields)


def roles(table):
    """What the tokenizer's names say, worked out from the drawn table alone: ids by role."""
    by_role = {role: table.ids[token] for role, token in table.roles.items()}
    end = by_role.get("eos", by_role.get("sep"))
    return {
        "mask": by_role["mask"],
        "end": end,
        "unknown": by_role.get("unk"),
        "words": {table.ids[word] for word in table.words},
        "all": set(table.ids.values()),
    }


@pytest.mark.wide
@given(tables())
@settings(max_examples=40)
def test_each_id_has_the_part_that_the_table_of_parts_says(table):
    role, config = roles(table), config_of(table, padding=3)
    emitted = set(range(table.size + 3)) - set(config.forbidden_token_ids)
    written = set(range(table.size + 3)) - set(config.unwritten_token_ids)
    end = {role["end"]} - {None}
    assert emitted == role["words"] | end | {role["unknown"]} - {None}
    assert written == role["words"] | end
    assert set(config.end_token_ids) == end


@pytest.mark.wide
@given(tables())
@settings(max_examples=25)
def test_nothing_without_a_text_is_written_and_texts_end(table):
    role, config = roles(table), config_of(table, padding=2)
    assume(config.pad_token_id is not None or config.eos_token_id is None)
    written = TableModel(config).generate(
        max_new_tokens=12, num_return_sequences=6, seed=0, order="random", anneal_temperature=False
    )
    start = len(config.prefix_ids)
    for row in written.tolist():
        new, closing = row[start : start + 12], row[start + 12 :]
        ended = role["end"] in new
        text = new[: new.index(role["end"])] if ended else new
        assert set(text) <= role["words"]
        # Behind an end there is padding, also in place of the closing frame.
        assert set(new[len(text) + 1 :]) <= {config.pad_token_id}
        assert closing == ([config.pad_token_id] * len(closing) if ended else config.suffix_ids)


@pytest.mark.wide
@given(tables())
@settings(max_examples=25)
def test_a_hole_is_filled_with_words_and_never_ends(table):
    role, config = roles(table), config_of(table)
    words = sorted(role["words"])
    hole = [words[0], *[role["mask"]] * 4, words[1]]
    text = torch.tensor([[*config.prefix_ids, *hole, *config.suffix_ids]])
    real = torch.ones_like(text)
    options = {"num_return_sequences": 4, "seed": 1, "order": "random"}
    filled = TableModel(config).generate(text, real, anneal_temperature=False, **options)
    assert set(filled[text.expand_as(filled) == role["mask"]].tolist()) <= role["words"]
    ends = sorted(role["all"] - {role["mask"]})[:2]  # others that a caller calls ends
    filled = TableModel(config).generate(text, real, eos_token_id=ends, pad_token_id=0, **options)
    assert set(filled[text.expand_as(filled) == role["mask"]].tolist()) <= role["words"] - {*ends}


@pytest.mark.wide
@given(tables())
@settings(max_examples=25)
def test_what_training_labels_can_be_emitted_and_random_tokens_are_words(table):
    role, config, tokenizer = roles(table), config_of(table, padding=1), table.build()
    assume(tokenizer.pad_token_id is not None)
    body = sorted(role["all"] - {role["mask"]})  # all that a text can hold
    body += sorted(role["words"])
    if role["end"] is not None:
        (body,) = pack_bodies([body], len(body) + 1, role["end"])
    text = [*config.prefix_ids, *body, *config.suffix_ids]
    made = DataCollatorForMaskGit.from_config(
        config, tokenizer, random_token_prob=1.0, no_replace_prob=0.0, corruption_prob=1.0
    )
    texts = [text, text[: len(text) // 2 + 1]] * 8
    # The padding token may stand in a text, which only an attention mask can say.
    batch = made([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in texts])
    labels = set(batch["labels"].flatten().tolist()) - {-100}
    assert labels.isdisjoint(config.forbidden_token_ids)
    assert role["words"] <= labels
    if role["end"] is not None:
        assert role["end"] in labels, "texts learn to end"
    assert bool((batch["labels"][batch["attention_mask"] == 0] == -100).all())
    drawn = set(batch["input_ids"][batch["masked_positions"]].tolist())
    assert drawn <= role["words"]


@pytest.mark.wide
@given(tables())
@settings(max_examples=10)
def test_pipelines_show_words_and_nothing_else(table):
    tokenizer, config = table.build(), config_of(table, padding=1)
    model = model_of(table.size + 1)
    model.config = config
    model.generation_config = copy.copy(model.generation_config)
    words = {table.ids[word]: word for word in table.words}
    mask, first = tokenizer.mask_token, table.words[0]
    options = {"model": model, "tokenizer": tokenizer, "device": "cpu"}
    shown = pipeline("fill-mask", **options)(f"{first} {mask} {first}", top_k=table.size + 1)
    assert {s["token"]: s["token_str"] for s in shown} == words
    filled = pipeline("infilling", **options)(f"{first} {{blank:3}} {first}", seed=0)
    assert set(filled["spans"][0]["token_ids"]) <= words.keys()
    text = filled["infilled_text"].split()
    assert len(text) == 5
    assert set(text) <= set(words.values())


# --- tokens that play several parts at once ------------------------------------------------------


def shared(roles, frame=True):
    """Six words and a mask; the other roles as given."""
    tokens = [*[f"w{i}" for i in range(6)], *dict.fromkeys(roles.values())]
    end = roles.get("eos")
    template = (f"$A {end}", f"$A {end} $B {end}") if frame and end else None
    return Table(dict(zip(tokens, itertools.count(), strict=False)), roles, [], template)


def likes(token):
    """A processor of scores by which a model writes one token wherever it may."""
    return lambda _, scores: scores.masked_fill(torch.arange(scores.shape[1]) == token, 50.0)


@pytest.mark.parametrize("frame", [True, False])
def test_one_token_that_begins_ends_pads_and_is_unknown(frame):
    """GPT-2's; it is learned and written as an end of text, and padding is not learned."""
    table = shared(SIX_OF_ALL, frame)
    config, tokenizer = config_of(table), table.build()
    one = table.ids["<s>"]
    assert config.forbidden_token_ids == [table.ids["<mask>"]]
    assert config.end_token_ids == [one]

    options = {"logits_processor": [likes(one)], "seed": 0}
    prompt = torch.tensor([[0, 1]])
    written = TableModel(config).generate(prompt, max_new_tokens=3, **options)
    assert written.tolist() == [[0, 1, one, one, one]]
    hole = torch.tensor([[0, table.ids["<mask>"], 1]])
    assert int(TableModel(config).generate(hole, **options)[0, 1]) in range(6)
    made = DataCollatorForMaskGit.from_config(config, tokenizer, corruption_prob=0.0)
    batch = made([{"input_ids": [0, one, 1, 2]}, {"input_ids": [0, 1]}])
    assert batch["labels"].tolist() == [[0, one, 1, 2], [0, 1, -100, -100]]


@pytest.mark.parametrize("frame", [True, False])
def test_an_end_that_is_the_unknown_token_is_no_part_of_the_text(frame):
    """The unknown token that a user typed is; a model writes it as an end and as padding."""
    table = shared(SIX_OF_ALL, frame)
    model = MaskGitForMaskedLM(config_of(table)).eval()
    write = pipeline("text-generation", model=model, tokenizer=table.build(), device="cpu")
    options = {"logits_processor": [likes(table.ids["<s>"])], "seed": 0, "max_new_tokens": 3}
    for typed in ("w0 w1", "w0 <mask> w1"):
        (out,) = write(typed, **options)
        assert set(out["generated_text"].split()) <= set(table.words)
    (out,) = write("w0 w1", skip_special_tokens=False, **options)
    assert out["generated_text"].endswith("<s>")
    (out,) = write("w0 <s> w1", return_full_text=True, max_unknown_share=1, **options)
    assert out["generated_text"] == "w0 <s> w1"


def test_the_unknown_token_is_learned_and_never_written_also_where_it_pads():
    table = shared({"mask": "<mask>", "unk": "<unk>", "pad": "<unk>", "eos": "</s>"})
    config, tokenizer = config_of(table), table.build()
    unknown, end = table.ids["<unk>"], table.ids["</s>"]
    assert config.forbidden_token_ids == [table.ids["<mask>"]]
    assert config.unwritten_token_ids == [table.ids["<mask>"], unknown]
    made = DataCollatorForMaskGit.from_config(config, tokenizer, corruption_prob=0.0)
    batch = made([{"input_ids": [0, unknown, 1, end]}, {"input_ids": [0, end]}])
    assert batch["labels"].tolist() == [[0, unknown, 1, -100], [0, -100, -100, -100]]


@pytest.mark.parametrize("role", ["pad", "bos", "eos", "cls", "sep", "unk"])
def test_a_mask_that_plays_another_part_is_refused(role):
    tokenizer = shared({"mask": "<mask>", role: "<mask>"}).build()
    words = "so that every unknown word would be a mask" if role == "unk" else "a token of its own"
    with pytest.raises(ValueError, match=words):
        tokenizer_fields(tokenizer)


def test_a_blank_line_in_a_file_of_tokens_is_no_token():
    """Lines that were removed from a vocabulary become the token "", which no text holds."""
    table = Table({"w0": 0, "": 1, "w1": 2, "<mask>": 3}, {"mask": "<mask>"})
    assert config_of(table).forbidden_token_ids == [1, 3]


def test_the_id_0_of_a_picture_is_written():
    """Its background; BERT's class takes that id for padding where nobody names one."""
    config = MaskGitConfig(text_config=bert_config(vocab_size=3), mask_token_id=2)
    picture = torch.full((8, 16), 2)
    written = TableModel(config).generate(picture, seed=0, anneal_temperature=False)
    assert set(written.flatten().tolist()) == {0, 1}
    again = written.clone()
    again[:, ::2] = 2
    assert bool((TableModel(config).generate(again, seed=1)[:, 1::2] == written[:, 1::2]).all())
