"""Laws of `generate`: on a table that is exact in float64, and on real models at tiny size.

`TableModel` differs from a trained model only in where its logits come from; whatever `generate`
does to rows, masks, seeds and options it does to both.
"""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from hf_maskgit import MaskGitGenerationConfig
from hf_maskgit.core.text_bound import text_bounds
from tests.support.prompts import CLS, MASK, PAD, SEP, UNK, WORDS, collate, padded_batches
from tests.support.tiny import TableModel, tiny_config, tiny_model, word_tokenizer

FORBIDDEN = {PAD, UNK, CLS, MASK}  # SEP ends a text
ORDERS = ["top_probability", "confidence", "random"]


@pytest.fixture(scope="module")
def table():
    return TableModel(tiny_config())


@pytest.fixture(autouse=True)
def _forget_calls(table):
    table.calls.clear()


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


def ids(*rows):
    return torch.tensor(rows)


def masks(n, rows=1):
    return torch.full((rows, n), MASK)


# --- what is revealed, and how fast --------------------------------------------------------------


OPTIONS = st.fixed_dictionaries(
    {
        "max_new_tokens": st.integers(0, 4),
        "steps": st.integers(1, 6),
        "schedule": st.sampled_from(["linear", "cosine"]),
        "order": st.sampled_from(ORDERS),
        "choice_temperature": st.sampled_from([0.0, 2.0]),
        "anneal_temperature": st.booleans(),
        "top_k": st.sampled_from([None, 3]),
        "num_return_sequences": st.integers(1, 2),
    }
).map(lambda o: {**o, "choice_temperature": 0.0} if o["order"] == "random" else o)


def check_each_row_alone(table, batch, options, data):
    """Generate a batch, then each of its rows alone, and compare token by token."""
    rows, paddings = batch
    repeats = options["num_return_sequences"]
    seed = st.integers(-(2**63), 2**63 - 1)
    seeds = data.draw(st.lists(seed, min_size=len(rows), max_size=len(rows)))
    filler = data.draw(st.integers(0, 39))  # what stands at padding is nobody's business
    input_ids, attention_mask = collate(rows, paddings, filler)
    types = [data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in map(len, rows)]
    together = table.generate(
        input_ids,
        attention_mask,
        token_type_ids=collate(types, paddings)[0],
        seed=seeds,
        **options,
    )
    assert together.shape == (len(rows) * repeats, input_ids.shape[1] + options["max_new_tokens"])
    for i, (left, right) in enumerate(paddings):
        alone = table.generate(
            ids(rows[i]),
            torch.ones(1, len(rows[i])),
            token_type_ids=ids(types[i]),
            seed=[seeds[i]],
            **options,
        )
        for copy in range(repeats):
            expected = [filler] * left + alone[copy].tolist() + [filler] * right
            assert together[i * repeats + copy].tolist() == expected


@pytest.mark.wide
@settings(max_examples=30)
@given(batch=padded_batches(), options=OPTIONS, data=st.data())
def test_a_row_is_the_same_alone_and_in_any_batch(table, batch, options, data):
    check_each_row_alone(table, batch, options, data)


@pytest.mark.slow
@settings(max_examples=1500)
@given(batch=padded_batches(), options=OPTIONS, data=st.data())
def test_a_row_is_the_same_alone_and_in_very_many_batches(table, batch, options, data):
    check_each_row_alone(table, batch, options, data)


