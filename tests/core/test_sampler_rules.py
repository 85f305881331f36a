"""The laws of `generate` for every combination of order, pace and remasking that is legal.

`TableModel` is exact in float64, so a row alone and the same row in a batch must agree to the last
bit. What happened pass by pass is read from `history` and from the calls that the table recorded.
"""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_maskgit import MaskGitGenerationConfig
from hf_maskgit.core.sampler_choices import P2_PLANNERS
from hf_maskgit.core.sampler_orders import ORDERS
from hf_maskgit.core.sampler_rules import PACES, REMASKS
from tests.support.combinations import LEGAL, REMDM, choices
from tests.support.prompts import CLS, MASK, PAD, SEP, WORDS, collate, padded_batches
from tests.support.tiny import TableModel, tiny_config

SCORED = ["top_probability", "margin", "entropy", "confidence"]


@pytest.fixture(scope="module")
def table():
    return TableModel(tiny_config(), critic=True)


@pytest.fixture(autouse=True)
def _forget_calls(table):
    table.calls.clear()
    table.critic_calls.clear()


# --- which combinations there are ----------------------------------------------------------------


@pytest.mark.wide
def test_every_other_combination_is_refused_before_any_pass(table):
    text, refused = torch.tensor([[CLS, MASK, SEP]]), 0
    for order, pace, remask, planner in itertools.product(ORDERS, PACES, REMASKS, P2_PLANNERS):
        means_planner = remask == "p2"
        if (order, pace, remask, planner if means_planner else "self") in LEGAL:
            continue
        asked = choices((order, pace, remask, planner))
        with pytest.raises(ValueError, match=r"goes with (pace|order) .*, got (pace|order)="):
            table.generate(text, **asked)
        with pytest.raises(ValueError, match=r"goes with (pace|order) .*, got (pace|order)="):
            MaskGitGenerationConfig(**asked)
        refused += 1
    assert table.calls == table.critic_calls == []
    assert refused > 500


@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
def test_every_legal_combination_is_taken(combination):
    options = MaskGitGenerationConfig(**choices(combination))
    options.resolve_choices()
    assert (options.order, options.pace, options.remask) == combination[:3]


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ({}, ("top_probability", "schedule", "never")),
        ({"pace": "ancestral"}, ("random", "ancestral", "never")),
        ({"pace": "first_hitting"}, ("random", "first_hitting", "never")),
        ({"pace": "threshold"}, ("top_probability", "threshold", "never")),
        ({"pace": "entropy_bound"}, ("entropy", "entropy_bound", "never")),
        ({"remask": "confidence"}, ("top_probability", "schedule", "confidence")),
        ({"can_mask_prev_unmasked": True}, ("top_probability", "schedule", "confidence")),
        ({"remask": "critic"}, ("critic", "schedule", "critic")),
        ({"order": "critic", "can_mask_prev_unmasked": True}, ("critic", "schedule", "critic")),
        ({"remask": "p2"}, ("top_probability", "schedule", "p2")),
        ({"remask": "p2", "p2_planner": "critic"}, ("critic", "schedule", "p2")),
        *[({"remask": name}, ("random", "ancestral", name)) for name in REMDM],
    ],
)
def test_unset_choices_follow_from_those_that_are_set(given, completed):
    options = MaskGitGenerationConfig(**given)
    options.resolve_choices()
    assert (options.order, options.pace, options.remask) == completed


@pytest.mark.parametrize("options", [{"order": "critic"}, {"remask": "critic"}])
def test_a_model_without_a_critic_is_told_so(options):
    table = TableModel(tiny_config())
    with pytest.raises(ValueError, match="The model has no token critic, which this order or re"):
        table.generate(torch.tensor([[MASK]]), **options)
    assert table.calls == []


# --- laws ----------------------------------------------------------------------------------------


