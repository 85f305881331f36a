"""Laws of one pass, with the noise given by hand: who goes first, and what is drawn there."""

from dataclasses import replace

import pytest
import torch
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from hf_maskgit.core import decoding_noise
from hf_maskgit.core.decoding import Planner, fill_masks, reveal_step
from hf_maskgit.core.decoding_noise import RowNoise, row_uniforms
from hf_maskgit.core.decoding_state import DecodingState, Pass
from hf_maskgit.core.sampler import Sampler
from hf_maskgit.core.sampler_paces import annealing
from hf_maskgit.core.sampler_rules import REMASKS
from hf_maskgit.core.schedules import get_schedule
from tests.support.oracles_sampling import chi_square

MASK = 4  # the last of 5 ids
# Laws of one place over the 5 ids.
UNSURE, SURE = [0.4, 0.3, 0.3, 0.0, 0.0], [0.1, 0.8, 0.1, 0.0, 0.0]


def make_sampler(**options):
    settings = {
        "steps": 2,
        "schedule": get_schedule("linear"),
        "mask_token_id": MASK,
        "suppressed": torch.tensor([MASK]),
        "end_ids": torch.tensor([], dtype=torch.long),
        "anneal_temperature": False,
    }
    return Sampler(**{**settings, **options})


def make_pass(logits_fn, state, counts, uniforms, sampler, step=0):
    """One pass that reveals `counts` (R,) masks of each row; `logits_fn` takes text and places."""
    masked = state.masked.sum(1)
    none = torch.zeros(len(masked), 1, dtype=torch.float64)
    asked = Pass(
        temperature_scale=torch.full(
            masked.shape, annealing(step, sampler.steps), dtype=torch.float64
        ),
        remaining=masked - counts,
        reveal_rate=none,
        remask_rate=none,
        block=torch.zeros_like(masked)[:, None],
        last_revealed=torch.zeros_like(masked),
    )
    return reveal_step(
        lambda rows, text, positions: logits_fn(text, positions),
        torch.arange(len(masked)),
        state,
        asked,
        uniforms,
        sampler,
    )


def one_pass(laws, *, draws=0.0, ranks=0.5, count=1, step=0, can_end=True, **options):
    """Reveal `count` masks of a row of nothing but masks; returns the row.

    Args:
        laws: one list of 5 probabilities per place.
        draws: the uniform, or one per place, that the token is drawn with.
        ranks: the same for the order.
        count, step, can_end: as in `reveal_step`.
        **options: fields of `Sampler`.
    """
    logits = torch.tensor(laws, dtype=torch.float64).log()
    length = len(laws)
    text = torch.full((1, length), MASK)
    uniforms = [torch.as_tensor(u).double().expand(length) for u in (draws, ranks)]
    state = make_pass(
        lambda text, positions: logits[positions[0]],
        DecodingState.start(text, text == MASK, torch.full((1, length), can_end)),
        torch.tensor([count]),
        torch.stack(uniforms, -1)[None],
        make_sampler(**options),
        step,
    )
    assert torch.equal(state.masked, state.text == MASK)
    assert bool((text == MASK).all()), "the state before the pass was changed"
    return state.text[0].tolist()


# --- who goes first ------------------------------------------------------------------------------


def test_top_probability_goes_by_the_likeliest_token():
    assert one_pass([UNSURE, SURE, UNSURE], draws=0.95) == [MASK, 2, MASK]


def test_confidence_goes_by_the_drawn_token():
    """The sure place draws an unlikely token, so an unsure one goes first."""
    row = one_pass([UNSURE, SURE], draws=[0.1, 0.05], order="confidence")
    assert row == [0, MASK]


def test_of_equal_scores_the_leftmost_goes_first():
    row = one_pass([UNSURE, SURE, SURE, SURE], count=2, draws=0.5)
    assert row == [MASK, 1, 1, MASK]


def test_random_order_goes_by_the_noise_alone():
    row = one_pass([SURE, UNSURE, UNSURE], ranks=[0.2, 0.9, 0.6], count=2, order="random")
    assert row == [MASK, 0, 0]


@pytest.mark.parametrize("order", ["top_probability", "confidence"])
def test_scores_come_after_suppression(order):
    """Of a place that believes in the mask, only what it believes besides it counts."""
    believes_in_the_mask = [0.06, 0.07, 0.07, 0.0, 0.8]
    row = one_pass([believes_in_the_mask, UNSURE], do_sample=False, order=order)
    assert row == [MASK, 0]


