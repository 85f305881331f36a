"""Resuming: a run that was interrupted or killed goes on to the same weights, to the bit."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from accelerate.utils import set_seed
from datasets import Dataset
from safetensors.torch import load_file
from torch.optim import AdamW

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.training.examples import prepare_examples
from scripts.train import main
from tests.support.launches import launched, processes_of, run
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import (
    SMALL,
    assert_same_weights,
    at_call,
    fresh_model,
    log_of,
    words,
    write_inputs,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def weights_of(folder):
    return load_file(Path(folder) / "model.safetensors")


RUN = {
    **SMALL,
    "max_steps": 14,
    "num_workers": 2,
    "validation_fraction": 0.1,
    "eval_every": 5,
    "checkpoint_every": 4,
}


def run_inputs(folder):
    return write_inputs(folder, num_texts=72)  # 65 to learn from, dropout at BERT's 0.1


@pytest.mark.wide
def test_a_run_interrupted_within_an_epoch_resumes_to_the_same_weights(tmp_path, monkeypatch):
    inputs = run_inputs(tmp_path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main([*inputs, *words({"output_dir": whole, **RUN})])

    at_call(monkeypatch, 11)
    with pytest.raises(KeyboardInterrupt):
        main([*inputs, *words({"output_dir": broken, **RUN})])
    assert sorted(path.name for path in broken.glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-8",
    ]
    shutil.rmtree(broken / "checkpoint-8")  # so that it goes on in the middle of an epoch
    torch.manual_seed(99)  # whatever happens in between
    main([str(broken / "training_options.yaml"), "--resume_from_checkpoint", "latest"])
    assert_same_weights(weights_of(broken), weights_of(whole))
    assert_same_weights(weights_of(broken / "best"), weights_of(whole / "best"))
    assert log_of(broken) == log_of(whole)
    assert log_of(broken, "eval_nats_per_token") == log_of(whole, "eval_nats_per_token")


@pytest.mark.wide
def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    inputs = run_inputs(tmp_path)
    options = {**SMALL, "output_dir": tmp_path / "run", "max_steps": 2, "checkpoint_every": 2}
    main([*inputs, *words(options)])
    for name, value, fault in (
        ("gradient_accumulation_steps", 1, "examples_per_update = 8, this run has 4"),
        ("learning_rate", 0.5, "learning_rate = 0.01, this run has 0.5"),
        ("seed", 1, "seed = 0, this run has 1"),
    ):
        with pytest.raises(ValueError, match=f"written with {fault}"):
            main([*inputs, *words({**options, name: value, "resume_from_checkpoint": "latest"})])


KILLED = """
import os, pytest, signal
from scripts.train import main
from tests.support.tiny_training import at_call
at_call(pytest.MonkeyPatch(), 11, lambda: os.kill(os.getpid(), signal.SIGKILL))
main()
"""


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_weights(tmp_path):
    inputs = run_inputs(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, errors = run("scripts/train.py", *inputs, *words({"output_dir": whole, **RUN}))
    assert code == 0, errors
    code, errors = run("-c", KILLED, *inputs, *words({"output_dir": killed, **RUN}))
    assert code == -signal.SIGKILL, errors
    assert not (killed / "model.safetensors").exists()
    recipe = killed / "training_options.yaml"
    code, errors = run("scripts/train.py", recipe, "--resume_from_checkpoint=latest")
    assert code == 0, errors
    assert_same_weights(weights_of(killed), weights_of(whole))


STOPPED = """
import os, pytest, signal
from hf_maskgit.training.recipes import run_program
from scripts.train import main
from tests.support.tiny_training import at_call
if os.environ["RANK"] == "0":
    at_call(pytest.MonkeyPatch(), 3, lambda: signal.raise_signal(signal.SIGTERM))