@pytest.mark.wide
@settings(max_examples=60)
@given(batch=padded_batches(), options=OPTIONS, seed=st.integers(0, 2**31))
def test_only_masks_change_and_only_into_words_or_an_end(table, batch, options, seed):
    rows, paddings = batch
    input_ids, attention_mask = collate(rows, paddings)
    repeats, n = options["num_return_sequences"], options["max_new_tokens"]
    out = table.generate(input_ids, attention_mask, seed=seed, **options)
    for k, generated in enumerate(out.tolist()):
        row, (left, right) = rows[k // repeats], paddings[k // repeats]
        assert generated[:left] == [PAD] * left
        assert generated[len(generated) - right :] == [PAD] * right
        text = generated[left : len(generated) - right]
        prompt, new = text[: len(row)], text[len(row) :]
        assert [t for t, given_ in zip(prompt, row, strict=True) if given_ != MASK] == [
            t for t in row if t != MASK
        ]
        filled = [t for t, given_ in zip(prompt, row, strict=True) if given_ == MASK]
        # Only what ends a text, and the padding behind it, comes besides words.
        assert not (set(filled) | set(new)) & (FORBIDDEN - {PAD})
        # A closing special stands behind new masks while decoding, so it is behind no mask.
        body = row[:-1] if n and row[-1] == SEP else row
        for i in range(max((i for i, t in enumerate(body) if t != MASK), default=0)):
            assert row[i] != MASK or prompt[i] in WORDS
        if SEP in new:
            assert set(new[new.index(SEP) + 1 :]) <= {PAD}
        elif PAD in new:
            assert set(new) == {PAD}
            assert SEP in filled, "the text ended in the prompt"
        assert len(new) == n


@pytest.mark.wide
@settings(max_examples=60)
@given(batch=padded_batches(), options=OPTIONS)
def test_each_pass_reveals_at_least_one_token_of_every_row_it_sees(table, batch, options):
    rows, paddings = batch
    input_ids, attention_mask = collate(rows, paddings)
    table.calls.clear()
    options |= {"suppress_tokens": [SEP], "return_dict_in_generate": True}  # an end stops a row
    out = table.generate(input_ids, attention_mask, seed=0, **options)
    n, steps = options["max_new_tokens"], options["steps"]
    repeats = options["num_return_sequences"]
    num_masked = [row.count(MASK) + n for row in rows for _ in range(repeats)]
    # With at least as many masks as steps every pass is used, otherwise one per mask.
    assert out.denoiser_passes.tolist() == [min(steps, m) for m in num_masked]
    assert len(table.calls) == max(min(steps, m) for m in num_masked)
    for k, revealed_at in enumerate(out.reveal_steps.tolist()):
        row, (left, right) = rows[k // repeats], paddings[k // repeats]
        was_masked = [False] * left + [t == MASK for t in row] + [True] * n + [False] * right
        assert [step >= 0 for step in revealed_at] == was_masked
        passes = range(int(out.denoiser_passes[k]))
        assert {step for step in revealed_at if step >= 0} == set(passes)
    # In the first pass of equal rows one is read, so that it says nothing of the others.
    first = torch.tensor([m for m in num_masked if m])
    still_masked = [first, *((call.input_ids == MASK).sum(1) for call in table.calls[1:])]
    for before, after in itertools.pairwise(still_masked):
        assert bool((before > 0).all())
        assert int(before.sum() - after.sum()) >= len(before)
        if steps >= max(num_masked):
            assert int(before.sum() - after.sum()) == len(before)


@pytest.mark.grid(4)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("num_masks", "steps"), [(1, 1), (29, 29), (29, 40), (64, 64), (64, 100)])
def test_with_enough_steps_each_pass_reveals_exactly_one(table, schedule, order, num_masks, steps):
    options = {"schedule": schedule, "order": order, "steps": steps}
    # An end of text before the last place would spare the passes behind it.
    out = table.generate(
        masks(num_masks), suppress_tokens=[SEP], return_dict_in_generate=True, **options
    )
    assert out.denoiser_passes.tolist() == [num_masks] == [len(table.calls)]
    left = [int((call.input_ids == MASK).sum()) for call in table.calls]
    assert left == list(range(num_masks, 0, -1))


@pytest.mark.parametrize(
    ("schedule", "left"), [("linear", [32, 24, 16, 8]), ("cosine", [32, 29, 22, 12])]
)
def test_masks_fall_as_the_schedule_says(table, schedule, left):
    """At each quarter 32 (1 - r) for linear, 32 cos(pi r / 2) for cosine, rounded down."""
    table.generate(masks(32), schedule=schedule, steps=4)
    assert [int((call.input_ids == MASK).sum()) for call in table.calls] == left


@pytest.mark.wide
def test_a_schedule_of_ones_own(table):
    table.generate(masks(16), schedule=lambda t: t**2, steps=4)
    left = [int((call.input_ids == MASK).sum()) for call in table.calls]
    assert left == [16, 9, 4, 1]


def test_a_finished_row_takes_part_in_no_further_pass(table):
    rows = ids([CLS, MASK, 7, 8], [MASK] * 4, [5, 6, 7, 8])
    out = table.generate(rows, steps=4, max_new_tokens=0, return_dict_in_generate=True)
    assert out.denoiser_passes.tolist() == [1, 4, 0]
    assert [len(call.input_ids) for call in table.calls] == [2, 1, 1, 1]


def test_the_denoiser_is_asked_only_where_a_token_may_be_revealed(table):
    table.generate(ids([CLS, MASK, 7, MASK, SEP]), steps=2, order="top_probability")
    assert [int(call.masked_positions.sum()) for call in table.calls] == [2, 1]
    table.calls.clear()
    table.generate(ids([CLS, MASK, 7, MASK, SEP]), steps=2, order="random")
    assert [int(call.masked_positions.sum()) for call in table.calls] == [1, 1]


# --- prompts -------------------------------------------------------------------------------------


def test_a_closing_special_stays_behind_the_masks_while_decoding(table, tokenizer):
    prompt = tokenizer(["w1 w2", "w3"], padding=True, return_tensors="pt")
    out = table.generate(**prompt, max_new_tokens=3, steps=1, eos_token_id=39)
    first = table.calls[0]
    assert first.input_ids.tolist() == [
        [CLS, 6, 7, MASK, MASK, MASK, SEP],
        [CLS, 8, MASK, MASK, MASK, SEP, PAD],
    ]
    assert first.attention_mask.sum(1).tolist() == [7, 6]
    assert out[0, :4].tolist() == [CLS, 6, 7, SEP]
    assert out[1, :3].tolist() == [CLS, 8, SEP]
    assert out[1, -1] == PAD
    assert out.shape == (2, 4 + 3)
    assert PAD not in out[1, 3:6]


@pytest.mark.parametrize("side", ["left", "right"])
def test_new_tokens_follow_the_last_real_token(table, tokenizer, side):
    prompt = tokenizer(["w1 w2 w3", "w4"], padding=True, padding_side=side, return_tensors="pt")
    out = table.generate(**prompt, max_new_tokens=2, suppress_tokens=[SEP])
    assert out.shape == (2, 7)
    start = {"left": 2, "right": 0}[side]
    assert out[1, start : start + 3].tolist() == [CLS, 9, SEP]
    assert set(out[1, start + 3 : start + 5].tolist()) <= set(WORDS)
    assert out[1, :start].tolist() + out[1, start + 5 :].tolist() == [PAD, PAD]


def test_infilling_keeps_the_closing_special_in_its_place(table, tokenizer):
    prompt = tokenizer("w1 [MASK] w2 [MASK]", return_tensors="pt")
    out = table.generate(**prompt)
    assert table.calls[0].input_ids.tolist() == prompt["input_ids"].tolist()
    assert out.shape == (1, 6)
    assert out[0, [0, 1, 3, 5]].tolist() == [CLS, 6, 7, SEP]
    assert set(out[0, [2, 4]].tolist()) <= set(WORDS)


def test_nothing_to_do_takes_no_pass(table):
    prompt = ids([CLS, 5, SEP])
    out = table.generate(prompt, max_new_tokens=0, return_dict_in_generate=True)
    assert torch.equal(out.sequences, prompt)
    assert out.denoiser_passes.tolist() == [0]
    assert table.calls == []


@pytest.mark.parametrize("where", ["model", "generation_config"])
def test_only_a_length_named_in_the_call_appends_to_a_text_that_holds_masks(table, where):
    own, prompt = MaskGitGenerationConfig(max_new_tokens=5), ids([5, MASK, 6])
    try:
        if where == "model":
            table.generation_config.max_new_tokens = 5
            assert table.generate(prompt).shape == (1, 3)
            assert table.generate(ids([5, 7, 6])).shape == (1, 8)
        else:
            assert table.generate(prompt, generation_config=own).shape == (1, 3)
            assert table.generate(ids([5, 7, 6]), generation_config=own).shape == (1, 8)
    finally:
        table.generation_config.max_new_tokens = 32
    assert table.generate(prompt, max_new_tokens=2).shape == (1, 5)
    assert table.generate(prompt, max_new_tokens=0).shape == (1, 3)


def test_a_mask_token_at_padding_is_no_mask_of_the_text(table):
    """The length follows from the model's default, as it does for the same text unpadded."""
    out = table.generate(ids([MASK, 5, 6]), ids([0, 1, 1]), steps=1)
    assert out.shape == (1, 3 + 32)
    assert out[0, 0] == MASK


@pytest.mark.parametrize("empty", [None, torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0)])
def test_from_nothing_a_framed_text_is_written(table, empty):
    out = table.generate(empty, max_new_tokens=4, suppress_tokens=[SEP])
    assert table.calls[0].input_ids.tolist() == [[CLS, *[MASK] * 4, SEP]]
    assert out[0, [0, 5]].tolist() == [CLS, SEP]
    assert set(out[0, 1:5].tolist()) <= set(WORDS)