@pytest.mark.parametrize("order", ["top_probability", "confidence"])
def test_scores_come_after_the_end_is_excluded_inside_a_text(order):
    laws, options = [[0.1, 0.1, 0.1, 0.7, 0.0], UNSURE], {"end_ids": torch.tensor([3])}
    assert one_pass(laws, do_sample=False, order=order, **options) == [3, MASK]
    inside = one_pass(laws, do_sample=False, order=order, can_end=False, **options)
    assert inside == [MASK, 0]


# Sharpened, the second is the surer: 0.45^10 dwarfs 0.275^10, while 0.5^10 is close to 0.49^10.
TWO_LIKELY, ONE_LIKELY = [0.5, 0.49, 0.01, 0.0, 0.0], [0.45, 0.275, 0.275, 0.0, 0.0]


@pytest.mark.parametrize("order", ["top_probability", "confidence"])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.1},
        {"do_sample": False},
        {"anneal_temperature": True, "step": 1},
        {"warpers": LogitsProcessorList([TopKLogitsWarper(1)])},
        {"warpers": LogitsProcessorList([TopPLogitsWarper(0.1)])},
        {"processors": LogitsProcessorList([lambda ids, scores: scores * 10])},
    ],
    ids=["cold", "greedy", "annealed", "top_k", "top_p", "processor"],
)
def test_scores_come_before_temperature_filters_and_processors(order, options):
    row = one_pass([ONE_LIKELY, TWO_LIKELY], draws=0.01, order=order, **options)
    assert row == [MASK, 0]


@pytest.mark.parametrize("order", ["top_probability", "confidence", "random"])
def test_a_processor_may_edit_in_place(order):
    """Many do; the scores of the positions must not feel it."""

    def prefer_in_place(input_ids, scores):
        scores[:, 2] += 3
        scores[:, 0] -= 3
        return scores

    def prefer(input_ids, scores):
        return prefer_in_place(input_ids, scores.clone())

    laws = [TWO_LIKELY, ONE_LIKELY, UNSURE]
    for draws in (0.001, 0.2, 0.6, 0.95):
        rows = [
            one_pass(laws, draws=draws, order=order, processors=LogitsProcessorList([f]))
            for f in (prefer, prefer_in_place)
        ]
        assert rows[0] == rows[1]


@pytest.mark.parametrize("order", ["top_probability", "confidence"])
def test_choice_noise_reorders_and_is_gone_in_the_last_pass(order):
    laws, ranks = [UNSURE, SURE], [0.999, 0.01]
    noisy = {"choice_temperature": 5.0, "ranks": ranks, "order": order, "draws": 0.2}
    assert one_pass(laws, **noisy, step=0) == [0, MASK]
    assert one_pass(laws, **noisy, step=1) == [MASK, 1]


def test_choice_noise_makes_the_odds_of_going_first_a_softmax_of_the_scores():
    """Gumbel noise of scale 1 on log p: first with probability p / sum p. False alarm 1e-6.

    One of two steps is still to come, so a choice temperature of 2 is a scale of 1.
    """
    rows, laws = 20_000, torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    text = torch.full((rows, 3), 2)
    masked = text == 2
    state = make_pass(
        lambda text, positions: torch.nn.functional.pad(laws.log(), (0, 1)).repeat(rows, 1),
        DecodingState.start(text, masked, masked),
        torch.ones(rows, dtype=torch.long),
        torch.rand(rows, 3, 2, dtype=torch.float64),
        make_sampler(choice_temperature=2.0, suppressed=torch.tensor([2])),
        step=0,
    )
    first = torch.bincount((~state.masked).long().argmax(1), minlength=3).numpy()
    assert chi_square(first, [0.6, 0.9, 0.5]) > 1e-6
    assert chi_square(first, [1.0, 1.0, 1.0]) < 1e-12, "the test has no power"


# --- what is drawn -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["top_probability", "confidence", "random"])
@pytest.mark.parametrize("draws", [0.0, 1 - 2**-53])
def test_no_noise_emits_what_is_suppressed(order, draws):
    """Ids 0 and 4 are forbidden, at both ends of the distribution."""
    laws = [[0.9, 0.02, 0.03, 0.0, 0.05]] * 3
    row = one_pass(laws, draws=draws, order=order, count=3, suppressed=torch.tensor([0, MASK]))
    assert row == [1 if draws == 0 else 2] * 3


