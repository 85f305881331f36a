"""Rows of different lengths in one batch: each is what it would be alone, whatever looks on.

The oracle is the row by itself, and a table denoiser, whose rows do not depend on each other to the
last bit.
"""

import pytest
import torch
from transformers import TextStreamer

from hf_maskgit.core.decoding_lengths import body_lengths
from tests.support.tiny import TableModel, tiny_config, tiny_model, word_tokenizer

CLS, SEP, MASK, PAD = 2, 3, 4, 0
LENGTHS = {"1": 2, "4": 3, "6": 3, "11": 1, "13": 2}
# Padded on the left and on the right, with and without a closing token, one with a mask.
ROWS = [[CLS, 7, 8, SEP], [CLS, 9], [CLS, 7, 7, 7, 9, SEP], [CLS, MASK, 9, SEP], [CLS, 6, SEP]]
NEW = [3, 1, 0, 2, 7]
SEEDS = [11, 12, 13, 14, 15]

WAYS = {
    "a number each": {"max_new_tokens": NEW},
    "sampled": {"num_tokens": "sampled"},
    "sampled, at most as many": {"num_tokens": "sampled", "max_new_tokens": [9, 5, 9, 9, 3]},
    "the window": {"num_tokens": "window"},
}
SAMPLERS = {
    "the default": {},
    "in blocks": {"block_length": 2, "steps": 12, "order": "left_to_right"},
    "ancestral": {"pace": "ancestral", "steps": 5},
    "threshold": {"pace": "threshold", "order": "confidence", "confidence_threshold": 0.5},
    "p2": {"remask": "p2", "steps": 14},
    "guided": {"guidance_scale": 2.0},
    "another prompt": {
        "guidance_scale": 2.0,
        "negative_prompt_ids": torch.tensor([[CLS, 5, SEP]]),
    },
    "allowed": {"allowed_token_ids": [6, 7, 8, 9, SEP]},
}


def table_model():
    return TableModel(tiny_config("bert", lengths=LENGTHS, end_fill=14))


def batch(rows, left=False):
    width = max(map(len, rows)) + 1
    padded = [
        [PAD] * (width - len(r)) * left + r + [PAD] * (width - len(r)) * (not left) for r in rows
    ]
    ids = torch.tensor(padded)
    return ids, (ids != PAD).long()


def of_row(options, row):
    """The options of one row alone."""
    new = options.get("max_new_tokens")
    return {**options, "max_new_tokens": new[row]} if isinstance(new, list) else options


def stripped(sequence, num_prompt, num_new):
    """The prompt and the new tokens of a row, without padding around them."""
    start = next(i for i, token in enumerate(sequence) if token != PAD)
    return sequence[start : start + num_prompt + num_new]


@pytest.mark.grid(5)
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_row_is_the_same_alone_and_in_a_batch(way, sampler, left):
    options = {**WAYS[way], **SAMPLERS[sampler], "return_dict_in_generate": True}
    # another prompt stands in for one that is continued, and row 2 gets 0, row 3 is filled
    places = [0, 1, 4] if sampler == "another prompt" else range(5)
    rows = [ROWS[place] for place in places]
    model = table_model()
    ids, mask = batch(rows, left)
    together = {**options, "seed": [SEEDS[i] for i in places]}
    if isinstance(options.get("max_new_tokens"), list):
        together["max_new_tokens"] = [options["max_new_tokens"][i] for i in places]
    out = model.generate(ids, mask, **together)
    for row, place in enumerate(places):
        one = torch.tensor([rows[row]])
        alone = model.generate(one, seed=[SEEDS[place]], **of_row(options, place))
        num_new = int(alone.num_new_tokens)
        assert int(out.num_new_tokens[row]) == num_new
        length = len(rows[row])
        assert alone.sequences.shape[1] == length + num_new
        found = stripped(out.sequences[row].tolist(), length, num_new)
        assert found == alone.sequences[0].tolist()
        rest = out.sequences[row].tolist()
        start = length if not left else len(rest)
        assert all(token == PAD for token in rest[start + num_new :])
        assert int(out.denoiser_passes[row]) == int(alone.denoiser_passes)
    assert out.sequences.shape[1] == ids.shape[1] + int(out.num_new_tokens.max())