def test_from_nothing_one_text_per_empty_row(table):
    out = table.generate(torch.zeros(3, 0, dtype=torch.long), max_new_tokens=2)
    assert out.shape == (3, 4)


def test_from_nothing_as_a_tokenizer_gives_it(table, tokenizer):
    nothing = tokenizer("", add_special_tokens=False, return_tensors="pt")
    assert nothing["token_type_ids"].shape == (1, 0)
    out = table.generate(**nothing, max_new_tokens=3)
    assert out.shape == (1, 5)


def test_token_types_travel_with_their_tokens(table):
    prompt = ids([CLS, 5, SEP, 6, SEP, PAD], [PAD, PAD, CLS, 7, 8, SEP])
    types = ids([0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1])
    table.generate(
        prompt, (prompt != PAD).long(), token_type_ids=types, max_new_tokens=2, steps=1, seed=0
    )
    call = table.calls[0]
    assert call.input_ids.tolist() == [
        [CLS, 5, SEP, 6, MASK, MASK, SEP],
        [CLS, 7, 8, MASK, MASK, SEP, PAD],
    ]
    assert call.token_type_ids[0].tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert call.token_type_ids[1, :6].tolist() == [0, 0, 1, 1, 1, 1]


def test_the_encoder_sees_its_own_padding_id():
    """Whatever id the caller pads with: RoBERTa and its kin derive positions from their own."""
    config = tiny_config("roberta", pad_token_id=5)
    assert config.text_config.pad_token_id == 1
    table = TableModel(config)
    mask = config.mask_token_id
    rows, real = ids([7, mask, 8], [mask, 0, 0]), ids([1, 1, 1], [1, 0, 0])
    out = table.generate(rows, real)
    assert table.calls[0].input_ids.tolist() == [[7, mask, 8], [mask, 1, 1]]
    assert out[1, 1:].tolist() == [0, 0]


