"""Looking on: what is called after each pass, what it may change, and what is kept of each pass."""

from dataclasses import replace

import pytest
import torch

from tests.support.combinations import LEGAL, choices
from tests.support.prompts import CLS, MASK, PAD, SEP, UNK, WORDS
from tests.support.tiny import TableModel, tiny_config


@pytest.fixture
def table():
    return TableModel(tiny_config(), critic=True)


def ids(*rows):
    return torch.tensor(rows)


TEXT = ids([CLS, 5, *[MASK] * 6, 6, SEP])
STEPWISE = {"steps": 6, "seed": 0, "return_dict_in_generate": True, "output_history": True}


def write(state, row, column, token):
    """The state with one token changed, masks included."""
    text, masked = state.text.clone(), state.masked.clone()
    text[row, column], masked[row, column] = token, token == MASK
    return replace(state, text=text, masked=masked)


def test_it_sees_all_rows_after_every_pass(table):
    seen = []

    def look(step, state):
        seen.append((step, state.text.clone(), state.masked.clone(), state.revealed.clone()))

    rows = TEXT.repeat(2, 1)
    rows[1, 3:] = torch.tensor([7, 7, 7, 7, 7, 7, SEP])
    out = table.generate(rows, callback_on_step_end=look, **STEPWISE)
    assert [step for step, *_ in seen] == list(range(6))
    assert torch.equal(torch.stack([text for _, text, *_ in seen]), out.history)
    for _, text, masked, revealed in seen:
        assert torch.equal(masked, text == MASK)
        assert torch.equal(revealed, (rows == MASK) & ~masked)
    plain = table.generate(rows, **STEPWISE)
    assert torch.equal(out.sequences, plain.sequences)


def test_it_sees_packed_rows_with_the_closing_special_behind(table):
    seen = []
    rows = ids([PAD, CLS, 5, SEP])
    table.generate(
        rows,
        (rows != PAD).long(),
        max_new_tokens=2,
        steps=1,
        suppress_tokens=[SEP],
        callback_on_step_end=lambda step, state: seen.append(state.text.tolist()),
    )
    assert len(seen) == 1
    first, second, *new, last = seen[0][0]
    assert [first, second, last] == [CLS, 5, SEP]
    assert len(new) == 2


@pytest.mark.grid(4, first=2)
@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
def test_it_can_force_a_token_that_the_denoiser_then_sees(table, combination):
    asked = []  # passes before the first callback: one pace asks twice before it writes

    def force(step, state):
        asked.append(len(table.calls))
        return write(state, 0, 4, 17) if step == 0 else None

    out = table.generate(TEXT, callback_on_step_end=force, **choices(combination), **STEPWISE)
    assert int(out.history[0, 0, 4]) == 17
    assert MASK not in out.sequences
    if len(table.calls) > asked[0] and not combination[2].startswith("remdm"):
        assert int(table.calls[asked[0]].input_ids[0, 4]) == 17
    if combination[2] == "never":
        assert int(out.sequences[0, 4]) == 17
        assert int(out.reveal_steps[0, 4]) == 0


@pytest.mark.grid(4, first=3)
@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
@pytest.mark.parametrize("block_length", [None, 2])
def test_it_can_mask_a_token_again_even_after_the_last_step(table, combination, block_length):
    """The first mask of the text, so with blocks a block that was complete; then one pass more."""
    if combination[2] == "remdm_loop":
        block_length = None
    masked_again = []

    def mask_again(step, state):
        is_done = not state.masked.any()
        if (is_done or step == 3) and len(masked_again) < 2 and step not in masked_again:
            masked_again.append(step)
            return write(state, 0, 2, MASK)
        return None

    out = table.generate(
        TEXT,
        callback_on_step_end=mask_again,
        block_length=block_length,
        remdm_eta=0.0,
        **choices(combination),
        **STEPWISE,
    )
    assert masked_again
    assert MASK not in out.sequences
    assert set(out.sequences[0, 2:8].tolist()) <= set(WORDS)
    for step in masked_again:
        assert int(out.history[step, 0, 2]) == MASK
    assert int(out.reveal_steps[0, 2]) > masked_again[-1]


def test_it_can_finish_a_row_early(table):
    def fill(step, state):
        text = state.text.masked_fill(state.masked, 30)
        return replace(state, text=text, masked=torch.zeros_like(state.masked))

    out = table.generate(TEXT, callback_on_step_end=fill, **STEPWISE)
    assert out.denoiser_passes.tolist() == [1]
    assert sorted(out.sequences[0, 2:8].tolist()).count(30) >= 5
    assert out.reveal_steps[0, 2:8].tolist() == [0] * 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.text, "must return the DecodingState it got, changed with .*; got Tensor"),
        (lambda s: replace(s, text=s.text[:, :3]), "must return the DecodingState it got, change"),
        (lambda s: s.rows(torch.tensor([], dtype=torch.long)), "must return the DecodingState it"),
        (lambda s: write(s, 0, 1, 9), "changed a known token; those never change"),
        (lambda s: write(s, 0, 1, MASK), "changed a known token; those never change"),
        (lambda s: write(s, 0, 3, 40), "wrote ids from 2 to 40; the vocabulary has 0 to 39"),
        (lambda s: write(s, 0, 3, -1), "wrote ids from -1 to"),
        (
            lambda s: replace(s, masked=torch.zeros_like(s.masked)),
            "a state in which `masked` does not say where the mask tokens stand; change `text` and",
        ),
        (
            lambda s: replace(s, text=s.text.masked_fill(s.masked, 9)),
            "a state in which `masked` does not say where the mask tokens stand; change `text` and",
        ),
    ],
)
def test_a_state_that_decoding_cannot_go_on_from_is_refused(table, change, message):
    with pytest.raises(ValueError, match=message):
        table.generate(TEXT, callback_on_step_end=lambda step, state: change(state), steps=6)
    assert len(table.calls) == 1


