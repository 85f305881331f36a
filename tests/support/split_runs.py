"""A run that is shared among processes in several ways, which may not tell in what it learns."""

import torch

from tests.support.tiny_training import SMALL

RUN = {
    **SMALL,
    "per_device_batch_size": 2,
    "adam_epsilon": 1e-3,  # above rounding
    "ema_decay": 0.9,
    "validation_fraction": 0.2,
    "eval_every": 3,
    "checkpoint_every": 3,
    "keep_checkpoints": 9,
    "load_best_model_at_end": "true",
}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def assert_same_but_for_rounding(one, other):
    """Two states, by name."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-5)
