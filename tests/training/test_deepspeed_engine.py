"""DeepSpeed: the same run, and the same files, as with whole copies; what it cannot do is refused.

The slow tests need it, and run on two CPU processes.
"""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from hf_maskgit.training import deepspeed_engine
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.cost import memory_of
from hf_maskgit.training.deepspeed_engine import (
    ZeRO,
    asked_for_deepspeed,
    check_settings,
    form_of,
    plain_processes,
    settings_of,
)
from scripts.train import main
from tests.support.launches import WHOLE, ZERO, completed, launched, processes_of
from tests.support.split_runs import RUN, STILL, assert_same_but_for_rounding
from tests.support.tiny_training import assert_same_weights, log_lines, log_of, words, write_inputs


def options_of(**changes):
    return TrainArguments(**{"output_dir": "run", "max_steps": 1, **changes})


def settings(**changes):
    """What Accelerate makes of a launch configuration, with changes."""
    zero = {"stage": 2, "offload_optimizer": {"device": "none"}, **changes.pop("zero", {})}
    plain = {"train_batch_size": "auto", "gradient_accumulation_steps": "auto"}
    return {**plain, "gradient_clipping": "auto", "zero_optimization": zero, **changes}


def test_accelerate_is_not_told_of_deepspeed_while_it_sets_up_processes(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with plain_processes():
        assert not asked_for_deepspeed()
    assert asked_for_deepspeed()
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    with plain_processes():
        pass
    assert not asked_for_deepspeed()


@pytest.fixture
def _deepspeed_is_there(monkeypatch):
    monkeypatch.setattr(deepspeed_engine, "is_deepspeed_available", lambda: True)
    monkeypatch.setattr(deepspeed_engine.torch.distributed, "is_initialized", lambda: True)


def test_without_deepspeed_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(deepspeed_engine, "is_deepspeed_available", lambda: False)
    with pytest.raises(ValueError, match=r"not installed: pip install 'hf_maskgit\[deepspeed\]'"):
        ZeRO().check(SimpleNamespace(mixed_precision="no"), options_of())


def test_a_process_by_itself_is_refused(monkeypatch):
    monkeypatch.setattr(deepspeed_engine, "is_deepspeed_available", lambda: True)
    with pytest.raises(ValueError, match="Start it with `accelerate launch`"):
        ZeRO().check(SimpleNamespace(mixed_precision="no"), options_of())


@pytest.mark.usefixtures("_deepspeed_is_there")
@pytest.mark.parametrize(
    ("mixed_precision", "changes", "said"),
    [
        ("fp16", {}, "`mixed_precision` 'fp16' and DeepSpeed"),
        ("bf16", {"lora_r": 4}, "`lora_r` and DeepSpeed do not go together"),
        ("bf16", {"torch_compile": True}, "`torch_compile` and DeepSpeed do not go together"),
    ],
)
def test_options_that_do_not_go_with_it_are_refused(mixed_precision, changes, said):
    with pytest.raises(ValueError, match=said):
        ZeRO().check(SimpleNamespace(mixed_precision=mixed_precision), options_of(**changes))


@pytest.mark.usefixtures("_deepspeed_is_there")
@pytest.mark.parametrize("stage", [2, 3])
def test_a_launch_configuration_of_ours_is_accepted(monkeypatch, stage):
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", str(stage))
    ZeRO().check(SimpleNamespace(mixed_precision="bf16"), options_of())
    assert ZeRO().layout(SimpleNamespace()) == f"ZeRO-{stage}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"zero": {"stage": 1}}, "`zero_stage` must be 2 or 3, got 1"),
        (
            {"zero": {"offload_optimizer": {"device": "cpu"}}},
            "`offload_optimizer` to 'cpu' is not supported",
        ),
        (
            {"zero": {"stage": 3, "offload_param": {"device": "nvme"}}},
            "`offload_param` to 'nvme' is not supported",
        ),
        ({"optimizer": {"type": "Adam"}}, "'optimizer' .* remove it and set `learning_rate`"),
        ({"scheduler": {"type": "WarmupLR"}}, "'scheduler' .* set `lr_scheduler_type`"),
        ({"bf16": {"enabled": True}}, "'bf16' .* set `mixed_precision`"),
        ({"fp16": {"enabled": "auto"}}, "'fp16' .* set `mixed_precision`"),
        ({"gradient_clipping": 3.0}, "`gradient_clipping` is 3.0 and `max_grad_norm` is 1.0"),
        (
            {"gradient_accumulation_steps": 4},
            "`gradient_accumulation_steps` is 4 and `gradient_accumulation_steps` is 1",
        ),
    ],
)
def test_a_configuration_that_is_not_followed_is_refused(changes, said):
    options = options_of(max_grad_norm=1.0, gradient_accumulation_steps=1)
    with pytest.raises(ValueError, match=said):
        check_settings(settings(**changes), options)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_clipping": 0.5, "gradient_accumulation_steps": 2},
        {"gradient_accumulation_steps": 1, "bf16": {"enabled": False}},  # a file without them
        {"zero": {"stage": 3, "overlap_comm": True}},
    ],
)
def test_a_configuration_that_says_what_the_options_say_is_accepted(changes):
    options = options_of(max_grad_norm=0.5, gradient_accumulation_steps=2)
    check_settings(settings(**changes), options)


def test_what_a_run_sets_itself_replaces_what_was_left_open():
    given = settings(zero={"overlap_comm": True, "reduce_bucket_size": "auto"}, bf16={"enabled": 0})
    found = settings_of(given, micro_batch=5)
    assert found["train_micro_batch_size_per_gpu"] == 5
    assert found["gradient_accumulation_steps"] == 1
    assert found["zero_optimization"]["overlap_comm"] is True
    assert "auto" not in json.dumps(found)
    assert not {"bf16", "train_batch_size"} & set(found)
    assert given["zero_optimization"]["reduce_bucket_size"] == "auto"  # as it was


