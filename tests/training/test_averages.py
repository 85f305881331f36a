"""Averages of the weights: those of the plain formula, measured, published and kept exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import hf_maskgit.training.loop as training
from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import NelboOutput
from hf_maskgit.training import evaluations
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.averages import AVERAGES_FILE, WeightAverages, decay_after
from hf_maskgit.training.checkpoints import fault_of
from hf_maskgit.training.finiteness import NotFiniteError
from tests.support.tiny_training import assert_same_weights, examples, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
DECAY = 0.4  # reached at the fourth update, so that both sides of the minimum are taken


def trained_of(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copies(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def run_and_record(folder, monkeypatch, **options):
    """A run with averages; returns its loop and the trained weights before and after updates."""
    loop = loop_of(folder, ema_decay=DECAY, **options)
    model = loop.accelerator.unwrap_model(loop.model)
    recorded, take_update = [copies(trained_of(model))], training.take_update

    def recording(*arguments):
        update = take_update(*arguments)
        recorded.append(copies(trained_of(model)))
        return update

    with monkeypatch.context() as patched:
        patched.setattr(training, "take_update", recording)
        loop.run()
    return loop, recorded


def average_by_hand(recorded):
    """The weighted sum of all weights that there were, in float64, newest first."""
    sums = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in recorded[0].items()}
    remaining = 1.0  # of the weight of all that came before
    for n in range(len(recorded) - 1, 0, -1):
        decay = min(DECAY, (1 + n) / (10 + n))
        for name in sums:
            sums[name] += remaining * (1 - decay) * recorded[n][name].double()
        remaining *= decay
    return {name: sums[name] + remaining * recorded[0][name].double() for name in sums}


@pytest.mark.wide
def test_the_averages_are_those_of_the_plain_formula_and_are_published(tmp_path, monkeypatch):
    loop, recorded = run_and_record(tmp_path / "run", monkeypatch, checkpoint_every=6)
    expected = average_by_hand(recorded)
    assert loop.averages.num_updates == 6
    assert loop.averages.values.keys() == expected.keys()
    for name, average in loop.averages.values.items():
        torch.testing.assert_close(average.double(), expected[name], rtol=0, atol=1e-6)
        assert not torch.equal(average, recorded[-1][name])

    checkpoint = tmp_path / "run" / "checkpoint-6"
    assert fault_of(checkpoint) is None
    assert_same_weights(load_file(checkpoint / AVERAGES_FILE), loop.averages.values)
    raw = load_file(checkpoint / "model.safetensors")
    assert all(torch.equal(raw[name], recorded[-1][name]) for name in raw if name in recorded[-1])

    loop.save_model(tmp_path / "published")
    published = MaskGitForMaskedLM.from_pretrained(tmp_path / "published")
    assert_same_weights(copies(trained_of(published)), loop.averages.values)
    assert_same_weights(copies(trained_of(loop.model)), recorded[-1])  # its own again


@pytest.mark.wide
def test_evaluations_measure_the_averages_and_change_nothing(tmp_path, monkeypatch):
    measured = []

    def evaluate(accelerator, model, *_, **__):
        measured.append(copies(trained_of(model)))
        ones = torch.ones(1, dtype=torch.float64)
        return NelboOutput(ones, ones, torch.ones(1, dtype=torch.long))

    monkeypatch.setattr(evaluations, "evaluate_bound", evaluate)
    plain, _ = run_and_record(tmp_path / "plain", monkeypatch)
    options = {"eval_every": 3, "eval_examples": examples(8, 1), "checkpoint_every": 3}
    busy, recorded = run_and_record(tmp_path / "busy", monkeypatch, **options)
    assert_same_weights(busy.model.state_dict(), plain.model.state_dict())
    assert_same_weights(busy.averages.values, plain.averages.values)
    assert len(measured) == 2
    assert_same_weights(measured[1], busy.averages.values)
    best = MaskGitForMaskedLM.from_pretrained(tmp_path / "busy" / "best")
    assert_same_weights(copies(trained_of(best)), measured[0])  # the second was no better
    assert recorded[3].keys() == measured[0].keys()


@pytest.mark.wide
def test_a_run_that_goes_on_has_the_same_averages_to_the_bit(tmp_path, monkeypatch):
    whole, _ = run_and_record(tmp_path / "run", monkeypatch, checkpoint_every=3)
    again = loop_of(tmp_path / "again", ema_decay=DECAY, checkpoint_every=3)
    again.resume(tmp_path / "run" / "checkpoint-3")
    assert again.averages.num_updates == 3
    again.run()
    assert_same_weights(again.averages.values, whole.averages.values)
    assert_same_weights(again.model.state_dict(), whole.model.state_dict())


@pytest.mark.wide
def test_a_run_that_begins_to_average_on_its_way_begins_with_its_weights(tmp_path):
    loop_of(tmp_path / "run", checkpoint_every=3).run()
    options = {"ema_decay": DECAY, "resume_from_checkpoint": "latest"}
    refused = loop_of(tmp_path / "refused", **options)
    with pytest.raises(ValueError, match=r"ema_decay = 0.0, this run has 0.4"):
        refused.resume(tmp_path / "run" / "checkpoint-3")
    again = loop_of(tmp_path / "again", **options, allow_changes=["ema_decay"])
    again.resume(tmp_path / "run" / "checkpoint-3")
    assert again.averages.num_updates == 0
    assert_same_weights(again.averages.values, copies(trained_of(again.model)))


@pytest.mark.parametrize("part", ["denoiser", "critic"])
def test_only_what_learns_has_an_average_and_tied_weights_have_one(tmp_path, part):
    loop = loop_of(tmp_path / "run", {"token_critic": "separate"}, train=part, ema_decay=DECAY)
    model = loop.accelerator.unwrap_model(loop.model)
    assert loop.averages.values.keys() == trained_of(model).keys()
    assert all(name.startswith("critic") == (part == "critic") for name in loop.averages.values)
    storages = {average.data_ptr() for average in loop.averages.values.values()}
    assert len(storages) == len(loop.averages.values)
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    with loop.published_weights():
        assert head.weight is embeddings.weight


@pytest.mark.parametrize(
    ("weights", "averages"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_averages_are_float32_or_finer(weights, averages):
    """In bf16 steps of a thousandth would be rounded away; in float32 they add up."""
    layer = nn.Linear(2, 1, bias=False).to(weights)
    nn.init.constant_(layer.weight, 1.0)
    kept = WeightAverages(layer, 0.999)
    kept.num_updates = 10**6
    nn.init.constant_(layer.weight, 2.0)
    for _ in range(100):
        kept.update()
    assert kept.values["weight"].dtype == averages
    expected = 2 - 0.999**100
    torch.testing.assert_close(
        kept.values["weight"].double(), torch.full((1, 2), expected).double(), atol=1e-5, rtol=0
    )
    with kept.in_place_of_weights():
        assert layer.weight.dtype == weights
        assert float(layer.weight[0, 0].detach()) == pytest.approx(expected, rel=2**-8)
    assert float(layer.weight[0, 0].detach()) == 2.0


def test_the_weights_come_back_whatever_happens():
    layer = nn.Linear(2, 2)
    kept = WeightAverages(layer, DECAY)
    nn.init.zeros_(layer.weight)
    own = layer.weight.data_ptr()

    def interrupted():
        with kept.in_place_of_weights():
            assert layer.weight.any()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert layer.weight.data_ptr() == own
    assert not layer.weight.any()


@given(st.integers(1, 10**7), st.floats(1e-6, 1 - 1e-6))
def test_the_decay_rises_to_the_one_that_was_asked_for(n, decay):
    assert 0 < decay_after(n, decay) <= decay_after(n + 1, decay) <= decay
    assert decay_after(n, decay) <= (1 + n) / (10 + n)
    assert decay_after(10**9, decay) == decay


def test_averages_that_do_not_fit_are_refused(tmp_path):
    layer = nn.Linear(2, 2)
    kept = WeightAverages(layer, DECAY)
    with pytest.raises(ValueError, match=r"averages.safetensors' holds no averages of weights"):
        kept.read(tmp_path)
    save_file({"weight": torch.ones(2, 2)}, str(tmp_path / AVERAGES_FILE))
    with pytest.raises(ValueError, match="holds no averages of weights"):
        kept.read(tmp_path)
    kept.write(tmp_path, kept.tensors(keep=True))
    with pytest.raises(ValueError, match="holds the averages of other weights than this run trai"):
        WeightAverages(nn.Linear(2, 3), DECAY).read(tmp_path)
    kept.values["bias"][0] = torch.nan
    with pytest.raises(NotFiniteError, match="The averages of the weights 'bias' hold nan or inf"):
        kept.write(tmp_path, kept.tensors(keep=True))


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match=r"`ema_decay` must lie in \[0, 1\), got"):
        TrainArguments(output_dir="run", ema_decay=decay)