def test_each_place_is_drawn_with_its_own_uniform():
    row = one_pass([UNSURE] * 4, draws=[0.1, 0.5, 0.8, 0.39], count=4)
    assert row == [0, 1, 2, 0]


@pytest.mark.parametrize("order", ["top_probability", "confidence", "random"])
def test_greedy_takes_the_likeliest_whatever_the_noise(order):
    laws = [UNSURE, SURE]
    for draws in (0.0, 0.5, 0.99):
        assert one_pass(laws, draws=draws, count=2, do_sample=False, order=order) == [0, 1]


def test_temperatures_are_annealed_to_zero_over_the_steps_or_the_masks():
    text = torch.full((2, 4), MASK)
    start = DecodingState.start(text, text == MASK, text == MASK)
    # The first row still holds its 4 masks, the second one of them.
    left = replace(start, masked=torch.tensor([[True] * 4, [False] * 3 + [True]]))

    def scales(sampler, step):
        plan = Planner(start, sampler).plan(left, torch.arange(2), step)
        return plan.temperature_scale.tolist()

    by_steps = make_sampler(steps=4)
    assert [scales(by_steps, step) for step in range(4)] == [
        [scale] * 2 for scale in (0.75, 0.5, 0.25, 0.0)
    ]
    by_masks = make_sampler(steps=4, pace="first_hitting", order="random")
    assert scales(by_masks, 3) == [0.75, 0.0]


@pytest.mark.parametrize(
    ("makes_up", "revealed"), [(True, (0.25 + 0.2 * 0.25) / 0.75), (False, 1 / 3)]
)
def test_a_remasking_that_makes_up_reveals_as_many_more_as_go_back(monkeypatch, makes_up, revealed):
    """From three quarters masked to one half; a fifth of the revealed quarter goes back."""
    row = replace(REMASKS["remdm_cap"], makes_up=makes_up)
    monkeypatch.setitem(REMASKS, "remdm_cap", row)
    text = torch.full((1, 4), MASK)
    state = DecodingState.start(text, text == MASK, text == MASK)
    options = {"order": "random", "pace": "ancestral", "remask": "remdm_cap", "remdm_eta": 0.2}
    plan = Planner(state, make_sampler(steps=4, **options)).plan(state, torch.tensor([0]), 1)
    assert float(plan.remask_rate) == pytest.approx(0.2)
    assert float(plan.reveal_rate) == pytest.approx(revealed)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_each_annealed_pass_draws_at_its_own_temperature(step):
    """20,000 draws at temperature T follow p^(1/T); false alarm 1e-6 for a fresh seed."""
    law = torch.tensor([0.5, 0.3, 0.2, 0.0, 0.0], dtype=torch.float64)
    text = torch.full((20_000, 1), MASK)
    state = make_pass(
        lambda text, positions: law.log().repeat(len(text), 1),
        DecodingState.start(text, text == MASK, text == MASK),
        torch.ones(len(text), dtype=torch.long),
        torch.rand(len(text), 1, 2, dtype=torch.float64),
        make_sampler(steps=4, temperature=2.0, anneal_temperature=True),
        step,
    )
    counts = torch.bincount(state.text[:, 0], minlength=5)[:3].numpy()
    temperatures = [1.5, 1.0, 0.5]
    for other, temperature in enumerate(temperatures):
        odds = chi_square(counts, law[:3].numpy() ** (1 / temperature))
        assert odds > 1e-6 if other == step else odds < 1e-12


def test_processors_see_the_text_of_each_position():
    seen = []

    def look(input_ids, scores):
        seen.append((input_ids.tolist(), tuple(scores.shape)))
        return scores

    text = torch.tensor([[0, MASK, 1], [MASK, MASK, 2], [1, 1, 1]])
    masked = text == MASK
    for order in ("top_probability", "confidence", "random"):
        make_pass(
            lambda text, positions: torch.zeros(int(positions.sum()), 5),
            DecodingState.start(text, masked, masked),
            torch.tensor([1, 1, 0]),
            torch.rand(3, 3, 2, dtype=torch.float64),
            make_sampler(order=order, processors=LogitsProcessorList([look])),
            step=0,
        )
    first, second = text.tolist()[:2]
    # Where every place draws, it is asked for every mask; otherwise for the chosen ones.
    assert seen == [
        ([first, second], (2, 5)),
        ([first, second, second], (3, 5)),
        ([first, second], (2, 5)),
    ]


