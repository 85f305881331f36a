"""Parts of tensors: joined they are the whole, and a state by its names is one of any run."""

import pytest
import torch
from safetensors.torch import load_file, save_model

from hf_maskgit.training import shards
from hf_maskgit.training.shards import (
    as_part_of,
    fill_state,
    held,
    is_sharded,
    shape_of,
    size_of,
    untied,
    whole,
    whole_state,
)
from tests.support.tiny_training import assert_same_weights, fresh_model


class Group:
    """Three processes in one: the rank that acts, and what each has given to be gathered."""

    def __init__(self, monkeypatch):
        self.rank, self.given = 0, {}
        monkeypatch.setattr(shards.torch.distributed, "get_rank", lambda group: group.rank)
        monkeypatch.setattr(shards.torch.distributed, "get_world_size", lambda group: 3)
        monkeypatch.setattr(shards.torch.distributed, "all_gather_into_tensor", self.gather)

    def gather(self, into, part, group):
        self.given[self.rank] = part
        into.copy_(torch.cat([self.given[rank] for rank in range(3)]))


@pytest.mark.parametrize("shape", [(5, 3), (7,), (1,), (6, 2)])
def test_parts_as_deepspeed_lays_them_out_are_joined_to_the_whole(monkeypatch, shape):
    """Its parts are flat and equally long, with padding at the end of the last."""
    group, values = Group(monkeypatch), torch.randn(shape)
    length = -(-values.numel() // 3)
    weight = torch.nn.Parameter(torch.empty(0))
    weight.ds_shape, weight.ds_process_group = values.shape, group
    for group.rank in range(3):
        weight.ds_tensor = torch.zeros(length)
        part = as_part_of(weight, values)
        assert part.shape == (length,)
        group.given[group.rank] = part
    weight.ds_tensor = group.given[group.rank]
    assert is_sharded(weight)
    assert (shape_of(weight), size_of(weight)) == (values.shape, values.numel())
    assert torch.equal(whole(weight), values)
    doubled = whole(weight, values=2 * held(weight)).flatten()
    last = values.flatten()[2 * length :]
    assert torch.equal(doubled[2 * length :], 2 * last)  # the others gave what they hold
    assert whole(weight, keep=False).numel() == 0


def test_a_tensor_that_is_whole_is_its_own_part():
    tensor = torch.nn.Parameter(torch.randn(3, 4))
    assert held(tensor).data_ptr() == whole(tensor).data_ptr() == tensor.data_ptr()
    assert not is_sharded(tensor)
    assert not whole(tensor).requires_grad


def test_a_state_is_what_the_model_has_with_tied_weights_once(tmp_path):
    model = fresh_model()
    state = whole_state(model)
    assert_same_weights(state, model.state_dict())
    save_model(model, str(tmp_path / "oracle.safetensors"))
    kept = untied(state)
    assert len(kept) == len(load_file(tmp_path / "oracle.safetensors")) < len(state)
    assert len({tensor.data_ptr() for tensor in kept.values()}) == len(kept)


@pytest.mark.parametrize("by_which_name", [0, -1])
def test_a_model_takes_over_a_state_by_either_name_of_tied_weights(by_which_name):
    torch.manual_seed(0)
    source, target = fresh_model(), fresh_model()
    state = whole_state(source)
    names = {id(tensor): [] for tensor in state.values()}
    for name, tensor in state.items():
        names[id(tensor)].append(name)
    values = {each[by_which_name]: state[each[by_which_name]] for each in names.values()}
    assert fill_state(target, values) == ([], [])
    assert_same_weights(target.state_dict(), source.state_dict())


def test_a_state_that_does_not_fit_changes_nothing():
    model = fresh_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    values = {name: tensor + 1 for name, tensor in untied(whole_state(model)).items()}
    first, *_, last = values
    assert fill_state(model, {**values, "other": values[first]}) == ([], ["other"])
    fewer = {name: tensor for name, tensor in values.items() if name != first}
    assert fill_state(model, fewer) == ([first], [])
    with pytest.raises(RuntimeError, match="size mismatch for"):
        fill_state(model, {**values, last: values[last][..., None]})
    assert_same_weights(model.state_dict(), before)
