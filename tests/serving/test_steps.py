"""Which steps of the sampler are made together, and what joins them."""

from dataclasses import replace

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper

from hf_maskgit.core.position_logits import LateLogits, joined
from hf_maskgit.core.sampler import Sampler
from hf_maskgit.core.schedules import get_schedule
from hf_maskgit.serving.steps import kind_of


def sampler(**changes) -> Sampler:
    own = {"schedule": get_schedule("cosine"), "mask_token_id": 3}
    ids = {"suppressed": torch.tensor([0, 3]), "end_ids": torch.tensor([2])}
    return Sampler(**{**own, **ids, **changes})


class Mine(LogitsProcessor):
    """A user's own, of which nobody knows what it remembers."""


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 3},
        {"order": "random"},
        {"temperature": 0.5},
        {"schedule": get_schedule("linear")},
        {"suppressed": torch.tensor([0])},
        {"warpers": LogitsProcessorList([TopKLogitsWarper(4)])},
        {"processors": LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.5)])},
        {"records_probabilities": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_samplers_are_of_one_kind_if_all_is_equal(changes):
    made = [sampler(**changes), sampler(**changes), sampler()]
    kinds = [kind_of(one) for one in made]
    assert kinds[0] == kinds[1] != kinds[2]
    assert hash(kinds[0]) == hash(kinds[1])


def test_filters_of_other_numbers_and_processors_of_a_users_own_are_told_apart():
    two = [sampler(warpers=LogitsProcessorList([TopKLogitsWarper(k)])) for k in (4, 5)]
    assert kind_of(two[0]) != kind_of(two[1])
    own = sampler(processors=LogitsProcessorList([Mine()]))
    assert kind_of(own) is None
    assert kind_of(replace(own, processors=LogitsProcessorList())) == kind_of(sampler())


def test_logits_of_one_head_are_joined_to_one_product():
    table = torch.randn(6, 5)
    products = []

    def head(states):
        products.append(len(states))
        return states @ table

    states = torch.randn(7, 6)
    here = torch.tensor([1, 0, 0, 1, 1, 0, 1]).bool()
    whole = joined([(w, LateLogits(head, states[w], rows=4)) for w in (here, ~here)])
    torch.testing.assert_close(whole[:], states @ table)
    assert products == [7]
    torch.testing.assert_close(whole.only(here)[1:3], (states @ table)[here][1:3])
