"""Pace "speculative": the law of one reveal per pass, in fewer passes.

The sequential law is enumerated: over every order and text of 4 places, the product of what a
denoiser says of each token behind those before it. The denoiser is inconsistent on purpose (each
order has a law of its own), and its words depend on each other, so that most rounds end in a
refusal. Each chi-square raises a false alarm with odds of 1e-6 under a fresh seed; beside them
broken rounds are rejected.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from transformers import LogitsProcessorList, TopKLogitsWarper

from hf_maskgit import MaskGitGenerationConfig
from hf_maskgit.core import sampler_speculation
from hf_maskgit.core.decoding import fill_masks
from hf_maskgit.core.decoding_state import DecodingState
from hf_maskgit.core.sampler import Sampler
from hf_maskgit.core.sampler_orders import ORDERS
from hf_maskgit.core.sampler_rules import PACES
from hf_maskgit.core.sampler_speculation import next_drafts
from hf_maskgit.core.schedules import get_schedule
from tests.support.oracles_sampling import (
    CHAIN,
    Oracle,
    all_rows,
    chi_square,
    number_of,
    text_frequencies,
)
from tests.support.sampler_runs import run
from tests.support.tiny import tiny_model

LENGTH, MASK, SAMPLES = 4, 3, 20_000
ACCEPT, REJECT = 1e-6, 1e-30
ORACLE = Oracle.exact(CHAIN, LENGTH).noisy(1.0, seed=3)
BLIND = ["random", "left_to_right"]


def law_at(logits, temperature, top=3):
    """What one token is drawn by: (N, 3) logits of the oracle at a temperature, warped."""
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), 3).double()
    kept = logits >= logits.topk(top, -1).values[:, -1:]
    return (logits / temperature).masked_fill(~kept, -torch.inf).softmax(-1)


def sequential_law(order, temperatures=(1.0,) * LENGTH, top=3, block_length=LENGTH, bend=None):
    """Probability of every text (81,) when one token is revealed per pass, by enumeration."""
    blocks = [range(LENGTH)[i : i + block_length] for i in range(0, LENGTH, block_length)]
    within = [list(itertools.permutations(b)) if order == "random" else [tuple(b)] for b in blocks]
    orders = [sum(parts, ()) for parts in itertools.product(*within)]
    texts, total = all_rows(3, LENGTH), torch.zeros(3**LENGTH, dtype=torch.float64)
    for places in orders:
        chance = torch.ones(len(texts), dtype=torch.float64)
        for nth, place in enumerate(places):
            before = texts.clone()
            before[:, places[nth:]] = MASK
            logits = ORACLE.logits[number_of(before, MASK + 1), place]
            if bend is not None:
                logits = bend(before, logits)
            law = law_at(logits, temperatures[nth], top)
            chance *= law.gather(1, texts[:, place, None]).squeeze(1)
        total += chance / len(orders)
    assert float(total.sum()) == pytest.approx(1)
    return total


def p_value(filled, law):
    """Odds that samples of the law look as odd as these; what it excludes must not occur."""
    assert bool((filled.text < MASK).all())
    counts, law = text_frequencies(filled.text, MASK), law.numpy()
    assert counts[law == 0].sum() == 0
    return chi_square(counts[law > 0], law[law > 0])


def speculate(oracle=ORACLE, samples=SAMPLES, **options):
    return run(oracle, samples, pace="speculative", **options)


# --- the law -------------------------------------------------------------------------------------


@pytest.mark.grid(2)
@pytest.mark.parametrize("draft_length", [1, 2, 16])
@pytest.mark.parametrize("order", BLIND)
def test_texts_have_the_law_of_one_reveal_per_pass(order, draft_length):
    filled = speculate(order=order, draft_length=draft_length)
    assert p_value(filled, sequential_law(order)) > ACCEPT
    passes = float(filled.passes.double().mean())
    assert passes < LENGTH - 0.3 if draft_length > 1 else passes == LENGTH


@pytest.mark.parametrize("drafts", [3, 4])
def test_a_round_over_the_whole_text_has_it_too(monkeypatch, drafts):
    always = replace(
        PACES["speculative"],
        choose=lambda turn, look, places: sampler_speculation_choice(turn, look, places, drafts),
    )
    monkeypatch.setitem(PACES, "speculative", always)
    filled = speculate(order="random")
    assert p_value(filled, sequential_law("random")) > ACCEPT
    assert int(filled.passes.min()) == 2


def sampler_speculation_choice(turn, look, places, drafts):
    ranks = (-look.scores).masked_fill(~places, math.inf).argsort(1).argsort(1)
    return places & (ranks <= drafts)


@pytest.mark.grid(2)
@pytest.mark.parametrize("order", BLIND)
def test_the_nth_token_has_the_temperature_of_the_nth_pass(order):
    """Of 4 tokens at 1.3, annealed: 3/4, 2/4, 1/4 of it, and greedy, as with 4 steps."""
    filled = speculate(order=order, temperature=1.3, anneal_temperature=True)
    warmth = [1.3 * (LENGTH - 1 - n) / LENGTH for n in range(LENGTH)]
    assert p_value(filled, sequential_law(order, warmth)) > ACCEPT
    assert p_value(filled, sequential_law(order, (1.3,) * LENGTH)) < REJECT
    by_pass = run(ORACLE, SAMPLES, order=order, temperature=1.3, anneal_temperature=True)
    assert p_value(by_pass, sequential_law(order, warmth)) > ACCEPT


@pytest.mark.grid(2, first=1)
@pytest.mark.parametrize("order", BLIND)
def test_filters_shape_drafts_and_what_they_are_verified_by(order):
    top = LogitsProcessorList([TopKLogitsWarper(2)])
    filled = speculate(order=order, warpers=top, temperature=0.8)
    assert p_value(filled, sequential_law(order, (0.8,) * LENGTH, top=2)) > ACCEPT


@pytest.mark.wide
def test_processors_see_the_text_behind_which_a_token_is_drawn():
    """One that makes likelier what the text does not hold yet, so that it matters which it sees."""

    def bend(before, logits):
        held = torch.stack([(before == k).any(1) for k in range(3)], 1)
        return logits - 1.5 * held

    def processor(input_ids, scores):
        changed = bend(input_ids, scores[:, :MASK])
        return torch.cat([changed, scores[:, MASK:]], 1)

    filled = speculate(order="random", processors=LogitsProcessorList([processor]))
    assert p_value(filled, sequential_law("random", bend=bend)) > ACCEPT
    assert p_value(filled, sequential_law("random")) < REJECT


@pytest.mark.grid(2)
@pytest.mark.parametrize("order", BLIND)
def test_blocks_are_filled_one_after_the_other(order):
    filled = speculate(order=order, block_length=3)
    assert p_value(filled, sequential_law(order, block_length=3)) > ACCEPT


def test_accepting_every_draft_breaks_the_law(monkeypatch):
    monkeypatch.setattr(sampler_speculation, "_drafted", _never_refused)
    assert p_value(speculate(order="left_to_right"), sequential_law("left_to_right")) < REJECT


def _never_refused(turn, chosen, rank, drafted=sampler_speculation._drafted):
    draft = drafted(turn, chosen, rank)
    return draft._replace(chances=draft.chances * 0)  # as if each were likelier now than then


def test_drawing_afresh_what_was_refused_breaks_the_law(monkeypatch):
    """By the law itself instead of (q - p)+: what the draft liked comes too often."""
    plain = sampler_speculation.draw_by

    def afresh(turn, draft, law, at):
        return plain(law, turn.uniforms[..., 3][at])

    monkeypatch.setattr(sampler_speculation, "_instead", afresh)
    assert p_value(speculate(order="left_to_right"), sequential_law("left_to_right")) < REJECT


# --- passes and rows -----------------------------------------------------------------------------


def test_independent_words_are_all_accepted():
    """The laws of all places are the same in every text: rounds of 3, 6, 9 and 12 tokens."""
    length, calls = 30, []
    laws = torch.randn(length, 5, generator=torch.Generator().manual_seed(0))

    def logits_fn(rows, text, positions):
        calls.append(len(rows))
        return laws[positions.nonzero()[:, 1]]

    filled = fill_masks(logits_fn, *_all_masks(2, length, 5), _sampler(5), [1, 2])
    # 2 drafts and one more, then 5 + 1, 8 + 1 and, of the 12 that are left, 11 + 1.
    assert calls == [2, 2 * 2, 2, 2 * 5, 2, 2 * 8, 2, 2 * 11]
    assert filled.passes.tolist() == [8, 8]
    assert filled.pass_rows.tolist() == [4 + 2 + 5 + 8 + 11] * 2
    steps = torch.bincount(filled.reveal_steps.flatten()).tolist()
    assert steps == [2 * 3, 2 * 6, 2 * 9, 2 * 12]


def test_a_round_drafts_two_more_than_the_last_revealed():
    assert next_drafts(torch.tensor([0, 2, 3, 15]), 16).tolist() == [2, 4, 5, 16]
    assert next_drafts(torch.tensor([0, 7]), 1).tolist() == [1, 1]


def test_passes_are_never_more_than_tokens():
    """Two a round, of which the first draft and the token that ends the round are certain."""
    generator = torch.Generator().manual_seed(1)
    table = 20 * torch.randn(MASK + 1, LENGTH, 3, generator=generator, dtype=torch.float64)
    longer = replace(ORACLE, logits=table[all_rows(MASK + 1, LENGTH).sum(1) % (MASK + 1)])
    filled = speculate(longer, samples=500, order="random")
    assert int(filled.passes.max()) <= LENGTH
    assert bool((filled.pass_rows >= filled.passes).all())


def test_other_paces_ask_for_one_text_of_a_row_per_pass():
    filled = run(ORACLE, 5, order="random")
    assert torch.equal(filled.passes, filled.pass_rows)


# --- greedy, seeds, probabilities ----------------------------------------------------------------


@pytest.mark.grid(2)
@pytest.mark.parametrize("block_length", [None, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_greedy_is_the_sequential_text(temperature, block_length):
    options = {"order": "left_to_right", "do_sample": False, "block_length": block_length}
    texts = all_rows(MASK + 1, LENGTH)  # every text with any masks
    state = DecodingState.start(texts, texts == MASK, texts == MASK, block_length)
    lengths, seeds = torch.full((len(texts),), LENGTH), range(len(texts))
    one, many = (
        fill_masks(
            ORACLE.logits_fn,
            state,
            lengths,
            _sampler(MASK, steps=LENGTH, pace=pace, temperature=temperature, **options),
            seeds,
        )
        for pace in ("schedule", "speculative")
    )
    assert torch.equal(one.text, many.text)
    assert int(many.passes.sum()) < int(one.passes.sum())


def _all_masks(rows, length, mask):
    text = torch.full((rows, length), mask)
    masked = text == mask
    return DecodingState.start(text, masked, masked), torch.full((rows,), length)


def _sampler(mask, **options):
    settings = {"pace": "speculative", "order": "random", "anneal_temperature": False, **options}
    suppressed = torch.tensor([mask] if mask == MASK else [], dtype=torch.long)
    return Sampler(
        schedule=get_schedule("linear"),
        mask_token_id=mask,
        suppressed=suppressed,
        end_ids=torch.tensor([], dtype=torch.long),
        **settings,
    )


@pytest.mark.grid(2, first=1)
@pytest.mark.parametrize("order", BLIND)
def test_a_row_does_not_depend_on_its_neighbours(order):
    """Rows whose rounds are of different lengths, alone and together."""
    text = torch.full((6, LENGTH), MASK)
    text[1, 2], text[3, :2] = 1, 0
    masked, seeds = text == MASK, [5, 6, 7, 8, 9, 10]
    sampler = _sampler(MASK, order=order)

    def filled(rows):
        state = DecodingState.start(text[rows], masked[rows], masked[rows])
        lengths = torch.full((len(rows),), LENGTH)
        return fill_masks(ORACLE.logits_fn, state, lengths, sampler, [seeds[r] for r in rows])

    together = filled([0, 1, 2, 3, 4, 5])
    for row in range(6):
        alone = filled([row])
        assert torch.equal(alone.text[0], together.text[row])
        assert int(alone.passes) == int(together.passes[row])
        assert int(alone.pass_rows) == int(together.pass_rows[row])


def test_probabilities_are_those_behind_the_tokens_before():
    """From left to right, each is the oracle's of the text up to it; the temperature is no part."""
    filled = speculate(
        samples=200, order="left_to_right", records_probabilities=True, temperature=0.7
    )
    before = torch.full((200, LENGTH), MASK)
    for place in range(LENGTH):
        logits = ORACLE.logits[number_of(before, MASK + 1), place].log_softmax(-1)
        expected = logits.gather(1, filled.text[:, place, None]).squeeze(1)
        assert torch.allclose(filled.log_probabilities[:, place].double(), expected, atol=1e-6)
        before[:, place] = filled.text[:, place]


