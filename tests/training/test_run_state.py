"""The state of a run: all of it comes back, by name, and what does not fit is refused."""

import json
import random  # its state is kept

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hf_maskgit.training.run_state import MODEL_FILE, OPTIMIZER_FILE, random_states_file
from hf_maskgit.training.watching import Window
from tests.support.tiny_training import assert_same_weights, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


@pytest.fixture
def loop(tmp_path):
    loop = loop_of(tmp_path / "run", {"token_critic": "separate", "self_cond": True}, max_steps=2)
    loop.run()
    return loop


@pytest.fixture
def written(loop, tmp_path):
    (tmp_path / "state").mkdir()
    loop._state.write(tmp_path / "state", {"a": 0.1})
    return tmp_path / "state"


def rewrite(path, change):
    with safe_open(str(path), framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(path)
    change(tensors, metadata)
    save_file(tensors, str(path), metadata=metadata)


def test_all_of_it_comes_back(loop, written):
    weights = {name: weight.clone() for name, weight in loop.model.state_dict().items()}
    states = {
        i: {key: value.clone() for key, value in state.items()}
        for i, state in loop.optimizer.state_dict()["state"].items()
    }

    def draws():
        normal = np.random.normal()  # noqa: NPY002
        return [random.random(), random.gauss(), normal, *torch.rand(3).tolist()]

    draws()  # of a pair of normal numbers, Python and numpy keep the second one back
    loop._state.write(written, {"a": 0.1})
    expected = draws()
    with torch.no_grad():
        for parameter in loop.model.parameters():
            parameter.zero_()
    loop.optimizer.state.clear()
    assert loop._state.read(written) == {"a": 0.1}
    assert draws() == expected
    assert_same_weights(loop.model.state_dict(), weights)
    found = loop.optimizer.state_dict()["state"]
    assert found.keys() == states.keys()
    for i, state in states.items():
        assert_same_weights(found[i], state)


@pytest.mark.wide
def test_tied_weights_are_stored_once_under_the_models_names(loop, written):
    stored = load_file(written / MODEL_FILE)
    assert set(stored) < set(loop.model.state_dict())
    assert "denoiser.cls.predictions.decoder.weight" not in stored or (
        "denoiser.bert.embeddings.word_embeddings.weight" not in stored
    )


def drop(name):
    return lambda tensors, metadata: tensors.pop(name)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (OPTIMIZER_FILE, lambda t, m: m.update(trained="["), "holds no state of an optimizer"),
        (OPTIMIZER_FILE, lambda t, m: m.pop("trained"), "holds no state of an optimizer"),
        (OPTIMIZER_FILE, lambda t, m: m.update(trained="[]"), "trained other weights; use the sa"),
        (
            OPTIMIZER_FILE,
            lambda t, m: t.update({"exp_avg:none": torch.ones(2)}),
            r"holds 'exp_avg:none' of shape \(2,\), which fits no weight",
        ),
        (
            MODEL_FILE,
            drop("critic_head.bias"),
            r"it lacks \['critic_head.bias'\] and has \[\] besi",
        ),
        (
            MODEL_FILE,
            lambda t, m: t.update({"critic_head.bias": torch.ones(7)}),
            "holds other weights: .*size mismatch for critic_head.bias",
        ),
        (random_states_file(0), drop("torch"), "no random states that a run can go on with"),
        (random_states_file(0), drop("python"), "no random states that a run can go on with"),
        (
            random_states_file(0),
            lambda t, m: t.update(torch=torch.zeros(9, dtype=torch.uint8)),
            "no random states that a run can go on with",
        ),
        (random_states_file(0), lambda t, m: m.pop("numbers"), "no random states that a run can"),
        (
            random_states_file(0),
            lambda t, m: m.update(numbers=json.dumps({**json.loads(m["numbers"]), "window": 3})),
            "the sums for the log are 3",
        ),
    ],
)
def test_what_does_not_fit_is_refused(loop, written, file, change, said):
    rewrite(written / file, change)
    with pytest.raises(ValueError, match=said):
        loop._state.read(written)


@pytest.mark.wide
def test_missing_random_states_are_an_error(loop, written):
    (written / random_states_file(0)).unlink()
    with pytest.raises(ValueError, match=r"random_states_0.safetensors' holds no random states"):
        loop._state.read(written)


def draw_of_each():
    return [random.random(), float(np.random.random()), float(torch.rand(()))]  # noqa: NPY002


@pytest.mark.wide
def test_on_another_number_of_processes_each_begins_a_stream_of_its_own(loop, written, monkeypatch):
    """Three go on from one: streams differ by process, update and seed, and from any before."""
    loop._state.write(written, Window().state_dict())
    before = draw_of_each()
    streams = []
    for process, key in ((0, (0, 4)), (1, (0, 4)), (2, (0, 4)), (1, (0, 5)), (1, (1, 4))):
        monkeypatch.setattr(type(loop.accelerator), "process_index", process)
        loop._state.read(written, new_streams=key)
        streams.append(draw_of_each())
        torch.rand(5)
        loop._state.read(written, new_streams=key)
        assert draw_of_each() == streams[-1]
    assert len({value for draws in (before, *streams) for value in draws}) == 3 * 6


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_what_two_processes_summed_up_for_the_log_is_kept_by_any_number(
    loop, tmp_path, monkeypatch, num_processes
):
    (tmp_path / "state").mkdir()
    same = {"num_updates": 3, "seconds": 0.5, "num_tokens": 12}
    for process, loss in ((0, 0.25), (1, 0.5)):
        monkeypatch.setattr(type(loop.accelerator), "process_index", process)
        loop._state.write(tmp_path / "state", {**same, "losses": {"loss": loss}})
    windows = []
    for process in range(num_processes):
        monkeypatch.setattr(type(loop.accelerator), "process_index", process)
        windows.append(loop._state.read(tmp_path / "state", new_streams=(0, 3)))
    # Every process takes part in the sum over all, so each has every name.
    assert [list(window["losses"]) for window in windows] == [["loss"]] * num_processes
    assert sum(window["losses"]["loss"] for window in windows) == 0.75
    assert all({**window, "losses": None} == {**same, "losses": None} for window in windows)


@pytest.mark.wide
def test_sums_that_cannot_be_read_are_named_whoever_wrote_them(loop, written):
    rewrite(written / random_states_file(0), lambda t, m: m.update(numbers="{}"))
    with pytest.raises(ValueError, match=r"random_states_0.safetensors' holds no random states"):
        loop._state.read(written, new_streams=(0, 3))


def test_the_sums_for_the_log_come_back_to_the_bit():
    window = Window()
    window.num_updates, window.seconds = 3, 0.1
    window.losses = {"loss": torch.tensor(0.1) / 3}
    window.num_tokens = torch.tensor(12)
    again = Window()
    again.load_state_dict(json.loads(json.dumps(window.state_dict())), torch.device("cpu"))
    assert torch.equal(again.losses["loss"], window.losses["loss"])
    assert (again.num_updates, again.seconds, int(again.num_tokens)) == (3, 0.1, 12)