run_program(main)
"""


@pytest.mark.slow
def test_two_processes_stop_together_where_one_gets_a_signal(tmp_path):
    inputs = run_inputs(tmp_path)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    (tmp_path / "program.py").write_text(STOPPED)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    options = {**RUN, "max_steps": 6, "eval_every": 3, "checkpoint_every": 100}
    code, errors = run(
        *launch, "scripts/train.py", *inputs, *words({**options, "output_dir": whole})
    )
    assert code == 0, errors
    code, errors = run(
        *launch, tmp_path / "program.py", *inputs, *words({**options, "output_dir": stopped})
    )
    assert code == 1, errors  # the launcher's, whatever its processes end with
    assert "exitcode  : 143" in errors
    assert [path.name for path in stopped.glob("checkpoint-*")] == ["checkpoint-3"]
    recipe = stopped / "training_options.yaml"
    code, errors = run(*launch, "scripts/train.py", recipe, "--resume_from_checkpoint=latest")
    assert code == 0, errors
    assert_same_weights(weights_of(stopped), weights_of(whole))
    assert log_of(stopped, "eval_nats_per_token") == log_of(whole, "eval_nats_per_token")


STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# Above rounding: with the usual epsilon Adam makes a whole step of a gradient of 1e-12.
SMOOTH = {**SMALL, "adam_epsilon": 1e-3}
# Examples per pass, passes per update.
ALONE = {"per_device_batch_size": 8, "gradient_accumulation_steps": 1}
IN_TWO_PIECES = {"per_device_batch_size": 4, "gradient_accumulation_steps": 2}
IN_TWO_PIECES_EACH = {"per_device_batch_size": 2, "gradient_accumulation_steps": 2}


def assert_same_run(one, other):
    """Losses, held-out bounds and weights, to the rounding of sums in another order."""
    for name in ("loss", "eval_nats_per_token"):
        assert log_of(one, name) == pytest.approx(log_of(other, name), rel=1e-5)
        assert log_of(one, name)
    expected = weights_of(other)
    for name, weight in weights_of(one).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-6)


def plain_formula(folder, steps):
    """The losses of a run whose updates hold 8 examples, by one sum and one division."""
    set_seed(0)
    model = fresh_model(**STILL).train()
    texts = Dataset.from_dict({"text": (folder / "texts.txt").read_text().splitlines()})
    data = prepare_examples(texts, word_tokenizer(), max_length=16)[0]
    collate = DataCollatorForMaskGit(word_tokenizer(), seed=0)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=1e-2, betas=(0.9, 0.98), weight_decay=0.01, eps=1e-3)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    losses = {}
    for step in range(steps):
        batch = collate([data[i] for i in order[8 * step : 8 * step + 8]])
        loss = model(**batch, num_items_in_batch=(batch["labels"] != -100).sum()).loss
        loss.backward()
        losses[step + 1] = float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            # one update of warm-up (5 % of 6, rounded up), then a straight line to 0
            group["lr"] = 0.0 if step == 0 else 1e-2 * (steps - step) / (steps - 1)
        optimizer.step()
        optimizer.zero_grad()
    return losses, model.state_dict()


@pytest.mark.wide
def test_an_update_of_the_plain_formula_is_taken_in_one_piece_or_two(tmp_path):
    inputs = write_inputs(tmp_path, num_texts=60, **STILL)
    losses, weights = plain_formula(tmp_path, steps=6)
    for layout in (ALONE, IN_TWO_PIECES):
        run_dir = tmp_path / str(layout["per_device_batch_size"])
        main([*inputs, *words({**SMOOTH, **layout, "output_dir": run_dir})])
        assert log_of(run_dir) == pytest.approx(losses, rel=1e-5)
        found = MaskGitForMaskedLM.from_pretrained(run_dir).state_dict()
        for name, weight in weights.items():
            torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_run_is_the_same_at_any_layout_and_goes_on_at_another(tmp_path):
    """1 process x 8 examples, 2 pieces x 4, 2 processes x 2 pieces x 2; then from half way on."""
    inputs = write_inputs(tmp_path, num_texts=60, **STILL)
    often = {"eval_every": 3, "checkpoint_every": 3, "validation_fraction": 0.2}
    options = {**SMOOTH, **often}
    alone, pieces, both = (tmp_path / name for name in ("alone", "pieces", "both"))
    main([*inputs, *words({**options, **ALONE, "output_dir": alone})])
    main([*inputs, *words({**options, **IN_TWO_PIECES, "output_dir": pieces})])
    launched(*inputs, *words({**options, **IN_TWO_PIECES_EACH, "output_dir": both}))
    assert processes_of(alone / "checkpoint-6") == 1
    assert processes_of(both / "checkpoint-6") == 2
    assert_same_run(pieces, alone)
    assert_same_run(both, alone)

    # two processes go on from the checkpoint of one, and one from that of two
    changes = [*IN_TWO_PIECES_EACH, "num_processes"]
    grown, shrunk = tmp_path / "grown", tmp_path / "shrunk"
    for source, target in ((alone, grown), (both, shrunk)):
        shutil.copytree(source, target)
        shutil.rmtree(target / "checkpoint-6")
    again = ["--resume_from_checkpoint=latest", "--allow_changes", *changes]
    recipe = grown / "training_options.yaml"
    said = launched(recipe, *words({**IN_TWO_PIECES_EACH, "output_dir": grown}), *again)
    assert "each begins a new random stream, for dropout" in said
    recipe = shrunk / "training_options.yaml"
    main([str(recipe), *words({**ALONE, "output_dir": shrunk}), *again])
    assert processes_of(grown / "checkpoint-6") == 2
    assert processes_of(shrunk / "checkpoint-6") == 1
    assert_same_run(grown, alone)
    assert_same_run(shrunk, alone)


@pytest.mark.slow
def test_two_processes_resume_to_the_same_weights(tmp_path):
    inputs = run_inputs(tmp_path)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2")
    launch = (*launch, "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no")
    options = {**RUN, "output_dir": whole, "max_steps": 6, "checkpoint_every": 2, "eval_every": 3}
    code, errors = run(
        *launch, "scripts/train.py", *inputs, *words(options), "--keep_checkpoints=9"
    )
    assert code == 0, errors
    again = {"output_dir": resumed, "resume_from_checkpoint": whole / "checkpoint-2"}
    recipe = whole / "training_options.yaml"
    code, errors = run(*launch, "scripts/train.py", recipe, *words(again))
    assert code == 0, errors
    assert_same_weights(weights_of(resumed), weights_of(whole))
    evaluated = log_of(whole, "eval_nats_per_token")
    assert sorted(evaluated) == [3, 6]
    assert log_of(resumed, "eval_nats_per_token") == evaluated


@pytest.mark.slow
def test_critic_and_self_conditioning_resume_to_the_same_weights(tmp_path, monkeypatch):
    """Which texts look back and what the critic is shown go on as dropout does."""
    inputs = write_inputs(tmp_path, num_texts=40)
    options = {**SMALL, "token_critic": "self", "self_cond": "true", "checkpoint_every": 2}
    main([*inputs, *words({**options, "output_dir": tmp_path / "whole"})])
    at_call(monkeypatch, 4)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        main([*inputs, *words({**options, "output_dir": broken})])
    torch.manual_seed(99)
    main([str(broken / "training_options.yaml"), "--resume_from_checkpoint", "latest"])
    whole, again = (
        MaskGitForMaskedLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("whole", "broken")
    )
    assert all(torch.equal(weight, again[name]) for name, weight in whole.items())
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "| token critic | self |" in card
    assert "| share of texts with self-conditioning | 0.75 |" in card
    with pytest.raises(
        ValueError, match="by a run that trained other weights; use the same `train`"
    ):
        main(
            [
                str(broken / "training_options.yaml"),
                "--resume_from_checkpoint=latest",
                "--train=critic",
            ]
        )
