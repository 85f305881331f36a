"""Guidance without a classifier, against the formula computed by hand on the table."""

import itertools

import pytest
import torch

from hf_maskgit.core.decoding_guidance import guided
from hf_maskgit.core.token_pattern import TokenPattern
from tests.support.prompts import CLS, MASK, PAD, SEP, UNK
from tests.support.tiny import TableModel, tiny_config, tiny_model


@pytest.fixture
def table():
    return TableModel(tiny_config())


def ids(*rows):
    return torch.tensor(rows)


PROMPT = ids([CLS, 5, 6, 7, SEP])
ONE_PASS = {
    "steps": 1,
    "order": "random",
    "anneal_temperature": False,
    "return_dict_in_generate": True,
}


def law(table, text, positions):
    """Log-probabilities (N, V) at some places of one packed row."""
    masked = torch.zeros(1, len(text), dtype=torch.bool)
    masked[0, positions] = True
    return table(ids(text), torch.ones(1, len(text)), masked).logits.log_softmax(-1)


def guided_law(given, other, scale, can_end=True):
    """u + w (c - u), normalised over what may be emitted."""
    combined = other + scale * (given - other)
    combined[:, [PAD, UNK, CLS, MASK] + ([] if can_end else [SEP])] = -torch.inf
    return combined.log_softmax(-1)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 4.0])
def test_without_a_negative_prompt_the_prompt_is_masked(table, scale):
    out = table.generate(PROMPT, max_new_tokens=3, guidance_scale=scale, seed=0, **ONE_PASS)
    given = law(table, [CLS, 5, 6, 7, MASK, MASK, MASK, SEP], [4, 5, 6])
    other = law(table, [CLS, MASK, MASK, MASK, MASK, MASK, MASK, SEP], [4, 5, 6])
    drawn = table.calls[0].masked_positions.clone()
    assert drawn.sum() == 3
    expected = guided_law(given, other, scale)
    # Behind an end everything is padding, which has no probability of its own.
    for place, token in enumerate(out.sequences[0, 5:].tolist()):
        if token != PAD:
            reported = float(out.reveal_log_probabilities[0, 5 + place])
            assert reported == pytest.approx(float(expected[place, token]), abs=1e-5)


def test_in_a_text_that_is_filled_everything_known_but_the_frame_is_masked(table):
    text = [CLS, 5, MASK, 6, MASK, SEP]
    out = table.generate(ids(text), guidance_scale=3.0, seed=1, **ONE_PASS)
    given = law(table, text, [2, 4])
    other = law(table, [CLS, MASK, MASK, MASK, MASK, SEP], [2, 4])
    expected = guided_law(given, other, 3.0, can_end=False)
    for place, column in enumerate((2, 4)):
        reported = float(out.reveal_log_probabilities[0, column])
        token = int(out.sequences[0, column])
        assert reported == pytest.approx(float(expected[place, token]), abs=1e-5)


def test_an_unknown_word_of_the_prompt_is_masked_too(table):
    prompt = ids([CLS, 5, UNK, SEP])
    table.generate(prompt, max_new_tokens=1, guidance_scale=2.0)
    assert [call.input_ids.tolist() for call in table.calls] == [
        [[CLS, 5, UNK, MASK, SEP]],
        [[CLS, MASK, MASK, MASK, SEP]],
    ]


def test_what_was_revealed_stays_visible_without_the_prompt(table):
    table.generate(PROMPT, max_new_tokens=4, steps=4, guidance_scale=2.0, suppress_tokens=[SEP])
    assert len(table.calls) == 8
    for given, other in zip(table.calls[::2], table.calls[1::2], strict=True):
        prompt, new = [CLS, MASK, MASK, MASK], given.input_ids[0, 4:].tolist()
        assert given.input_ids[0, :4].tolist() == [CLS, 5, 6, 7]
        assert other.input_ids[0].tolist() == prompt + new
        assert torch.equal(given.masked_positions, other.masked_positions)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_negative_prompt_stands_in_for_the_prompt(table, side):
    """Of another length, and padded on either side."""
    negative = [[CLS, 20, SEP], [CLS, 21, 22, 23, 24, SEP]]
    padded = [[PAD] * 3 + negative[0], negative[1]]
    if side == "right":
        padded[0] = negative[0] + [PAD] * 3
    out = table.generate(
        PROMPT.repeat(2, 1),
        max_new_tokens=2,
        guidance_scale=2.5,
        negative_prompt_ids=ids(*padded),
        negative_prompt_attention_mask=(ids(*padded) != PAD).long(),
        suppress_tokens=[SEP],
        seed=0,
        **ONE_PASS,
    )
    given = law(table, [CLS, 5, 6, 7, MASK, MASK, SEP], [4, 5])
    for row in range(2):
        before = negative[row][:-1]
        places = [len(before), len(before) + 1]
        other = law(table, [*before, MASK, MASK, SEP], places)
        expected = guided_law(given, other, 2.5, can_end=False)
        for place in range(2):
            reported = float(out.reveal_log_probabilities[row, 5 + place])
            token = int(out.sequences[row, 5 + place])
            assert reported == pytest.approx(float(expected[place, token]), abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"remask": "confidence"}, {"order": "random"}], ids=str)