# --- in `generate` -------------------------------------------------------------------------------


def test_generate_counts_passes_and_rows_and_keeps_every_law():
    model = tiny_model(seed=0)
    ids = torch.tensor([[2, 9, 10, 3], [2, 11, 3, 0]])
    out = model.generate(
        ids,
        (ids != 0).long(),
        pace="speculative",
        max_new_tokens=12,
        top_p=0.9,
        guidance_scale=1.5,
        suppress_tokens=[7],
        seed=[1, 2],
        output_history=True,
        return_dict_in_generate=True,
    )
    alone = model.generate(
        ids[1:, :3],
        pace="speculative",
        max_new_tokens=12,
        top_p=0.9,
        guidance_scale=1.5,
        suppress_tokens=[7],
        seed=[2],
    )
    assert torch.equal(out.sequences[1, :-1], alone[0])
    assert model.config.mask_token_id not in out.sequences
    assert bool((out.denoiser_rows > out.denoiser_passes).all())
    assert bool((out.denoiser_passes <= 12).all())
    assert out.history.shape[0] == int(out.reveal_steps.max()) + 1
    assert 7 not in out.sequences


def test_blocks_do_not_turn_the_cache_on():
    model = tiny_model(seed=0)
    ids = torch.tensor([[2, 9, 10, 3]])
    call = {"pace": "speculative", "max_new_tokens": 8, "block_length": 4, "seed": 1}
    with_blocks = model.generate(ids, **call)
    assert torch.equal(with_blocks, model.generate(ids, use_cache=False, **call))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"use_cache": True},
            r"use_cache=True keeps what the pass before computed of a row, and "
            r"pace='speculative' asks for several texts of a row in one pass; set use_cache=False",
        ),
        (
            {"order": "entropy"},
            r"pace='speculative' with remask='never' goes with order 'random', 'left_to_right', "
            r"got order='entropy'",
        ),
        ({"remask": "confidence"}, r"remask='confidence' goes with pace 'schedule'"),
        ({"remask": "remdm_cap"}, r"remask='remdm_cap' goes with pace 'ancestral'"),
        ({"choice_temperature": 1.0}, r"leaves it nothing to change"),
        ({"do_sample": False}, r"do_sample=False draws nothing at random, which order='random'"),
        ({"draft_length": 0}, r"`draft_length` must be"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_has_no_such_law_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_model(seed=0).generate(torch.tensor([[2, 4, 4, 3]]), pace="speculative", **options)


def test_a_model_that_looks_back_is_refused():
    model = tiny_model(seed=0, self_cond=True)
    with pytest.raises(ValueError, match="this model looks back on the pass before"):
        model.generate(torch.tensor([[2, 4, 4, 3]]), pace="speculative")


def test_logits_that_are_no_numbers_are_refused_in_either_pass():
    for bad in (1, 2):
        calls = []

        def logits_fn(rows, text, positions, calls=calls, bad=bad):
            calls.append(0)
            logits = ORACLE.logits_fn(rows, text, positions)
            return logits * math.nan if len(calls) == bad else logits

        with pytest.raises(ValueError, match="The denoiser's logits are not finite"):
            fill_masks(logits_fn, *_all_masks(1, LENGTH, MASK), _sampler(MASK), [0])
        assert len(calls) == bad


def test_the_orders_that_do_not_look_say_so():
    assert [name for name, row in ORDERS.items() if row.blind] == BLIND
    assert MaskGitGenerationConfig(pace="speculative", order="random").draft_length is None
