"""What is not finite is refused: no constant text, no id beyond the vocabulary, no bound of nan."""

import math

import pytest
import torch

from hf_maskgit import nelbo
from hf_maskgit.core.finite import check_critic_scores, check_logits, check_processed
from hf_maskgit.evaluation import critic_auroc, masked_accuracy
from tests.support.combinations import LEGAL, choices
from tests.support.tiny import TableModel, tiny_config, tiny_model, word_tokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
TEXT = torch.tensor([[CLS, MASK, 7, MASK, MASK, SEP]])
CLEAN = torch.tensor([[CLS, 5, 7, 8, 9, SEP]])
NOT_FINITE = r"The denoiser's logits are not finite at \d of \d positions: nan, \+inf"
INF, NAN = math.inf, math.nan
BROKEN = pytest.mark.parametrize("bad", [NAN, INF])


@pytest.fixture
def table():
    return TableModel(tiny_config(), critic=True)


def broken(bad, critic=None):
    """A model one of whose weights is not finite: the bias of an ordinary word."""
    model = tiny_model(token_critic=critic)
    with torch.no_grad():
        model.denoiser.get_output_embeddings().bias[9] = bad
    return model


# --- the checks by hand --------------------------------------------------------------------------


@BROKEN
def test_one_bad_logit_is_enough(bad):
    logits = torch.zeros(3, 4)
    logits[1, 2] = -INF
    check_logits(logits)
    check_processed(logits)
    logits[2, 1] = bad
    with pytest.raises(ValueError, match="not finite at 1 of 3 positions"):
        check_logits(logits)
    with pytest.raises(ValueError, match="gives nan or \\+inf as the score of an id"):
        check_processed(logits)


def test_a_position_where_nothing_can_stand():
    logits = torch.zeros(2, 3)
    logits[0] = -INF
    with pytest.raises(ValueError, match="at 1 of 2 positions: nan, .inf, or nothing but -inf"):
        check_logits(logits)
    with pytest.raises(ValueError, match="leaves nothing to emit at a position"):
        check_processed(logits)