def test_a_row_with_its_negative_prompt_is_the_same_alone_and_in_a_batch(table, options):
    prompts = ids([CLS, 5, 6, 7, SEP], [PAD, PAD, CLS, 8, SEP])
    negatives = ids([CLS, 20, SEP, PAD], [CLS, 21, 22, SEP])
    options |= {"max_new_tokens": 5, "steps": 3, "guidance_scale": 2.0}
    together = table.generate(
        prompts,
        (prompts != PAD).long(),
        negative_prompt_ids=negatives,
        negative_prompt_attention_mask=(negatives != PAD).long(),
        num_return_sequences=2,
        seed=[1, 2, 3, 4],
        **options,
    )
    alone = [
        table.generate(
            prompts[row][prompts[row] != PAD][None],
            negative_prompt_ids=negatives[row][negatives[row] != PAD][None],
            num_return_sequences=2,
            seed=[2 * row + 1, 2 * row + 2],
            **options,
        )
        for row in range(2)
    ]
    assert torch.equal(together[:2], alone[0])
    assert torch.equal(together[2:, 2:], alone[1])


def test_one_negative_prompt_for_all(table):
    options = {"max_new_tokens": 3, "guidance_scale": 2.0, "seed": 0, "num_return_sequences": 2}
    prompts, negative = PROMPT.repeat(2, 1), ids([CLS, 9, SEP])
    outs = [
        table.generate(prompts, negative_prompt_ids=negative.repeat(count, 1), **options)
        for count in (1, 2, 4)
    ]
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 2.0}], ids=["plain", "guided"])
def test_a_negative_mask_without_its_ids_is_refused(table, options):
    with pytest.raises(ValueError, match="which of the `negative_prompt_ids` are real; pass them"):
        table.generate(PROMPT, negative_prompt_attention_mask=torch.ones_like(PROMPT), **options)


@pytest.mark.parametrize("scale", [None, 1, 1.0])
def test_a_scale_of_one_changes_nothing_and_costs_nothing(table, scale):
    plain = table.generate(PROMPT, max_new_tokens=4, seed=0)
    calls = len(table.calls)
    out = table.generate(PROMPT, max_new_tokens=4, seed=0, guidance_scale=scale)
    assert torch.equal(out, plain)
    assert len(table.calls) == 2 * calls


def test_a_guided_pass_is_one_pass_that_asks_twice(table):
    out = table.generate(
        PROMPT,
        max_new_tokens=4,
        steps=4,
        guidance_scale=2.0,
        suppress_tokens=[SEP],
        return_dict_in_generate=True,
    )
    assert out.denoiser_passes.tolist() == [4]
    assert len(table.calls) == 8


def test_a_real_model_is_guided():
    model = tiny_model().double()
    options = {"max_new_tokens": 8, "do_sample": False}
    plain = model.generate(PROMPT, **options)
    assert not torch.equal(model.generate(PROMPT, guidance_scale=8.0, **options), plain)


def test_half_precision_is_combined_in_float32():
    """Differences of log-probabilities do not survive eight bits."""
    logits = [(8 * torch.randn(3, 50)).bfloat16() for _ in range(2)]
    combine = guided(lambda *_: logits[0], lambda *_: logits[1], 3.0)
    given, other = (x.float().log_softmax(-1) for x in logits)
    out = combine(torch.arange(1), torch.zeros(1, 3), torch.ones(1, 3).bool())
    assert out.dtype == torch.float32
    assert torch.equal(out, other + 3.0 * (given - other))


