"""Masks that noise rules out are not asked for, and what is written is the same."""

import pytest
import torch

from hf_maskgit.core import chunked_head, sampler_contenders
from hf_maskgit.core.position_logits import LateLogits
from hf_maskgit.core.sampler_orders import ORDERS
from hf_maskgit.core.sampler_scores import Distribution
from tests.support.sampler_runs import run
from tests.support.tiny import tiny_model

BOUNDED = [name for name, order in ORDERS.items() if order.most is not None]


class Texts:
    """A denoiser whose logits depend on place and text, whole or late; counts what is computed."""

    length, mask, critic_fn = 40, 12, None
    side_by_side = 60

    def __init__(self, late, sharpness=4.0):
        random = torch.Generator().manual_seed(3)
        self.late = late
        self.table = sharpness * torch.randn(self.length, 7, self.mask + 1, generator=random)
        self.asked = self.computed = self.most_often = 0

    def logits_fn(self, rows, text, positions):
        row, place = positions.nonzero(as_tuple=True)
        kind = (text * torch.arange(1, self.length + 1)).sum(1) % 7  # of the whole text
        logits = self.table[place, kind[row]]
        self.asked += len(row)

        seen = torch.zeros(len(row), dtype=torch.long)

        def compute(which):
            self.computed += len(which)
            seen[which] += 1
            self.most_often = max(self.most_often, int(seen.max()))
            return logits[which].clone()

        return (
            LateLogits(compute, torch.arange(len(row)), rows=self.side_by_side)
            if self.late
            else logits
        )


def written(texts, **options):
    filled = run(texts, 9, keyed_noise=True, **options)
    return filled.text, filled.reveal_steps, filled.log_probabilities


@pytest.mark.grid(2)
@pytest.mark.parametrize("order", BOUNDED)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"records_probabilities": True},
        {"anneal_temperature": True, "schedule": "cosine"},
        {"block_length": 25, "steps": 12},
        {"choice_temperature": 0.3},
    ],
)
def test_texts_are_those_of_all_logits(order, options):
    noise = {"choice_temperature": ORDERS[order].choice_temperature}
    options = {"order": order, "steps": 8, **noise, **options}
    late = Texts(late=True)
    for found, whole in zip(
        written(late, **options), written(Texts(False), **options), strict=True
    ):
        assert torch.equal(found, whole)


@pytest.mark.parametrize("order", ["top_probability", "confidence", "entropy", "margin"])
def test_where_much_is_ruled_out_less_is_computed(order):
    late = Texts(late=True)
    written(late, order=order, steps=20, choice_temperature=6.0)
    # Of the masks asked for, those that are drawn at are computed at least: one in ten.
    assert 0.1 * late.asked < late.computed < 0.7 * late.asked


@pytest.mark.parametrize("order", BOUNDED)
def test_what_was_tried_is_kept_where_it_fits(order, monkeypatch):
    """It is computed once, and its tokens are those of all logits."""
    monkeypatch.setattr(Texts, "side_by_side", 1000)
    options = {"order": order, "steps": 8, "choice_temperature": 6.0, "records_probabilities": True}
    late = Texts(late=True)
    for found, whole in zip(
        written(late, **options), written(Texts(False), **options), strict=True
    ):
        assert torch.equal(found, whole)
    assert late.most_often == 1
    assert late.computed < 0.9 * late.asked


def test_where_nothing_is_ruled_out_it_is_tried_once(monkeypatch):
    """All scores are near -log 12, so that noise of a hundredth rules out nothing."""
    tried = []
    can_reach = sampler_contenders._can_reach
    monkeypatch.setattr(
        sampler_contenders,
        "_can_reach",
        lambda *given: tried.append(len(tried)) or can_reach(*given),
    )
    late = Texts(late=True, sharpness=0.01)
    written(late, order="top_probability", steps=20, choice_temperature=0.01)
    assert tried == [0]
    assert late.asked <= late.computed <= 1.2 * late.asked


@pytest.mark.parametrize(
    "options",
    [
        {"order": "top_probability", "pace": "threshold"},
        {"order": "confidence", "remask": "p2"},
        {"order": "top_probability", "choice_temperature": 0.0},
        {"order": "top_probability", "choice_temperature": 2.0, "do_sample": False},
    ],
)
def test_where_noise_does_not_decide_all_are_asked(options):
    late = Texts(late=True)
    written(late, steps=8, **options)
    assert late.computed >= late.asked


@pytest.mark.parametrize("order", BOUNDED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_score_is_higher_than_its_row_says(order, dtype, monkeypatch):
    """Logits of any size, also such that one token has all the probability."""
    random = torch.Generator().manual_seed(0)
    sizes = 10.0 ** torch.linspace(-3, 4, 500, dtype=dtype)[:, None]
    logits = torch.randn(500, 13, generator=random, dtype=dtype) * sizes
    logits[::5, 4:] = -torch.inf
    monkeypatch.setattr(Texts, "length", 500)
    seen = []

    class Once(Texts):
        def logits_fn(self, rows, text, positions):
            return logits[positions[0]]

    monkeypatch.setattr(
        "hf_maskgit.core.decoding._weighed",
        lambda scores, turn, positions, rules: seen.append(scores[positions]) or scores,
    )
    run(Once(late=False), 1, order=order, steps=1)
    assert len(seen[0]) == 500
    assert seen[0].dtype == dtype
    assert (seen[0] <= ORDERS[order].most).all()
    assert seen[0].max() > ORDERS[order].most - 1e-3  # nor is there a lower bound to be had
    assert Distribution(logits).highest.isfinite().all()


@pytest.mark.wide
def test_a_model_writes_the_same_with_fewer_runs_of_its_head(monkeypatch):
    """Of `generate` itself, in float64, where scores do not hang on who is asked with them."""
    model = tiny_model().double().eval()
    ids = torch.full((3, 30), model.config.mask_token_id)
    options = {"steps": 15, "seed": 5, "choice_temperature": 30.0, "max_new_tokens": 0}
    whole = model.generate(ids, **options)
    monkeypatch.setattr(chunked_head, "_LEAST_READ", 30)
    monkeypatch.setattr(chunked_head, "_READ_ELEMENTS", {True: 1, False: 1})
    counted = []
    run_head = chunked_head.run_head
    monkeypatch.setattr(
        chunked_head,
        "run_head",
        lambda denoiser, states, **how: (
            counted.append(len(states)) or run_head(denoiser, states, **how)
        ),
    )
    assert torch.equal(model.generate(ids, **options), whole)
    masks = sum(3 * (30 - 2 * step) for step in range(15))
    assert sum(counted) < 0.7 * masks
