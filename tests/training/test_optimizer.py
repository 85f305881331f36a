"""The optimizer: what decays, and how the learning rate goes."""

import pytest
from transformers import Trainer

from hf_maskgit.training.optimizer import parameter_groups, warmup_updates
from tests.support.tiny import tiny_model
from tests.support.tiny_training import log_of, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def test_warm_up_is_a_number_or_a_share_of_updates():
    assert warmup_updates(0, 100) == 0
    assert warmup_updates(0.05, 100) == 5
    assert warmup_updates(0.05, 101) == 6
    assert warmup_updates(1, 100) == 1
    assert warmup_updates(30.0, 100) == 30


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup"])
def test_the_learning_rate_warms_up_and_decays(tmp_path, kind):
    loop_of(tmp_path / "run", max_steps=8, warmup_steps=2, lr_scheduler_type=kind).run()
    rates = log_of(tmp_path / "run", "learning_rate")  # after update s: the rate of the next one
    assert rates[1] == pytest.approx(0.5e-2)
    assert rates[2] == pytest.approx(1e-2)
    halfway = {"linear": 0.5e-2, "cosine": 0.5e-2, "constant_with_warmup": 1e-2}
    assert rates[5] == pytest.approx(halfway[kind])
    assert rates[8] == pytest.approx(1e-2 if kind == "constant_with_warmup" else 0, abs=1e-9)


def test_the_parameters_that_decay_are_those_of_transformers_trainer():
    model = tiny_model()
    decaying, others = parameter_groups(model, 0.1)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    expected = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    assert {names[id(p)] for p in decaying["params"]} == set(expected) & set(names.values())
    assert len(decaying["params"]) + len(others["params"]) == len(names)
    model.denoiser.bert.embeddings.requires_grad_(False)
    assert sum(len(g["params"]) for g in parameter_groups(model, 0.1)) < len(names)