def test_what_is_impossible_in_both_stays_impossible():
    logits = torch.tensor([[0.0, 1.0, -torch.inf]])
    combine = guided(lambda *_: logits, lambda *_: 2 * logits, 3.0)
    out = combine(torch.arange(1), torch.zeros(1, 1), torch.ones(1, 1).bool())
    assert out[0, 2] == -torch.inf
    assert not out.isnan().any()


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (PROMPT, {"guidance_scale": None}, "needs a `guidance_scale` other than 1, for example 1"),
        (PROMPT, {"guidance_scale": 1.0}, "needs a `guidance_scale` other than 1, for example 1"),
        (ids([CLS, MASK, SEP]), {}, "stand in for a prompt that is continued; this text holds ma"),
        (PROMPT, {"max_new_tokens": 0}, "stand in for a prompt that is continued; this text hold"),
        (
            PROMPT,
            {"negative_prompt_ids": ids([CLS, MASK, SEP])},
            "hold masks; a prompt must be whole",
        ),
        (
            PROMPT,
            {"negative_prompt_ids": ids([9], [9])},
            "have 2 rows for 1 prompts and 1 returned texts; give one for all, or one per prompt",
        ),
        (
            PROMPT.repeat(4, 1),
            {"negative_prompt_ids": ids([9], [9])},
            "have 2 rows for 4 prompts and 4 returned texts; give one for all, or one per prompt",
        ),
        (
            PROMPT,
            {"negative_prompt_ids": ids([PAD, 9])},
            "`negative_prompt_ids` hold the padding id 0 and no `negative_prompt_attention_mask`",
        ),
        (
            PROMPT,
            {"negative_prompt_ids": ids([99])},
            "`negative_prompt_ids` run from 99 to 99; the vocabulary has 0 to 39",
        ),
        (
            PROMPT,
            {"negative_prompt_ids": torch.full((1, 60), 9), "max_new_tokens": 10},
            r"The longest row comes to 70 tokens \(10 of them new\), the encoder takes 64",
        ),
    ],
)
def test_what_guidance_cannot_use_is_refused(table, prompt, options, message):
    negative = {"negative_prompt_ids": ids([CLS, 9, SEP]), "guidance_scale": 2.0}
    with pytest.raises(ValueError, match=message):
        table.generate(prompt, **{**negative, **options})
    assert table.calls == []


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_a_pattern_conditions_the_guided_law(table, scale):
    """One pass, against the enumeration of every text: probabilities, and the likeliest one."""
    text = [CLS, 5, MASK, MASK, MASK, SEP]
    pattern = TokenPattern.from_token_classes([([10, 11], 1, 2), ([11, 12], 1, 2)], 40)
    given = law(table, text, [2, 3, 4])
    other = law(table, [CLS, MASK, MASK, MASK, MASK, SEP], [2, 3, 4])
    expected = guided_law(given, other, scale, can_end=False)
    texts = [t for t in itertools.product((10, 11, 12), repeat=3) if pattern.matches(ids(t)[0])]
    weights = torch.stack([expected[range(3), list(t)].sum() for t in texts]).softmax(0)
    options = {"guidance_scale": scale, "pattern": pattern, **ONE_PASS}
    for seed in range(5):
        out = table.generate(ids(text), seed=seed, **options)
        drawn = out.sequences[0, 2:5].tolist()
        assert tuple(drawn) in texts
        for place, token in enumerate(drawn):
            alike = [t[place] == token for t in texts]
            reported = float(out.reveal_log_probabilities[0, 2 + place])
            assert reported == pytest.approx(float(weights[alike].sum().log()), abs=1e-5)
    options |= {"order": "left_to_right"}
    best = table.generate(ids(text), do_sample=False, **options).sequences[0, 2:5].tolist()
    assert tuple(best) == texts[int(weights.argmax())]


def test_pushing_away_from_its_own_prompt_changes_nothing_whatever_its_token_types():
    """The types of the new tokens, too, are the same behind both."""
    model = tiny_model()
    table = model.get_submodule("denoiser.bert.embeddings.token_type_embeddings").weight.data
    table[1] = 3 * torch.randn(table.shape[1], generator=torch.Generator().manual_seed(0))
    for of_types in (0, 1):
        types = torch.full_like(PROMPT, of_types)
        options = {"token_type_ids": types, "max_new_tokens": 4, "do_sample": False}
        options |= {"return_dict_in_generate": True, "steps": 4}
        plain = model.generate(PROMPT, **options)
        guided = model.generate(PROMPT, guidance_scale=4.0, negative_prompt_ids=PROMPT, **options)
        assert torch.equal(guided.sequences, plain.sequences)
        found, expected = (o.reveal_log_probabilities for o in (guided, plain))
        assert torch.allclose(found, expected, atol=1e-5, equal_nan=True)