def test_no_positions_are_no_fault():
    check_logits(torch.zeros(0, 4))
    check_processed(torch.zeros(0, 4))
    check_critic_scores(torch.zeros(0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_number_format(dtype):
    check_logits(torch.zeros(2, 3, dtype=dtype))
    with pytest.raises(ValueError, match="not finite at 2 of 2"):
        check_logits(torch.full((2, 3), INF, dtype=dtype))


# --- generate ------------------------------------------------------------------------------------


@pytest.mark.grid(4, first=2)
@BROKEN
@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
def test_broken_weights_write_nothing(bad, combination):
    with pytest.raises(ValueError, match=NOT_FINITE):
        broken(bad, "self").generate(TEXT, seed=0, **choices(combination))


@pytest.mark.grid(2)
@BROKEN
@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"guidance_scale": 2.0},
        {"top_k": 5},
        {"block_length": 1, "steps": 3},
        {"max_new_tokens": 2},
        {"num_return_sequences": 2},
        {"return_dict_in_generate": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_whatever_else_is_asked_for(bad, options):
    with pytest.raises(ValueError, match=NOT_FINITE):
        broken(bad).generate(TEXT, seed=0, **options)


def test_a_later_pass_that_breaks_is_noticed(table):
    plain, calls = table.of_place.clone(), []

    def break_it(step, state):
        calls.append(step)
        table.of_place[:] = plain if step < 1 else NAN

    with pytest.raises(ValueError, match=NOT_FINITE):
        table.generate(TEXT, steps=3, seed=0, callback_on_step_end=break_it)
    assert calls == [0, 1]


def test_what_can_never_be_emitted_may_be_anything():
    """Its logits take no part: training leaves some of them as they come."""
    model, bad = tiny_model(), tiny_model()
    with torch.no_grad():
        bad.denoiser.get_output_embeddings().bias[MASK] = NAN
    assert torch.equal(bad.generate(TEXT, seed=0), model.generate(TEXT, seed=0))


@pytest.mark.parametrize("order", ["critic", "top_probability"])
def test_a_critic_that_gives_nan(order):
    model = tiny_model(token_critic="self")
    with torch.no_grad():
        model.critic_head.bias.fill_(NAN)
    if order != "critic":  # nobody asks it
        model.generate(TEXT, seed=0, order=order)
        return
    with pytest.raises(ValueError, match=r"token critic's scores are nan at \d of \d positions"):
        model.generate(TEXT, seed=0, order=order)


@pytest.mark.parametrize(
    "option",
    [
        "temperature",
        "guidance_scale",
        "repetition_penalty",
        "choice_temperature",
        "noise_level_scale",
        "p2_eta",
    ],
)
def test_options_that_scale_must_be_finite(table, option):
    with pytest.raises(ValueError, match=f"`{option}` must be finite, got inf"):
        table.generate(TEXT, **{option: INF})
    assert table.calls == []


def test_an_overwhelming_guidance_is_no_text():
    with pytest.raises(ValueError, match="so may a large `guidance_scale`"):
        tiny_model().generate(TEXT, seed=0, guidance_scale=1e300)


def test_a_penalty_that_no_score_survives():
    with pytest.raises(ValueError, match=r"`repetition_penalty` gives nan or \+inf as the score"):
        tiny_model().generate(TEXT, seed=0, repetition_penalty=1e-45)


@BROKEN
def test_a_processor_that_breaks_one_score(table, bad):
    def breaks(ids, scores):
        scores[0, 9] = bad
        return scores

    with pytest.raises(ValueError, match=r"`logits_processor` or .* gives nan or \+inf"):
        table.generate(TEXT, seed=0, logits_processor=[breaks])


@pytest.mark.parametrize("temperature", [1e-46, 1e-44, 1e-39, 1e-37, 1e-30])
def test_a_tiny_temperature_takes_the_likeliest_token(temperature):
    """Also where a logit divided by it is beyond float32."""
    model = tiny_model()
    options = {"seed": 0, "anneal_temperature": False, "choice_temperature": 0}
    cold = model.generate(TEXT, temperature=temperature, **options)
    assert torch.equal(cold, model.generate(TEXT, do_sample=False))


def test_a_huge_temperature_draws_what_may_stand_there():
    """Every ordinary id is equally likely, and no other comes: of 600 draws, none is missed with a
    probability below 1e-5.
    """
    model = tiny_model()
    text = torch.full((1, 60), MASK)
    options = {"seed": 0, "anneal_temperature": False, "num_return_sequences": 10}
    found = model.generate(text, temperature=1e300, **options).unique().tolist()
    assert set(range(5, 40)) <= set(found) <= {PAD, SEP, *range(5, 40)}  # padding behind an end


def test_a_large_logit_does_not_overflow():
    """A temperature divides what is left after the greatest one is taken off."""
    model = tiny_model().double()
    with torch.no_grad():
        model.denoiser.get_output_embeddings().bias[9] = 1e38
    expected = torch.where(TEXT == MASK, 9, TEXT)
    found = model.float().generate(TEXT, seed=0, temperature=0.1, anneal_temperature=False)
    assert torch.equal(found, expected)


# --- evaluation ----------------------------------------------------------------------------------


@BROKEN
def test_broken_weights_have_no_bound(bad):
    with pytest.raises(ValueError, match=NOT_FINITE):
        nelbo(broken(bad), CLEAN, num_samples=4)


@BROKEN
@pytest.mark.parametrize("measure", [masked_accuracy, critic_auroc])
def test_broken_weights_are_not_measured(bad, measure):
    texts = [{"input_ids": CLEAN[0].tolist()}] * 4
    with pytest.raises(ValueError, match=NOT_FINITE):
        measure(broken(bad, "self"), texts, word_tokenizer(), progress=False)


def test_a_broken_critic_is_not_measured():
    model = tiny_model(token_critic="self")
    with torch.no_grad():
        model.critic_head.bias.fill_(NAN)
    texts = [{"input_ids": CLEAN[0].tolist()}] * 4
    with pytest.raises(ValueError, match="token critic's scores are nan"):
        critic_auroc(model, texts, word_tokenizer(), progress=False)


def test_a_temperature_of_a_critic_is_finite():
    texts = [{"input_ids": CLEAN[0].tolist()}]
    with pytest.raises(ValueError, match="`temperature` must be finite, got inf"):
        critic_auroc(tiny_model(token_critic="self"), texts, word_tokenizer(), temperature=INF)