def test_numbers_alike_are_one_number():
    model, (ids, mask) = table_model(), batch(ROWS)
    one = model.generate(ids, mask, seed=3, max_new_tokens=4)
    assert torch.equal(one, model.generate(ids, mask, seed=3, max_new_tokens=[4] * 5))


def test_every_returned_row_may_have_a_number_of_its_own():
    model, ids = table_model(), torch.tensor([[CLS, 7, SEP], [CLS, 8, SEP]])
    options = {"num_return_sequences": 2, "return_dict_in_generate": True, "seed": [5, 6]}
    out = model.generate(ids, max_new_tokens=[1, 4], **options)
    assert out.num_new_tokens.tolist() == [1, 1, 4, 4]
    out = model.generate(ids, max_new_tokens=[1, 4, 0, 2], **options)
    assert out.num_new_tokens.tolist() == [1, 4, 0, 2]
    sampled = model.generate(
        ids, num_tokens="sampled", **{**options, "num_return_sequences": 40}
    ).num_new_tokens.unflatten(0, (2, 40))
    assert all(len(set(of_row)) > 1 for of_row in sampled.tolist())


def test_history_and_places_of_a_short_row_are_its_own():
    model, (ids, mask) = table_model(), batch(ROWS[:2])
    options = {"return_dict_in_generate": True, "output_history": True}
    out = model.generate(ids, mask, seed=[1, 2], max_new_tokens=[5, 1], **options)
    alone = model.generate(torch.tensor([ROWS[1]]), seed=[2], max_new_tokens=1, **options)
    assert out.history.shape[2] == out.sequences.shape[1]
    passes = len(alone.history)
    assert torch.equal(out.history[:passes, 1, :3], alone.history[:, 0])
    assert bool((out.history[:, 1, 3:] == PAD).all())
    assert out.reveal_steps[1, :3].tolist() == alone.reveal_steps[0].tolist()
    assert bool((out.reveal_steps[1, 3:] == -1).all())
    assert bool((out.reveal_log_probabilities[1, 3:] == 0).all())


def test_an_end_of_text_and_a_stop_string_end_rows_of_any_length():
    tokenizer, model = word_tokenizer(), table_model()
    ids, mask = batch(ROWS[:2])
    options = {"stop_strings": "w9", "tokenizer": tokenizer, "eos_token_id": [11, 12, 13]}
    out = model.generate(ids, mask, seed=[1, 2], max_new_tokens=[12, 20], **options)
    for row, (new, seed) in enumerate(((12, 1), (20, 2))):
        one = torch.tensor([ROWS[row]])
        alone = model.generate(one, seed=[seed], max_new_tokens=new, **options)
        assert stripped(out[row].tolist(), len(ROWS[row]), new) == alone[0].tolist()
        assert PAD in alone[0].tolist()  # it ended


def test_a_sampled_length_is_streamed_to_its_end(capsys):
    tokenizer, model = word_tokenizer(), table_model()
    ids = torch.tensor([ROWS[0]])
    out = model.generate(
        ids,
        num_tokens="sampled",
        seed=4,
        streamer=TextStreamer(tokenizer, skip_special_tokens=True),
    )
    shown = capsys.readouterr().out.split()
    assert shown == tokenizer.decode(out[0], skip_special_tokens=True).split()


def test_greedy_rows_draw_their_length_alone():
    model, ids = table_model(), torch.tensor([ROWS[0]] * 30)
    options = {"do_sample": False, "num_tokens": "sampled", "return_dict_in_generate": True}
    out = model.generate(ids, seed=0, **options)
    assert len(set(out.num_new_tokens.tolist())) > 1
    for length in set(out.num_new_tokens.tolist()):
        same = out.sequences[out.num_new_tokens == length]
        assert bool((same == same[0]).all())
    torch.manual_seed(3)
    first = model.generate(ids, **options).num_new_tokens
    torch.manual_seed(3)
    assert torch.equal(first, model.generate(ids, **options).num_new_tokens)


