"""A compiled run: the same updates under the same names, by graphs that do not grow in number."""

import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.training import compiling
from hf_maskgit.training.arguments import TrainArguments
from tests.support.tiny_training import assert_same_weights, examples, log_of, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate", "_fresh_compiler")


@pytest.fixture
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_run_takes_the_same_updates_and_goes_on_to_the_bit(tmp_path, backend):
    """Over texts of many lengths; with averages, which take the weights' place in evaluations."""
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs a C++ compiler")
    compiled = {"torch_compile": True, "torch_compile_backend": backend}
    options = {"ema_decay": 0.5, "eval_every": 3, "checkpoint_every": 3, "adam_epsilon": 1e-3}
    options["eval_examples"] = examples(8, 1)
    whole = loop_of(tmp_path / "whole", **options, **compiled)
    whole.run()
    torch._dynamo.reset()  # as a new process begins
    again = loop_of(tmp_path / "again", **options, **compiled)
    again.resume(tmp_path / "whole" / "checkpoint-3")
    again.run()
    assert_same_weights(again.model.state_dict(), whole.model.state_dict())
    assert_same_weights(again.averages.values, whole.averages.values)
    whole.save_model(tmp_path / "model")
    saved = MaskGitForMaskedLM.from_pretrained(tmp_path / "model")
    assert saved.state_dict().keys() == whole.model.state_dict().keys()
    assert not any("_orig_mod" in name for name in whole.model.state_dict())
    assert len(log_of(tmp_path / "whole", "eval_nats_per_token")) == 2


@pytest.mark.slow
def test_compiled_updates_are_those_of_the_plain_run(tmp_path, monkeypatch):
    """Without dropout, whose numbers are another compiler's to draw; and graphs stay as many."""
    from transformers import BertForMaskedLM

    from tests.support import tiny_training

    monkeypatch.setattr(
        tiny_training,
        "BertForMaskedLM",
        lambda config: BertForMaskedLM(
            tiny_training.fresh_encoder_config(
                hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
            )
        ),
    )
    counter, counts = CompileCounterWithBackend("aot_eager"), []
    monkeypatch.setattr(compiling, "check_backend", lambda backend: None)
    options = {"adam_epsilon": 1e-3, "max_steps": 12}
    plain = loop_of(tmp_path / "plain", **options)
    plain.run()
    loop = loop_of(tmp_path / "compiled", **options)
    compiling.compile_in_place(loop.model, counter, loop.accelerator.device)
    tell = loop.log.tell
    monkeypatch.setattr(
        loop.log, "tell", lambda *args: (counts.append(counter.frame_count), tell(*args))
    )
    loop.run()
    assert log_of(tmp_path / "compiled") == pytest.approx(log_of(tmp_path / "plain"), rel=1e-4)
    for name, weight in plain.model.state_dict().items():
        torch.testing.assert_close(loop.model.state_dict()[name], weight, atol=1e-4, rtol=1e-3)
    assert len(counts) == 12
    assert counts[0] > 0
    assert counts[3:] == [counts[3]] * 9


def test_compilers_that_are_not_there_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`torch_compile_backend` must be one of .*inductor.*gcc'"):
        TrainArguments(output_dir="run", torch_compile=True, torch_compile_backend="gcc")
    with pytest.raises(ValueError, match="`torch_compile_backend` names a compiler; set `torch_c"):
        TrainArguments(output_dir="run", torch_compile_backend="inductor")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="on a CPU needs a C\\+\\+ compiler, and none was found"):
        loop_of(tmp_path / "run", torch_compile=True)
