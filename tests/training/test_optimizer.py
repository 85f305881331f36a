"""The optimizer: what decays, and how the learning rate goes."""

import pytest
from transformers import Trainer

from hf_maskgit.training.optimizer import parameter_groups
from tests.support.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


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
