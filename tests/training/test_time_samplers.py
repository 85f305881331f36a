"""Times drawn where the loss varies: the same bound, from fewer updates."""

import json

import numpy as np
import pytest
import torch

from hf_maskgit import DataCollatorForMaskGit
from hf_maskgit.core.masking import exact_count_weights
from hf_maskgit.training import time_samplers
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.checkpoints import check_progress, find_checkpoint
from hf_maskgit.training.time_samplers import (
    TIME_SAMPLERS,
    are_moments,
    density_of,
    remember,
    schedule_of,
    spread_by_masked_share,
)
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import assert_same_weights, examples, log_of, loop_of

BINS = 16
UNEVEN = torch.linspace(0.2, 1.8, BINS, dtype=torch.float64)


def moments_of(deviations, mean=3.0, count=100.0):
    """What is remembered where the losses of each bin have this mean and these deviations."""
    deviations = torch.as_tensor(deviations, dtype=torch.float64)
    ones = torch.full((BINS,), count, dtype=torch.float64)
    return torch.stack([ones, ones, ones * mean, ones * (deviations**2 + mean**2)]).tolist()


@pytest.mark.parametrize("num_tokens", [1, 4, 7, 40])
def test_every_number_of_masked_tokens_weighs_the_inverse_of_how_often_it_comes_up(num_tokens):
    # by the area under the density itself, on a grid that both stretches divide
    fine = torch.repeat_interleave(UNEVEN, 5 * num_tokens) / (BINS * 5 * num_tokens)
    probability = fine.view(num_tokens, -1).sum(1)
    counts = torch.arange(1, num_tokens + 1)
    weights = exact_count_weights(counts, torch.tensor(num_tokens), schedule_of(UNEVEN))
    torch.testing.assert_close(weights * counts * probability, torch.ones_like(weights))


def test_even_times_mask_each_share_as_often_as_the_density_says():
    times = (torch.arange(160_000, dtype=torch.float64) + 0.5) / 160_000
    rates = schedule_of(UNEVEN).mask_rate(times)
    found = np.histogram(rates.numpy(), BINS, (0, 1))[0] / 10_000
    assert found == pytest.approx(UNEVEN.numpy(), abs=2e-4)


def test_a_batch_masked_by_another_schedule_is_the_batch_of_that_schedule():
    features = [{"input_ids": row["input_ids"], "example_id": i} for i, row in enumerate(rows())]
    schedule = schedule_of(UNEVEN)
    plain = DataCollatorForMaskGit(word_tokenizer(), seed=3)
    own = DataCollatorForMaskGit(word_tokenizer(), schedule, seed=3)
    one, other = plain.mask(plain.draw(features), schedule), own(features)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["loss_weights"], plain(features)["loss_weights"])


def rows():
    return list(examples(8))


def test_what_is_measured_is_the_obvious_sum_over_texts():
    torch.manual_seed(0)
    labels = torch.randint(5, 9, (6, 20))
    labels[:3, 13:] = -100
    chosen = (torch.rand(6, 20) < 0.5) & (labels != -100)
    chosen[:, 0] = True
    nll = torch.rand(int(chosen.sum())) * 5
    expected = np.zeros((4, BINS))
    at = 0
    for row in range(6):
        k, n = int(chosen[row].sum()), int((labels[row] != -100).sum())
        loss = float(nll[at : at + k].double().mean())
        at += k
        expected[:, int((k - 0.5) / n * BINS)] += [1, n**2, n**2 * loss, n**2 * loss**2]
    found = spread_by_masked_share({"masked_positions": chosen, "labels": labels}, nll)
    assert found.numpy() == pytest.approx(expected)


def test_a_text_without_a_masked_token_is_not_measured():
    """As choice='bernoulli' makes some: no loss, and no number that is none."""
    labels = torch.full((3, 8), 5)
    chosen = torch.zeros(3, 8, dtype=torch.bool)
    chosen[0, :2] = chosen[2, 3] = True
    both = spread_by_masked_share({"masked_positions": chosen, "labels": labels}, torch.ones(3))
    rows = torch.tensor([0, 2])
    alone = {"masked_positions": chosen[rows], "labels": labels[rows]}
    assert torch.equal(both, spread_by_masked_share(alone, torch.ones(3)))
    assert bool(both.isfinite().all())


def test_what_is_remembered_fades():
    first, second = torch.rand(4, BINS).double(), torch.rand(4, BINS).double()
    found = remember(remember(None, first), second)
    assert np.array(found) == pytest.approx((0.99 * first + second).numpy())
    assert are_moments(found)


