"""What `generate` tells beside the texts: the likeliest tokens of each place at its reveal."""

import pytest
import torch

from tests.support.tiny import tiny_model

IDS = torch.tensor([[7, 9, 12, 0, 0], [8, 20, 11, 30, 6]])
OPTIONS = [
    {"steps": 4},
    {"steps": 4, "order": "random"},
    {"preset": "remdm", "steps": 6},
    {"pace": "speculative", "order": "random"},
    {"do_sample": False, "steps": 3},
]


def written(model, count, **options):
    return model.generate(
        IDS,
        (IDS != 0).long(),
        max_new_tokens=6,
        seed=0,
        return_dict_in_generate=True,
        output_history=True,
        output_alternatives=count,
        **options,
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_alternatives_are_the_likeliest_tokens_of_the_pass_and_change_nothing(options):
    model = tiny_model().double()
    found, plain = written(model, 4, **options), written(model, 0, **options)
    assert torch.equal(found.sequences, plain.sequences)
    assert plain.alternatives is plain.alternative_log_probabilities is None
    seen = found.reveal_steps >= 0
    assert bool((found.alternatives[~seen] == -1).all())
    assert bool((found.alternative_log_probabilities[~seen] == -torch.inf).all())
    ids, logs = found.alternatives[seen], found.alternative_log_probabilities[seen]
    assert bool((logs.diff() <= 0).all())
    # the token that came is told the same in both places, or is less likely than all
    here = ids == found.sequences[seen][:, None]
    own = found.reveal_log_probabilities[seen]
    torch.testing.assert_close(logs[here], own[here.any(1)])
    assert bool((own[~here.any(1)] <= logs[~here.any(1), -1]).all())
    if "pace" in options:
        return  # each token has a text of its own there, which no history shows
    for row, column in seen.nonzero().tolist():
        step = int(found.reveal_steps[row, column])
        start = found.history[0].clone()
        start[found.reveal_steps >= 0] = model.config.mask_token_id
        text = found.history[step - 1] if step else start
        asked = torch.zeros_like(text, dtype=torch.bool)
        asked[row, column] = True
        with torch.no_grad():
            (logits,) = model(text, (text != 0).long(), masked_positions=asked).logits
        top, others = found.alternatives[row, column], found.alternative_log_probabilities
        told = others[row, column].double()
        torch.testing.assert_close(told - told[0], logits[top] - logits[top[0]], **CLOSE)
        better = (logits > logits[top[-1]]).nonzero()[:, 0].tolist()
        assert set(better) - set(top.tolist()) <= {0, 1, 2, 3, 4}  # special ones


CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # of float32


def test_more_alternatives_than_tokens_are_none_behind_the_last():
    found = written(tiny_model(), 60, steps=2, suppress_tokens=[7, 8])
    seen = found.reveal_steps >= 0
    ids, logs = found.alternatives[seen], found.alternative_log_probabilities[seen]
    assert torch.equal(ids == -1, logs == -torch.inf)
    assert bool((ids == -1).any(1).all())
    assert not bool(torch.isin(ids, torch.tensor([7, 8])).any())
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(len(logs)))
