"""Costs of parts against the exact likelihood, whatever they are measured beside."""

import pytest
import torch

from hf_maskgit.evaluation import exact_likelihood
from hf_maskgit.evaluation.part_costs import part_costs
from tests.support.oracles import TableDenoiser, bound, negative_log_likelihood
from tests.support.table_texts import TEXT, ids
from tests.support.tiny import tiny_model

# w-words of the tiny vocabulary between [CLS] = 2 and [SEP] = 3
ROWS = [[2, 7, 8, 9, 30, 11, 3], [2, 9, 12, 3], [2, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 3]]
JUDGED = [(3, 4, 5), (1,), tuple(range(2, 11))]
KEYS = [(0, i) for i in range(3)]


def example(row, places):
    return {"input_ids": row, "maskable": [int(i in places) for i in range(len(row))]}


EXAMPLES = [example(row, places) for row, places in zip(ROWS, JUDGED, strict=True)]


@pytest.mark.parametrize("places", [(1, 3), (0, 1, 2, 3), (2,)])
def test_costs_are_means_over_all_orders_of_the_part(places):
    denoiser = TableDenoiser.inconsistent()
    one = example(ids(TEXT)[0].tolist(), places)
    (found,) = part_costs(denoiser, [one], [(0,)], batch_size=5)
    assert found == (pytest.approx(bound(denoiser, TEXT, places), rel=1e-12), 0.0)
    if len(places) == 4:  # the oracle of the likelihood is of whole texts
        (found,) = part_costs(denoiser, [one], [(0,)], exact=True)
        expected = negative_log_likelihood(denoiser, TEXT)
        assert found == (pytest.approx(expected, rel=1e-12), 0.0)


@pytest.mark.grid(2)
@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
@pytest.mark.parametrize("exact", [False, True])
def test_parts_of_a_network_cost_what_the_likelihood_says(kind, exact):
    model = tiny_model(kind)
    rows = [[model.config.prefix_ids[0], *row[1:-1], *model.config.suffix_ids] for row in ROWS]
    examples = [example(row, places) for row, places in zip(rows, JUDGED, strict=True)][:2]
    found = part_costs(model, examples, KEYS[:2], exact=exact)
    for one, (nats, std_error) in zip(examples, found, strict=True):
        maskable = torch.tensor([one["maskable"]]).bool()
        expected = exact_likelihood(model, torch.tensor([one["input_ids"]]), maskable=maskable)
        wanted = expected.nats if exact else expected.bound_nats
        assert nats == pytest.approx(float(wanted), abs=1e-4)
        assert std_error == 0.0


def test_a_long_part_is_estimated_about_its_bound():
    """5 standard errors: false alarm 6e-7."""
    model, long = tiny_model(), EXAMPLES[2]
    (estimate,) = part_costs(model, [long], [(0,)], num_samples=400)
    (true,) = part_costs(model, [long], [(0,)], num_samples=512)
    assert true.std_error == 0.0
    assert 0 < estimate.std_error < 2
    assert abs(estimate.nats - true.nats) < 5 * estimate.std_error


@pytest.mark.wide
def test_batch_size_and_neighbours_change_nothing():
    model = tiny_model().double()
    alone = [part_costs(model, [one], [key])[0] for one, key in zip(EXAMPLES, KEYS, strict=True)]
    for batch_size in (1, 7, 200):
        together = part_costs(model, EXAMPLES[::-1], KEYS[::-1], batch_size=batch_size)[::-1]
        for one, other in zip(alone, together, strict=True):
            assert one == pytest.approx(other, rel=1e-10)


@pytest.mark.wide
def test_under_one_key_parts_of_one_length_meet_the_same_masks():
    """A text beside itself with another token in front: the masks of the part are the same."""
    denoiser = TableDenoiser.context_free([0.2, 0.3, 0.5], [8, 9])
    rows = [[5, 6, 7, 5, 6, 7, 5, 6], [7, 5, 6, 7, 5, 6, 7, 5, 6]]
    examples = [example(row, range(len(row) - 8, len(row))) for row in rows]
    same = part_costs(denoiser, examples, [(1,), (1,)], num_samples=16)
    assert same[0] == same[1]
    other = part_costs(denoiser, examples, [(1,), (2,)], num_samples=16)
    assert other[0] != other[1]


@pytest.mark.parametrize(
    ("row", "places", "options", "told"),
    [
        ([2, 7, 2, 8, 3], (2, 3), {}, "holds the special id 2, which no model writes"),
        (ROWS[2], JUDGED[2], {"exact": True, "most_tokens": 8}, r"9 tokens: .* 2\^9 - 1 passes"),
        (ROWS[1], (), {}, "has no maskable token"),
        (ROWS[1], (1,), {"num_samples": 5}, "`num_samples` must be even"),
        (ROWS[1], (1,), {"batch_size": 0}, "`batch_size` must be an integer of at least 1"),
        (ROWS[1], (1,), {"most_tokens": 0}, "`most_tokens` must be an integer of at least 1"),
    ],
)
def test_what_cannot_be_judged_is_refused(row, places, options, told):
    with pytest.raises(ValueError, match=told):
        part_costs(tiny_model(), [example(row, places)], [(0,)], **options)