@st.composite
def options_for(draw, combination, rows):
    """Options under which this combination decodes these rows."""
    order, pace, remask, _ = combination
    is_random = order == "random"
    do_sample = is_random or draw(st.booleans())
    n = draw(st.integers(0, 4))
    options = {
        **choices(combination),
        "max_new_tokens": n,
        "do_sample": do_sample,
        "steps": draw(st.integers(1, 8)),
        "schedule": draw(st.sampled_from(["linear", "cosine"])),
        "temperature": draw(st.sampled_from([0.5, 1.0])),
        "anneal_temperature": draw(st.booleans()),
        "noise_level_scale": draw(st.sampled_from([0.0, 1.0, 5.0])),
        "top_k": draw(st.sampled_from([None, 3])),
        "repetition_penalty": draw(st.sampled_from([None, 1.5])),
        "guidance_scale": draw(st.sampled_from([None, None, 2.0])),
        "num_return_sequences": draw(st.integers(1, 2)) if do_sample else 1,
        "entropy_budget": draw(st.sampled_from([0.0, 0.5, 3.0])),
        "draft_length": draw(st.sampled_from([1, 2, 16])),
        "remdm_eta": draw(st.sampled_from([0.0, 0.3, 1.0])),
        "remdm_alpha_on": draw(st.sampled_from([0.5, 0.9])),
        "p2_eta": draw(st.sampled_from([0.3, 1.0, 3.0])),
    }
    rule = draw(st.sampled_from(["confidence_threshold", "threshold_factor"]))
    options[rule] = draw(st.sampled_from([0.1, 0.5, 0.9]))
    if order in SCORED and pace == "schedule" and do_sample:
        options["choice_temperature"] = draw(st.sampled_from([0.0, 2.0]))
    if remask != "remdm_loop":
        options["block_length"] = length = draw(st.sampled_from([None, 1, 2, 3]))
        if length is not None:
            most = max(row.count(MASK) for row in rows) + n
            options["steps"] = max(options["steps"], math.ceil(most / length))
    return options