def test_processors_come_before_the_temperature_and_warpers_after():
    seen = {}

    def remember(name):
        def look(input_ids, scores):
            seen[name] = scores.clone()
            return scores + (1 if name == "processor" else 0)

        return look

    one_pass(
        [UNSURE],
        temperature=0.5,
        processors=LogitsProcessorList([remember("processor")]),
        warpers=LogitsProcessorList([remember("warper")]),
    )
    law = torch.tensor([UNSURE], dtype=torch.float64).log()
    assert torch.allclose(seen["processor"], law)
    assert torch.allclose(seen["warper"], (law + 1) / 0.5)


@pytest.mark.parametrize("order", ["top_probability", "confidence", "random"])
def test_logits_of_half_precision_are_drawn_in_float32(order):
    law = torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0]]).log().to(torch.bfloat16)
    text = torch.full((1, 1), MASK)
    state = make_pass(
        lambda text, positions: law,
        DecodingState.start(text, text == MASK, text == MASK),
        torch.tensor([1]),
        torch.tensor([[[0.4999, 0.0]]]).double(),  # rounds to one half in bfloat16
        make_sampler(order=order),
        step=0,
    )
    assert state.text.tolist() == [[0]]


def test_a_rate_of_zero_masks_nothing_again_though_a_coin_may_be_zero():
    text = torch.tensor([[0, 1, MASK]])
    state = DecodingState.start(torch.full((1, 3), MASK), text >= 0, text >= 0)
    before = replace(state, text=text, masked=text == MASK)
    after = make_pass(
        lambda text, positions: pytest.fail("nothing is revealed at a rate of zero"),
        before,
        torch.tensor([0]),
        torch.zeros(1, 3, 2).double(),
        make_sampler(order="random", pace="ancestral", remask="remdm_cap"),
    )
    assert after.text.tolist() == text.tolist()


# --- the loop ------------------------------------------------------------------------------------


def test_noise_depends_on_the_row_seed_and_the_pass_alone():
    lengths, seeds = torch.tensor([3, 2, 5]), torch.tensor([7, 8, 9])
    together = row_uniforms(seeds, lengths, torch.tensor([0, 1, 2]), 4, 6)
    assert together.shape == (3, 6, 2)
    assert together.dtype == torch.float64
    for row in range(3):
        alone = row_uniforms(seeds[row : row + 1], lengths[row : row + 1], torch.tensor([0]), 4, 5)
        assert torch.equal(together[row, : lengths[row]], alone[0, : lengths[row]])
    assert not torch.equal(together[0], row_uniforms(seeds, lengths, torch.tensor([0]), 5, 6)[0])
    assert not together[1, 2:].any()
    assert float(together.max()) < 1
    assert float(together.min()) >= 0


@pytest.mark.parametrize("most", [1, 100, 2**20])
def test_noise_drawn_for_some_passes_at_once_is_that_of_each(most, monkeypatch):
    """Whichever rows are still there, and however few numbers may be drawn at once."""
    monkeypatch.setattr(decoding_noise, "_MOST_NUMBERS", most)
    lengths, seeds = torch.tensor([3, 2, 5]), torch.tensor([7, 8, 9])
    noise = RowNoise(seeds, lengths, 5, 3)
    for step in range(20):
        rows = torch.tensor([[0, 1, 2], [0, 2], [1]][step % 3])
        assert torch.equal(noise.of(rows, step), row_uniforms(seeds, lengths, rows, step, 5, 3))


def test_rows_are_told_to_the_denoiser_by_their_number():
    asked = []

    def logits_fn(rows, text, positions):
        asked.append(rows.tolist())
        return torch.zeros(int(positions.sum()), 5)

    text = torch.tensor([[MASK, 0, 0], [0, 0, 0], [MASK, MASK, 0]])
    masked = text == MASK
    filled, passes, *_ = fill_masks(
        logits_fn,
        DecodingState.start(text, masked, masked),
        torch.tensor([3, 3, 3]),
        make_sampler(steps=3),
        [1, 2, 3],
    )
    assert asked == [[0, 2], [2]]
    assert passes.tolist() == [1, 0, 2]
    assert MASK not in filled
    assert torch.equal(filled[~masked], text[~masked])