def test_a_stored_way_fills_masks_alone_and_a_named_one_appends():
    model, masked = table_model(), torch.tensor([[CLS, MASK, 9, SEP]])
    model.generation_config.num_tokens = "sampled"
    assert model.generate(masked, seed=0).shape == (1, 4)
    assert model.generate(torch.tensor([ROWS[0]]), seed=0).shape[1] > 4
    assert model.generate(masked, seed=0, num_tokens="sampled").shape[1] > 4
    # a number that is stored is no limit, one that is named is
    lengths = {"60": 1}
    model = TableModel(tiny_config("bert", lengths=lengths))
    model.generation_config.max_new_tokens = 5
    assert model.generate(num_tokens="sampled", seed=0).shape == (1, 62)


def test_token_types_follow_rows_of_different_lengths():
    model, (ids, mask) = table_model(), batch(ROWS[:2])
    types = torch.tensor([[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]])
    out = model.generate(ids, mask, token_type_ids=types, max_new_tokens=[1, 3], seed=[1, 2])
    one = torch.tensor([ROWS[1]])
    alone = model.generate(one, token_type_ids=types[1:, :2], max_new_tokens=3, seed=[2])
    assert stripped(out[1].tolist(), 2, 3) == alone[0].tolist()


def test_known_tokens_are_counted_without_their_framing():
    ids, mask = batch([*ROWS, [7, 8], [SEP], [7, SEP, SEP]], left=True)
    assert body_lengths(tiny_config("bert"), ids, mask).tolist() == [2, 1, 4, 2, 1, 2, 0, 2]


def test_the_window_ends_where_training_ended_it():
    model = tiny_model("bert", end_fill=10)
    ids, mask = batch([[CLS, 7, 8, SEP], [CLS, 9, SEP]])
    out = model.generate(ids, mask, num_tokens="window", seed=0, return_dict_in_generate=True)
    assert out.num_new_tokens.tolist() == [6, 7]  # of 10, with the framing
    assert model.generate(num_tokens="window", seed=0).shape == (1, 10)
    # a number that the call names is the most, also where the window is what is stored
    model.generation_config.num_tokens = "window"
    for asked, new in ((3, [3, 3]), ([9, 2], [6, 2]), (40, [6, 7]), ([0, 40], [0, 7])):
        options = {"max_new_tokens": asked, "seed": 0, "return_dict_in_generate": True}
        assert model.generate(ids, mask, **options).num_new_tokens.tolist() == new


@pytest.mark.parametrize(
    ("new", "sentence"),
    [
        ([1, 2, 3], "`max_new_tokens` has 3 entries for 2 rows and 4 returned texts; give one nu"),
        ([], "`max_new_tokens` is an empty list"),
        ([1, -1], "`max_new_tokens` must be an integer of at least 0, got -1"),
        ([1, True], "`max_new_tokens` must be an integer of at least 0, got True"),
        ([1, 2.0], "`max_new_tokens` must be an integer of at least 0, got 2.0"),
        ([1, [2]], r"`max_new_tokens` must be an integer of at least 0, got \[2\]"),
        ((1, 2), r"`max_new_tokens` must be an integer of at least 0, got \(1, 2\)"),
        ([1, 99], "`max_new_tokens` is 99, and the encoder takes 64 tokens"),
        ([1, 62], r"The longest row comes to 65 tokens \(62 of them new\), the encoder takes 64"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(new, sentence):
    ids = torch.tensor([[CLS, 7, SEP], [CLS, 8, SEP]])
    with pytest.raises(ValueError, match=sentence):
        table_model().generate(ids, max_new_tokens=new, num_return_sequences=2, seed=0)


def test_rows_of_different_lengths_need_padding():
    model = TableModel(tiny_config("bert", pad_token_id=None))
    model.generation_config.eos_token_id = None
    ids = torch.tensor([[CLS, 7], [CLS, 8]])
    with pytest.raises(ValueError, match="`pad_token_id` is not set, which fills rows that get fe"):
        model.generate(ids, max_new_tokens=[1, 2], seed=0)