def planned(num_masked, options):
    """Masks left after each step of pace "schedule", block by block, as arithmetic on integers."""
    size = options["block_length"] or max(num_masked, 1)
    sizes = [min(size, num_masked - start) for start in range(0, num_masked, size)]
    share = [max(options["steps"] * size // num_masked, 1) for size in sizes]
    for i in range(options["steps"] - sum(share) if sizes else 0):
        share[i] += 1
    plan, behind = [], num_masked
    for i, left in enumerate(sizes):
        behind -= left
        steps = share[i]
        for step in range(1, steps + 1):
            if options["schedule"] == "linear":
                target = sizes[i] * (steps - step) // steps
            else:
                target = math.floor(sizes[i] * math.cos(math.pi / 2 * step / steps) + 1e-9)
            left = max(min(target, left - (options["remask"] == "never")), 0)
            plan.append(behind + left)
            if left == 0:
                break
    return plan


class Row:
    """One returned row: what was asked, what came out, and where."""

    def __init__(self, row, padding, k, out, num_new):
        left, right = padding
        self.out = out.sequences[k].tolist()
        self.start = [*row, *[MASK] * num_new]
        self.columns = range(left, len(self.out) - right)
        self.text = [self.out[i] for i in self.columns]
        self.around = [*self.out[:left], *self.out[len(self.out) - right :]]
        self.history = [[after[i] for i in self.columns] for after in out.history[:, k].tolist()]
        self.reveal_steps = [int(out.reveal_steps[k, i]) for i in self.columns]
        self.log_probabilities = [float(out.reveal_log_probabilities[k, i]) for i in self.columns]
        self.masked = [i for i, token in enumerate(self.start) if token == MASK]
        self.passes = int(out.denoiser_passes[k])
        # A closing special stands behind the new masks while decoding, so it is behind no mask.
        known = [i for i, token in enumerate(self.start) if token != MASK]
        if num_new and row[-1] == SEP:
            known.remove(len(row) - 1)
        self.tail = [i for i in self.masked if i > max(known, default=-1)]
        elsewhere = [i for i in range(len(self.out)) if i not in self.columns]
        self.steps_elsewhere = {int(out.reveal_steps[k, i]) for i in elsewhere}

    def masks_after(self, step):
        return sum(self.history[step][i] == MASK for i in self.masked)

    def has_ended_after(self, step):
        """Whether an end of text stands there with no mask before it."""
        text = self.history[step]
        ends = [i for i in self.tail if text[i] == SEP]
        return bool(ends) and MASK not in [text[i] for i in self.masked if i < ends[0]]


def check_tokens(row, filler):
    """Known tokens and padding stay; only words, and one end with padding behind it, come in."""
    assert set(row.around) <= {filler}
    for i, token in enumerate(row.start):
        if token != MASK:
            assert row.text[i] == token
        elif i not in row.tail:
            assert row.text[i] in WORDS
    tail = [row.text[i] for i in row.tail]
    end = tail.index(SEP) if SEP in tail else len(tail)
    assert set(tail[:end]) <= set(WORDS)
    assert set(tail[end + 1 :]) <= {PAD}
    return set(row.tail[end + 1 :])


def check_reports(row, cut_off):
    """The reported passes are those of the history, and so are the log-probabilities' places."""
    assert row.steps_elsewhere <= {-1}
    for i, token in enumerate(row.start):
        step = row.reveal_steps[i]
        if token != MASK or i in cut_off:
            assert step == -1
            assert row.log_probabilities[i] == 0
            continue
        still_masked = [s for s, after in enumerate(row.history) if after[i] == MASK]
        assert step == max(still_masked, default=-1) + 1
        assert all(after[i] == row.text[i] for after in row.history[step:])
        assert row.log_probabilities[i] < 0


def check_pace(row, options):
    left = [len(row.masked), *(row.masks_after(step) for step in range(len(row.history)))]
    changes = [before - after for before, after in itertools.pairwise(left)]
    if options["pace"] in ("schedule", "ancestral"):
        assert row.passes <= options["steps"]
    if not row.masked:
        assert row.passes == 0
    elif left[-1]:
        assert row.has_ended_after(-1)
        assert options["remask"] not in REMDM
    if options["pace"] == "schedule":
        plan = planned(len(row.masked), options)
        assert left[1 : row.passes + 1] == plan[: row.passes]
        assert row.passes == len(plan) or row.has_ended_after(row.passes - 1)
    elif options["pace"] != "ancestral":
        assert min(changes[: steps_of(row, options)], default=1) >= 1
    if options["pace"] == "first_hitting":
        assert max(changes, default=1) <= 1
    if options["pace"] == "ancestral" and options["remask"] == "never":
        assert min(changes, default=0) >= 0
    if options["pace"] != "ancestral":  # a row without a coin that fell needs no pass
        done = steps_of(row, options)
        assert not any(changes[done:])
        assert all(after == row.history[-1] for after in row.history[done:])


def steps_of(row, options):
    """Steps in which a row took part: its passes, or of rounds as many as have these passes."""
    if options["pace"] != "speculative":
        return row.passes
    steps, passes, size = 0, 0, options["block_length"] or len(row.masked)
    while passes < row.passes:
        text = row.history[steps - 1] if steps else row.start
        left = [i for i, place in enumerate(row.masked) if text[place] == MASK]
        here = [i for i in left if i // size == left[0] // size]
        passes += 1 + (len(here) > 1)  # a draft of the last mask of a block is not verified
        steps += 1
    assert passes == row.passes
    return steps


def check_blocks(row, length):
    """No token of a block comes in before the blocks left of it were complete."""
    if length is None:
        return
    blocks = [row.masked[i : i + length] for i in range(0, len(row.masked), length)]
    texts = [row.start, *row.history]
    for before, after in itertools.pairwise(texts):
        for earlier, block in itertools.pairwise(blocks):
            if any(after[i] != MASK for i in block):
                assert MASK not in [before[i] for i in earlier]


def check_calls(table, out, options):
    """A finished row takes part in no further pass, and the reports count what was asked."""
    guided = 1 + (options["guidance_scale"] is not None)
    rows = sum(len(call.input_ids) for call in table.calls)
    spared = guided * int(out.denoiser_rows.sum()) - rows
    assert 0 <= spared <= guided * (len(out.denoiser_rows) - 1)
    for call in table.calls[:guided]:  # in its first pass, a denoiser reads equal rows once
        texts = torch.stack([call.input_ids, call.attention_mask, call.token_type_ids], 1)
        assert len(texts.unique(dim=0)) == len(texts)
    if options["pace"] != "speculative":
        assert torch.equal(out.denoiser_rows, out.denoiser_passes)
    assert len(table.calls) % guided == 0
    assert sum(len(c.input_ids) for c in table.critic_calls) == int(out.critic_passes.sum())
    uses_critic = "critic" in (options["order"], options["remask"])
    expected = out.denoiser_passes if uses_critic else torch.zeros_like(out.denoiser_passes)
    assert torch.equal(out.critic_passes, expected)
    most = {"ancestral": None, "speculative": 2}.get(options["pace"], 1)
    if most is not None:
        calls, steps = len(table.calls) // guided, len(out.history)
        assert steps <= calls <= most * steps


def check_all_laws(table, combination, data):
    rows, paddings = data.draw(padded_batches())
    options = data.draw(options_for(combination, rows))
    seed = st.integers(-(2**63), 2**63 - 1)
    seeds = data.draw(st.lists(seed, min_size=len(rows), max_size=len(rows)))
    filler = data.draw(st.integers(0, 39))  # what stands at padding is nobody's business
    types = [data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in map(len, rows)]
    input_ids, attention_mask = collate(rows, paddings, filler)
    n, repeats = options["max_new_tokens"], options["num_return_sequences"]

    def run(input_ids, attention_mask, types, seeds):
        table.calls.clear()
        table.critic_calls.clear()
        out = table.generate(
            input_ids,
            attention_mask,
            token_type_ids=types,
            seed=seeds,
            return_dict_in_generate=True,
            output_history=True,
            **options,
        )
        check_calls(table, out, options)
        return out

    generator_before = torch.get_rng_state()
    together = run(input_ids, attention_mask, collate(types, paddings)[0], seeds)
    assert together.sequences.shape == (len(rows) * repeats, input_ids.shape[1] + n)
    assert together.history.shape[1:] == together.sequences.shape
    for k in range(len(rows) * repeats):
        row = Row(rows[k // repeats], paddings[k // repeats], k, together, n)
        cut_off = check_tokens(row, filler)
        check_reports(row, cut_off)
        check_pace(row, options)
        check_blocks(row, options.get("block_length"))
    for i, (left, right) in enumerate(paddings):
        alone = run(
            torch.tensor([rows[i]]),
            torch.ones(1, len(rows[i])),
            torch.tensor([types[i]]),
            None if not options["do_sample"] else [seeds[i]],
        )
        here = slice(i * repeats, (i + 1) * repeats)
        width = slice(left, together.sequences.shape[1] - right)
        for name in ("sequences", "reveal_steps", "reveal_log_probabilities"):
            assert torch.equal(together[name][here, width], alone[name]), name
        for name in ("denoiser_passes", "denoiser_rows", "critic_passes"):
            assert torch.equal(together[name][here], alone[name]), name
        passes = len(alone.history)
        assert torch.equal(together.history[:passes, here, width], alone.history)
    assert torch.equal(torch.get_rng_state(), generator_before)


@pytest.mark.grid(2)
@pytest.mark.parametrize("block_length", [None, 2])
@pytest.mark.parametrize("combination", [c for c in LEGAL if c[0] == "critic"], ids="-".join)
def test_the_critic_sees_the_text_with_a_token_at_every_mask(table, combination, block_length):
    """And what is revealed then is what it saw."""
    options = choices(combination)
    texts = []
    table.generate(
        torch.tensor([[CLS, MASK, 5, *[MASK] * 5, SEP]]),
        steps=6,
        seed=0,
        block_length=block_length,
        callback_on_step_end=lambda step, state: texts.append(state.text),
        **options,
    )
    assert len(table.critic_calls) == len(table.calls) == len(texts)
    for call, judged, after in zip(table.calls, table.critic_calls, texts, strict=True):
        masked = call.input_ids == MASK
        assert torch.equal(judged.input_ids[~masked], call.input_ids[~masked])
        assert MASK not in judged.input_ids
        newly = masked & (after != MASK)
        assert bool(newly.any())
        assert torch.equal(after[newly], judged.input_ids[newly])


@pytest.mark.grid(4)
@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
@settings(max_examples=6)
@given(data=st.data())
def test_the_laws_of_every_combination(table, combination, data):
    """What is emitted, at which pace, in which blocks, what is reported, and each row alone."""
    check_all_laws(table, combination, data)


@pytest.mark.slow
@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
@settings(max_examples=150)
@given(data=st.data())
def test_the_laws_of_every_combination_very_many_times(table, combination, data):
    check_all_laws(table, combination, data)