def test_the_density_follows_the_deviation_and_varies_least():
    deviations = 3.0 / np.sqrt(np.arange(1, BINS + 1))
    density = density_of(moments_of(deviations))
    expected = 0.2 + 0.8 * deviations / deviations.mean()
    assert density.numpy() == pytest.approx(expected)
    assert float(density.mean()) == pytest.approx(1)
    # variance of an estimate of the mean over bins, of which each is drawn in this proportion
    variance = {
        name: float((deviations**2 / np.asarray(p)).mean())
        for name, p in (("even", np.ones(BINS)), ("found", density))
    }
    assert variance["found"] < 0.9 * variance["even"]
    assert variance["found"] >= deviations.mean() ** 2  # Neyman's own, without a share for all


def test_a_bin_without_texts_lies_between_its_neighbours():
    deviations = np.linspace(4, 1, BINS)
    sparse = np.array(moments_of(deviations))
    sparse[:, [0, 3, 4, 9, 15]] = 0
    straight = np.interp(
        range(BINS),
        np.delete(range(BINS), [0, 3, 4, 9, 15]),
        np.delete(deviations, [0, 3, 4, 9, 15]),
    )
    assert density_of(sparse.tolist()).numpy() == pytest.approx(
        0.2 + 0.8 * straight / straight.mean()
    )


@pytest.mark.parametrize(
    "moments", [None, moments_of(np.ones(BINS) * 2, count=5.0), moments_of(np.zeros(BINS))]
)
def test_times_are_even_before_enough_is_known_and_where_nothing_varies(moments):
    assert density_of(moments).tolist() == pytest.approx([1.0] * BINS)


def test_every_weight_stays_below_five_times_the_plain_one():
    deviations = np.full(BINS, 1e-9)
    deviations[0] = 1.0
    assert float(density_of(moments_of(deviations, mean=0.0)).min()) == pytest.approx(0.2, rel=1e-6)


IMPORTANCE = {"time_sampler": "importance", "checkpoint_every": 3}


@pytest.fixture
def _known_soon(monkeypatch):
    """A run of six updates of eight texts measures 48."""
    monkeypatch.setattr(time_samplers, "_ENOUGH", 8.0)
    monkeypatch.setattr(time_samplers, "_ENOUGH_IN_BIN", 1.0)


@pytest.mark.wide
@pytest.mark.usefixtures("_fresh_accelerate", "_known_soon")
def test_a_run_goes_on_with_what_it_has_measured(tmp_path):
    whole = loop_of(tmp_path / "whole", **IMPORTANCE)
    whole.run()
    again = loop_of(tmp_path / "again", **IMPORTANCE)
    again.resume(find_checkpoint(str(tmp_path / "whole" / "checkpoint-3"), tmp_path / "again"))
    again.run()
    assert_same_weights(again.model.state_dict(), whole.model.state_dict())
    assert again.progress.time_moments == whole.progress.time_moments
    assert density_of(whole.progress.time_moments).std() > 0.01
    plain = loop_of(tmp_path / "plain")
    plain.run()
    logs = [log_of(tmp_path / name) for name in ("plain", "whole")]
    assert logs[0][1] == logs[1][1]  # nothing was known yet
    assert logs[0][6] != logs[1][6]


@pytest.mark.usefixtures("_fresh_accelerate", "_known_soon")
def test_micro_batches_change_nothing_of_it_but_rounding(tmp_path):
    found = []
    for size, accumulation in ((8, 1), (2, 4)):
        loop = loop_of(
            tmp_path / str(size),
            time_sampler="importance",
            max_steps=1,
            per_device_batch_size=size,
            gradient_accumulation_steps=accumulation,
        )
        loop.model.eval()
        loop.model.train = lambda mode=True, model=loop.model: model  # dropout differs by piece
        loop.run()
        found.append(torch.tensor(loop.progress.time_moments))
        assert int(found[-1][0].sum()) == 8
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_fresh_accelerate")
def test_what_cannot_go_together_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not learn with train='critic'"):
        TrainArguments(output_dir="x", time_sampler="importance", train="critic")
    with pytest.raises(ValueError, match="use_simple_mdlm_loss_weight=False weighs all alike"):
        loop_of(tmp_path / "run", {"use_simple_mdlm_loss_weight": False}, time_sampler="importance")


@pytest.mark.usefixtures("_fresh_accelerate")
def test_a_checkpoint_with_other_numbers_is_damaged(tmp_path):
    loop = loop_of(tmp_path / "run", time_sampler="importance", max_steps=1)
    loop.run()
    path = tmp_path / "run" / "checkpoint-1" / "progress.json"
    state = json.loads(path.read_text())
    check_progress(state)
    for wrong in ([1.0], [[1.0] * BINS] * 3, [[-1.0] * BINS] * 4, [[True] * BINS] * 4, {}):
        with pytest.raises(ValueError, match="as 'time_moments'"):
            check_progress({**state, "time_moments": wrong})


def test_the_samplers_are_what_they_say():
    assert TIME_SAMPLERS["uniform"].schedule(moments_of(np.ones(BINS))) is None
    assert TIME_SAMPLERS["uniform"].measure is None
    assert TIME_SAMPLERS["importance"].measure is spread_by_masked_share