# --- history, log-probabilities ------------------------------------------------------------------


def test_the_history_is_the_returned_rows_pass_by_pass(table):
    rows = ids([PAD, CLS, 5, SEP], [CLS, 6, 7, SEP])
    out = table.generate(rows, (rows != PAD).long(), max_new_tokens=3, **STEPWISE)
    assert out.history.shape == (3, 2, 7)
    assert out.history.dtype == torch.long
    assert torch.equal(out.history[:, :, :4], rows.expand(3, -1, -1))
    assert [(after == MASK).sum(1).tolist() for after in out.history] == [[2, 2], [1, 1], [0, 0]]


def test_there_is_no_history_unless_it_is_asked_for(table):
    assert table.generate(TEXT, return_dict_in_generate=True).history is None
    done = table.generate(ids([CLS, 5]), max_new_tokens=0, **STEPWISE)
    assert done.history.shape == (0, 1, 2)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_log_probabilities_are_the_denoisers_own(table, temperature):
    """Whatever temperature, filter or processor the token was drawn with."""

    def louder(input_ids, scores):
        return scores * 3

    out = table.generate(
        TEXT,
        temperature=temperature,
        top_k=5,
        logits_processor=[louder],
        order="left_to_right",
        **STEPWISE,
    )
    before = TEXT
    for step, column in enumerate(range(2, 8)):
        place = torch.zeros_like(TEXT, dtype=torch.bool)
        place[0, column] = True
        logits = table(before, torch.ones_like(TEXT), place).logits
        logits[:, [PAD, UNK, CLS, SEP, MASK]] = -torch.inf
        token = int(out.history[step, 0, column])
        expected = float(logits.log_softmax(-1)[0, token])
        assert float(out.reveal_log_probabilities[0, column]) == pytest.approx(expected, abs=1e-5)
        before = out.history[step]
    assert out.reveal_log_probabilities.dtype == torch.float32


# --- one sampler by two names --------------------------------------------------------------------


def same(table, one, other, **options):
    text = ids([CLS, *[MASK] * 12, SEP])
    options = {"steps": 6, "seed": [1, 2, 3], "anneal_temperature": False, **options}
    runs = [
        table.generate(text.repeat(3, 1), return_dict_in_generate=True, **options, **choices)
        for choices in (one, other)
    ]
    return all(
        torch.equal(runs[0][name], runs[1][name])
        for name in ("sequences", "reveal_steps", "reveal_log_probabilities")
    )


@pytest.mark.grid(2)
@pytest.mark.parametrize("order", ["top_probability", "confidence"])
@pytest.mark.parametrize(
    "options", [{}, {"choice_temperature": 2.0}, {"block_length": 6, "steps": 12}], ids=str
)
def test_p2_with_eta_one_is_remasking_by_confidence(table, order, options):
    confidence = {"order": order, "remask": "confidence"}
    p2 = {"order": order, "remask": "p2"}
    assert same(table, confidence, {**p2, "p2_eta": 1.0}, **options)
    assert not same(table, confidence, {**p2, "p2_eta": 5.0}, **options)
    assert not same(table, confidence, {"order": order}, **options)


def test_p2_with_a_vanishing_eta_never_masks_again(table):
    """Revealed tokens then score as high as any can, so the order alone decides."""
    p2 = {"remask": "p2", "p2_eta": 1e-9}
    assert same(table, p2, {"remask": "never"}, choice_temperature=0)


def test_p2_with_a_huge_eta_masks_what_it_revealed(table):
    out = table.generate(
        TEXT, remask="p2", p2_eta=1e9, order="top_probability", **{**STEPWISE, "steps": 3}
    )
    held = [set((after[0] != MASK).nonzero()[:, 0].tolist()) for after in out.history]
    known = {0, 1, 8, 9}
    assert held[0] - known
    assert not (held[0] & held[1]) - known


@pytest.mark.parametrize("order", ["top_probability", "confidence", "critic"])
def test_the_ancestors_word_for_remasking(table, order):
    meant = "critic" if order == "critic" else "confidence"
    ancestor = {"order": order, "can_mask_prev_unmasked": True}
    assert same(table, ancestor, {"order": order, "remask": meant})
    assert same(table, ancestor, {**ancestor, "remask": meant})
    assert not same(table, ancestor, {"order": order})


@pytest.mark.parametrize(
    ("order", "scale"), [("critic", "noise_level_scale"), ("confidence", "choice_temperature")]
)
def test_noise_on_the_order_is_scaled_and_not_drawn_by_greedy_decoding(table, order, scale):
    def with_scale(value):
        return {"order": order, scale: value}

    assert not same(table, with_scale(0.0), with_scale(5.0))
    if order == "critic":
        assert same(table, with_scale(0.0), with_scale(5.0), do_sample=False)