def test_the_form_of_a_state_is_that_of_the_weights_that_were_used():
    def state(steps):
        return {"step": torch.tensor(steps), "exp_avg": torch.zeros(2)}

    assert form_of([{}, {}]) == (None, [])
    steps, keys = form_of([{}, state(3.0), state(3.0)])
    assert (steps.item(), keys) == (3.0, ["exp_avg"])
    with pytest.raises(ValueError, match="different numbers of steps, 2 to 3, and DeepSpeed"):
        form_of([state(3.0), state(2.0)])


def test_weights_that_are_whole_stay_as_they_are():
    model = torch.nn.Linear(2, 2)
    with ZeRO().whole_weights(model):
        assert model.weight.shape == (2, 2)


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Inputs and options of a run, and its folder, with whole copies in two processes."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("copies")
    inputs = write_inputs(folder, num_texts=60, **STILL)
    parts = {"token_critic": "self", "self_cond": "true", "self_cond_train_prob": 1.0}
    # The critic is shown draws, so that only the denoiser is the same.
    options = {**RUN, "gradient_accumulation_steps": 2, **parts, "train": "denoiser"}
    launched(*inputs, *words({**options, "output_dir": folder / "run"}))
    return inputs, options, folder / "run"


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_accelerate")
@pytest.mark.parametrize("stage", [2, 3])
def test_a_run_by_deepspeed_is_the_run_of_whole_copies_and_writes_its_files(
    tmp_path, copies, stage
):
    inputs, options, expected = copies
    zero = tmp_path / "zero"
    launched(*inputs, *words({**options, "output_dir": zero}), weights=ZERO[stage])
    assert processes_of(zero / "checkpoint-6") == 2
    for name in ("loss", "eval_nats_per_token"):
        assert log_of(zero, name) == pytest.approx(log_of(expected, name), rel=1e-5)
    for file in ("checkpoint-6/model", "checkpoint-6/optimizer", "checkpoint-6/averages", "model"):
        one, other = (load_file(path / f"{file}.safetensors") for path in (zero, expected))
        assert_same_but_for_rounding(one, other)
    names = [{path.name for path in (run / "checkpoint-6").iterdir()} for run in (zero, expected)]
    assert names[0] == names[1]

    # by DeepSpeed to the same weights, to the bit, and on one process to the same but for rounding
    again, alone = tmp_path / "again", tmp_path / "alone"
    for target in (again, alone):
        shutil.copytree(zero, target)
        shutil.rmtree(target / "checkpoint-6")
    recipe = zero / "training_options.yaml"
    resumed = ["--resume_from_checkpoint=latest", "--output_dir"]
    launched(recipe, *resumed, again, weights=ZERO[stage])
    assert_same_weights(
        load_file(again / "model.safetensors"), load_file(zero / "model.safetensors")
    )
    changes = ["num_processes", "gradient_accumulation_steps"]
    doubled = ["--gradient_accumulation_steps=4", "--allow_changes", *changes]
    main([str(recipe), *resumed, str(alone), *doubled])
    assert processes_of(alone / "checkpoint-6") == 1
    assert_same_but_for_rounding(
        load_file(alone / "model.safetensors"), load_file(zero / "model.safetensors")
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_an_update_without_numbers_is_left_out_as_with_whole_copies(tmp_path, copies, stage):
    inputs, options, _ = copies
    options = {**options, "on_nonfinite": "skip", "eval_every": 1000, "load_best_model_at_end": 0}
    program = "tests/support/spoiled_training.py"
    for name, weights in (("copies", WHOLE), ("zero", ZERO[stage])):
        given = words({**options, "output_dir": tmp_path / name})
        launched(*inputs, *given, weights=weights, program=program)
        skipped = [line.get("skipped_updates") for line in log_lines(tmp_path / name)]
        assert skipped[:4] == [None, None, 1, None]
    for file in ("checkpoint-6/optimizer", "checkpoint-6/averages", "model"):
        one, other = (
            load_file(tmp_path / name / f"{file}.safetensors") for name in ("zero", "copies")
        )
        assert_same_but_for_rounding(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_run_by_deepspeed_in_bf16_learns(tmp_path, copies, stage):
    inputs, *_ = copies
    options = {**RUN, "max_steps": 30, "learning_rate": 3e-2, "mixed_precision": "bf16"}
    options |= {"gradient_checkpointing": "true", "eval_texts": 1, "eval_every": 15}
    launched(*inputs, *words({**options, "output_dir": tmp_path / "run"}), weights=ZERO[stage])
    losses = log_of(tmp_path / "run")
    assert losses[30] < 0.9 * losses[1]
    assert (tmp_path / "run" / "samples.jsonl").exists()
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_dry_run_states_the_memory_that_deepspeed_takes(tmp_path, copies, stage):
    inputs, options, _ = copies
    given = words({**options, "output_dir": tmp_path / "run"})
    launch = ("-m", "accelerate.commands.launch", "--num_processes=2", "--main_process_port=0")
    command = (f"--config_file={ZERO[stage]}", "scripts/train.py", *inputs, *given, "--dry_run")
    done = completed(*launch, *command)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)
    parameters, trained = (
        int(found.replace(",", "")) for found in re.findall(r"[\d,]*\d", rows["model"])
    )
    how = {"remembered": 2 * trained, "averages": True, "devices": 2, "how": f"ZeRO-{stage}"}
    memory = memory_of(parameters, trained, **how)
    for name in ("weights", "gradients", "optimizer", "averages"):
        assert f"{name} {getattr(memory, name) / 1e3:.3g} kB" in rows["memory"]