# --- ends ----------------------------------------------------------------------------------------


class Prefer:
    """A logits processor that makes one token certain wherever it is possible at all."""

    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores[:, self.token] += 1e4
        return scores


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_only_padding_follows_the_first_end(table, order, steps):
    out = table.generate(
        ids([CLS, 5, SEP]),
        max_new_tokens=5,
        steps=steps,
        order=order,
        logits_processor=[Prefer(SEP)],
        return_dict_in_generate=True,
    )
    assert out.sequences.tolist() == [[CLS, 5, SEP, SEP, PAD, PAD, PAD, PAD]]
    assert int(out.denoiser_passes) <= steps


def test_padding_comes_once_at_the_end(table):
    """While decoding, tokens behind an end keep speaking to their neighbours."""
    table.generate(masks(6), steps=6, order="random", logits_processor=[Prefer(SEP)], seed=3)
    assert table.calls
    assert all(PAD not in call.input_ids for call in table.calls)


def test_a_mask_with_a_known_token_behind_it_never_becomes_an_end(table):
    rows = ids([MASK, MASK, 7, MASK, MASK])
    for order in ORDERS:
        out = table.generate(rows, order=order, logits_processor=[Prefer(SEP)])
        assert set(out[0, :2].tolist()) <= set(WORDS)
        assert out[0, 2:].tolist() == [7, SEP, PAD]


def test_several_ends(table):
    out = table.generate(
        ids([7]), max_new_tokens=4, eos_token_id=[8, 9], logits_processor=[Prefer(9)], steps=1
    )
    assert out.tolist() == [[7, 9, PAD, PAD, PAD]]
    inside = table.generate(
        ids([MASK, 7]), eos_token_id=[8, 9], logits_processor=[Prefer(9), Prefer(8)]
    )
    assert int(inside[0, 0]) not in (8, 9)


def test_padding_behind_the_end_is_the_one_asked_for(table):
    out = table.generate(ids([7]), max_new_tokens=3, pad_token_id=0, logits_processor=[Prefer(SEP)])
    assert out.tolist() == [[7, SEP, 0, 0]]
    out = table.generate(ids([7]), max_new_tokens=3, pad_token_id=1, logits_processor=[Prefer(SEP)])
    assert out.tolist() == [[7, SEP, 1, 1]]


# --- randomness ----------------------------------------------------------------------------------


@pytest.mark.wide
def test_same_seed_same_output_and_another_seed_another(table):
    def run(seed):
        return table.generate(masks(8, rows=2), seed=seed)

    assert torch.equal(run(5), run(5))
    assert not torch.equal(run(5), run(6))
    assert not torch.equal(run(5)[0], run(5)[1]), "rows with equal texts share their noise"


