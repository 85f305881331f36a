"""The optimizer: what decays, and how fast each layer learns."""

import pytest
from transformers import Trainer

from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.optimizer import make_optimizer, parameter_groups, set_schedule
from tests.support.tiny import bert_config, tiny_model
from tests.support.tiny_training import assert_same_weights, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def options_of(**changes):
    return TrainArguments(output_dir="run", **changes)


def test_the_parameters_that_decay_are_those_of_transformers_trainer():
    model = tiny_model()
    options = options_of(weight_decay=0.1)
    decaying, others = parameter_groups(model, options)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    expected = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    assert {names[id(p)] for p in decaying["params"]} == set(expected) & set(names.values())
    assert len(decaying["params"]) + len(others["params"]) == len(names)
    model.denoiser.bert.embeddings.requires_grad_(False)
    assert sum(len(g["params"]) for g in parameter_groups(model, options)) < len(names)


def rates_of(model, **changes):
    """The learning rate of each weight by its name, as the optimizer has it after the warm-up."""
    options = options_of(learning_rate=1.0, warmup_steps=2, **changes)
    optimizer, scheduler = make_optimizer(model, options, 10)
    set_schedule(scheduler, 2)
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}


@pytest.mark.parametrize("warmup", [4, 3])
def test_a_warm_up_that_the_run_does_not_outlast_is_warned_of(caplog, warmup):
    """The n-th update has n - 1 of `warmup` parts of the rate."""
    optimizer, scheduler = make_optimizer(tiny_model(), options_of(warmup_steps=warmup), 4)
    highest = 0.0
    for _ in range(4):
        highest = max(highest, *(group["lr"] for group in optimizer.param_groups))
        optimizer.step()
        scheduler.step()
    assert (highest < options_of().learning_rate) == (warmup == 4)
    assert ("the rate stays below `learning_rate`" in caplog.text) == (warmup == 4)


def test_each_layer_learns_with_its_share_of_the_rate():
    model = tiny_model(token_critic="separate", critic_config=bert_config(), self_cond=True)
    rates = rates_of(model, layer_decay=0.5)
    assert rates.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, rate in rates.items():
        if ".embeddings." in name or name.startswith("critic.embeddings"):
            expected = 0.5**3  # of two layers
        elif ".layer.0." in name:
            expected = 0.5**2
        elif ".layer.1." in name:
            expected = 0.5
        else:  # heads and self-conditioning
            expected = 1.0
        assert rate == pytest.approx(expected), name
    of_critic = {rate for name, rate in rates.items() if name.startswith("critic.")}
    assert of_critic == {0.5, 0.25, 0.125}
    assert set(rates_of(model).values()) == {1.0}


def test_decay_and_rate_are_sorted_together():
    model = tiny_model()
    groups = parameter_groups(model, options_of(weight_decay=0.1, layer_decay=0.5))
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} <= {group["weight_decay"] == 0.1}
    assert groups[0]["lr"] == max(group["lr"] for group in groups)  # which the log tells
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_the_layers_of_an_encoder_that_shares_them_cannot_be_told():
    model = tiny_model("albert")
    with pytest.raises(ValueError, match=r"layers of AlbertForMaskedLM cannot be told apart: its"):
        parameter_groups(model, options_of(layer_decay=0.9))
    parameter_groups(model, options_of())


@pytest.mark.parametrize("value", [0.0, 1.1, float("nan")])
def test_a_factor_between_layers_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match=r"`layer_decay` must lie in \(0, 1\], got"):
        options_of(layer_decay=value)


@pytest.mark.wide
def test_a_run_goes_on_to_the_bit_whatever_groups_its_weights_are_in(tmp_path):
    options = {"layer_decay": 0.5, "checkpoint_every": 3, "freeze": ["*.layer.0.*"]}
    whole = loop_of(tmp_path / "run", **options)
    whole.run()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    again = loop_of(tmp_path / "again", **options)
    again.resume(checkpoint)
    again.run()
    assert_same_weights(again.model.state_dict(), whole.model.state_dict())
    others = {**options, "layer_decay": 1.0}
    with pytest.raises(ValueError, match=r"layer_decay = 0.5, this run has 1.0"):
        loop_of(tmp_path / "others", **others).resume(checkpoint)
    # fewer groups in another order, and each weight finds its averages by its name
    others = {**others, "allow_changes": ["layer_decay"], "resume_from_checkpoint": "latest"}
    changed, same = loop_of(tmp_path / "changed", **others), loop_of(tmp_path / "same", **options)
    for loop in (changed, same):
        loop.resume(checkpoint)
    for one, other in zip(changed.model.parameters(), same.model.parameters(), strict=True):
        found, expected = changed.optimizer.state.get(one), same.optimizer.state.get(other)
        assert (found is None) == (expected is None) == (not one.requires_grad)
        if found is not None:
            assert_same_weights(found, expected)