def test_an_int_seed_means_the_same_for_a_row_whatever_follows_it(table):
    three = table.generate(masks(8, rows=3), seed=5)
    assert torch.equal(three[:2], table.generate(masks(8, rows=2), seed=5))


def test_an_int_seed_leaves_the_global_generator_alone(table):
    before = torch.get_rng_state()
    table.generate(masks(8), seed=5)
    table.generate(masks(8), seed=[5])
    table.generate(masks(8), generator=torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())


def test_a_generator_decides_the_noise(table):
    def run(state):
        return table.generate(masks(8, rows=2), generator=torch.Generator().manual_seed(state))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_without_a_seed_the_global_generator_decides(table):
    def run(state):
        torch.manual_seed(state)
        return table.generate(masks(8))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_one_seed_per_returned_text(table):
    seeds = [11, 12, 13, 14]
    out = table.generate(masks(6, rows=2), num_return_sequences=2, seed=seeds)
    for row, seed in enumerate(seeds):
        assert torch.equal(out[row], table.generate(masks(6), seed=[seed])[0])


def test_the_first_returned_text_is_the_one_returned_alone(table):
    several = table.generate(masks(6, rows=2), num_return_sequences=3, seed=[1, 2])
    assert torch.equal(several[::3], table.generate(masks(6, rows=2), seed=[1, 2]))


def test_returned_texts_of_a_row_stand_together_and_differ(table):
    rows = ids([5, MASK, MASK, MASK, MASK], [6, MASK, MASK, MASK, MASK])
    out = table.generate(rows, num_return_sequences=3, seed=0)
    assert out[:, 0].tolist() == [5, 5, 5, 6, 6, 6]
    assert len({tuple(row) for row in out.tolist()}) == 6


@pytest.mark.parametrize("order", ["top_probability", "confidence"])
def test_greedy_decoding_draws_nothing(table, order):
    before = torch.get_rng_state()
    first = table.generate(masks(8), do_sample=False, order=order)
    assert torch.equal(before, torch.get_rng_state())
    for noise in ({"seed": 1}, {"seed": 2}, {"generator": torch.Generator().manual_seed(3)}):
        assert torch.equal(first, table.generate(masks(8), do_sample=False, order=order, **noise))


def test_greedy_decoding_takes_the_likeliest_token_of_the_surest_place(table):
    """Against a loop of our own: one place per pass, the surest first, its likeliest token."""
    text = [MASK] * 6
    out = table.generate(ids(text), steps=6, do_sample=False, suppress_tokens=[SEP])
    everywhere = torch.ones(1, 6, dtype=torch.bool)
    while MASK in text:
        logits = table(ids(text), torch.ones(1, 6), everywhere).logits
        logits[:, [*FORBIDDEN, SEP]] = -torch.inf
        surest, tokens = logits.softmax(-1).max(-1)
        place = max((i for i in range(6) if text[i] == MASK), key=lambda i: float(surest[i]))
        text[place] = int(tokens[place])
    assert out.tolist() == [text]


def test_the_last_annealed_pass_is_greedy(table):
    """All masks in one pass at temperature 0: any seed gives the likeliest tokens."""
    greedy = table.generate(masks(8), steps=1, do_sample=False)
    for seed in range(3):
        assert torch.equal(table.generate(masks(8), steps=1, seed=seed), greedy)
    drawn = table.generate(masks(8), steps=1, seed=0, anneal_temperature=False)
    assert not torch.equal(drawn, greedy)


# --- real models ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return tiny_model().double()


@pytest.mark.grid(2)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_real_model_gives_a_row_the_same_alone_and_in_a_batch(model, order, side):
    rows = [[CLS, 5, MASK, 7, SEP], [CLS, MASK, SEP], [9, 10, MASK, MASK, MASK, 8, SEP]]
    tensors = [torch.tensor(row) for row in rows]
    batch = pad_sequence(tensors, True, PAD, padding_side=side)
    options = {"max_new_tokens": 3, "order": order, "num_return_sequences": 2}
    together = model.generate(batch, (batch != PAD).long(), seed=[1, 2, 3], **options)
    for i, row in enumerate(rows):
        alone = model.generate(ids(row), seed=[i + 1], **options)
        filler = [PAD] * (batch.shape[1] - len(row))
        for copy in range(2):
            text = alone[copy].tolist()
            expected = filler + text if side == "left" else text + filler
            assert together[2 * i + copy].tolist() == expected


def test_a_real_model_sees_the_closing_special_behind_the_masks(model, tokenizer):
    seen = []

    def record(module, args, kwargs):
        seen.append(kwargs["input_ids"].tolist())

    handle = model.denoiser.register_forward_pre_hook(record, with_kwargs=True)
    prompt = tokenizer("w1 w2", return_tensors="pt")
    out = model.generate(**prompt, max_new_tokens=2, steps=1)
    handle.remove()
    assert seen == [[[CLS, 6, 7, MASK, MASK, SEP]]]
    assert out[0, :4].tolist() == [CLS, 6, 7, SEP]


def test_token_types_reach_a_real_model(model):
    prompt = ids([CLS, 5, MASK, MASK, MASK, MASK, SEP])
    zeros, ones = torch.zeros_like(prompt), torch.ones_like(prompt)
    plain = model.generate(prompt, do_sample=False)
    assert torch.equal(model.generate(prompt, token_type_ids=zeros, do_sample=False), plain)
    assert not torch.equal(model.generate(prompt, token_type_ids=ones, do_sample=False), plain)


def test_generate_leaves_its_arguments_and_the_model_alone(model):
    prompt, real = ids([PAD, 5, MASK]), ids([0, 1, 1])
    options = MaskGitGenerationConfig(steps=3)
    before = prompt.clone(), real.clone(), options.to_dict(), model.generation_config.to_dict()
    model.generate(prompt, real, generation_config=options, top_k=2, max_new_tokens=2)
    assert torch.equal(prompt, before[0])
    assert torch.equal(real, before[1])
    assert (options.to_dict(), model.generation_config.to_dict()) == before[2:]


def test_generate_needs_no_gradient(model):
    out = model.generate(ids([5, MASK]))
    assert not out.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_half_precision_decodes(model):
    half = tiny_model().to(torch.bfloat16)
    out = half.generate(ids([CLS, MASK, MASK, SEP]), max_new_tokens=4, seed=0)
    assert out.shape == (1, 8)
    assert MASK not in out


@pytest.mark.parametrize("options", [{}, {"block_length": 2}, {"guidance_scale": 2.0}], ids=str)
def test_a_configuration_that_asks_for_tuples_changes_nothing(options):
    """As it must be set to trace a model."""
    row = ids([CLS, MASK, MASK, MASK, SEP])
    model = tiny_model(self_cond=True, token_critic="self")
    options = {**options, "seed": 0, "order": "critic"}
    given = row.where(row != MASK, 7), torch.ones_like(row)
    expected = model.generate(row, **options), text_bounds(model, *given, [(1,)], 2)
    model.config.return_dict = False
    assert torch.equal(model.generate(row, **options), expected[0])
    assert torch.equal(text_bounds(model, *given, [(1,)], 2), expected[1])


def test_every_length_up_to_the_encoders_limit():
    model = tiny_model()
    assert model.max_positions == 64
    assert model.generate(ids([CLS, 5, SEP]), max_new_tokens=61, steps=2).shape == (1, 64)
    with pytest.raises(ValueError, match=r"comes to 65 tokens \(62 of them new\), the encoder tak"):
        model.generate(ids([CLS, 5, SEP]), max_new_tokens=62)


def test_the_passes_that_revealed_the_tokens_are_reported(table):
    """Known tokens and padding have none; the others fill passes 0, 1, ... without a gap."""
    rows = ids([PAD, 5, MASK, MASK, 6], [MASK, MASK, MASK, MASK, MASK])
    real = (rows != PAD).long()
    out = table.generate(rows, real, steps=3, seed=0, return_dict_in_generate=True)
    steps = out.reveal_steps
    assert torch.equal(steps >= 0, rows == MASK)
    for row, passes in zip(steps, out.denoiser_passes.tolist(), strict=True):
        assert sorted(set(row[row >= 0].tolist())) == list(range(passes))
    appended = table.generate(ids([CLS, 5, SEP]), max_new_tokens=2, return_dict_in_generate=True)
    assert appended.reveal_steps[0, :3].tolist() == [-1, -1, -1]
    assert sorted(appended.reveal_steps[0, 3:].tolist()) == [0, 1]


def test_what_is_no_tensor_is_refused(table, tokenizer):
    """Texts, lists and what a tokenizer returns as a whole."""
    for value, kind in (("w1 w2", "str"), ([[CLS, 5, SEP]], "list"), (tokenizer("w1"), "Batch")):
        with pytest.raises(
            TypeError, match=f"must be a tensor of token ids, got {kind}.* Of texts"
        ):
            table.generate(value)
