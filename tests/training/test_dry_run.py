"""A dry run: what it says is what the run then does, and it leaves nothing behind."""

import gc
import json
import os
import subprocess
import sys

import pytest
import torch

from hf_maskgit.evaluation.benchmark_rounds import peak_bytes
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.cost import Memory
from hf_maskgit.training.dry_run import KeptBytes, Plan
from hf_maskgit.training.recipes import parse_options
from scripts import train
from tests.support.project import ROOT
from tests.support.tiny_training import SMALL, repeated_symbols, words, write_inputs

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Run the script as a dry run: what it plans."""
    plans = []
    plan_of = train.plan_of

    def noted(*arguments):
        plans.append(plan_of(*arguments))
        return plans[-1]

    monkeypatch.setattr(train, "plan_of", noted)
    inputs = write_inputs(tmp_path, num_texts=70)

    def plan(*more, **options):
        asked = {**SMALL, "output_dir": tmp_path / "run", **options}
        train.main([*inputs, *words(asked), *more])
        return plans[-1] if plans else None

    return plan


@pytest.mark.slow
def test_it_says_what_the_run_then_does(planned, tmp_path, capsys):
    options = {"max_steps": 16, "validation_fraction": 0.1, "ema_decay": 0.9}  # 2 epochs
    options["checkpoint_every"] = 16
    plan = planned("--dry_run", **options)
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().out
    assert said.endswith("Nothing was written.\n")
    assert "data     70" not in said, "seven of them are held out"
    planned(**options)
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (plan.updates, plan.epochs) == (found["updates"], 16 / 7)
    assert plan.updates * plan.examples_per_update == found["examples"]
    assert (plan.parameters, plan.trained) == (found["parameters"], found["trained_parameters"])
    assert (plan.texts, plan.examples, plan.held_out) == (63, 63, 7)
    # All that is maskable, and two tokens of framing per example, as many times as it was seen.
    per_example = plan.tokens_per_epoch / plan.examples
    assert found["tokens"] / found["examples"] + 2 == pytest.approx(per_example, rel=0.05)
    assert plan.tokens_per_update * plan.updates == pytest.approx(found["tokens"], rel=0.2)
    files = (tmp_path / "run").rglob("*.safetensors")
    assert plan.disk == pytest.approx(sum(path.stat().st_size for path in files), rel=0.5)
    assert plan.seconds == pytest.approx(16 * plan.seconds_per_update)


@pytest.mark.wide
@pytest.mark.parametrize("more", [{"optim": "muon", "ema_decay": 0.9}, {"max_steps": 1}])
def test_a_run_asks_for_the_room_that_its_dry_run_states(planned, monkeypatch, more):
    plan, asked = planned("--dry_run", **more), []

    def full(folder, needed):
        asked.append(needed)
        raise ValueError("full")

    monkeypatch.setattr(train, "check_room", full)
    with pytest.raises(ValueError, match="full"):
        planned(**more)
    assert asked == [plan.disk]


@pytest.mark.wide
def test_tokens_of_an_epoch_are_exact(planned):
    plan = planned("--dry_run", max_steps=1)
    lengths = [len(text.split()) + 2 for text in repeated_symbols(70)]
    assert plan.tokens_per_epoch == sum(lengths)
    assert 0 < plan.padding_share < 0.5
    assert plan.memory.averages == 0
    assert plan.peak is None


@pytest.mark.wide
def test_memory_is_that_of_an_update_as_torch_counts_it(planned, tmp_path):
    """What its allocator gives out in one whole update of the same size: within a quarter."""
    plan = planned("--dry_run", max_steps=1, gradient_accumulation_steps=1)
    loop, _ = train.prepare(*prepared(tmp_path))
    batches = loop.batches.from_where_it_stands(loop.progress)
    loop.model.train()
    loop.take_update(next(batches))  # now there are averages of AdamW
    batch = next(batches)
    gc.collect()
    within = peak_bytes(lambda: loop.take_update(batch), torch.device("cpu"))
    weights = sum(p.nbytes for p in loop.model.parameters())
    states = loop.optimizer.optimizer.state.values()
    optimizer = sum(tensor.nbytes for state in states for tensor in state.values())
    assert plan.memory.weights == weights
    assert plan.memory.optimizer == pytest.approx(optimizer, rel=0.01)  # and its steps
    assert plan.memory.total == pytest.approx(weights + optimizer + within, rel=0.25)


def prepared(tmp_path):
    asked = {**SMALL, "output_dir": tmp_path / "run", "gradient_accumulation_steps": 1}
    types = (ModelArguments, DataArguments, TrainArguments)
    model, data, options = parse_options(types, [*write_inputs(tmp_path, 70), *words(asked)])
    return make_accelerator(options), model, data, options


def test_what_is_kept_is_counted_once_and_forgotten():
    model = torch.nn.Linear(10, 10, bias=False)
    count, inputs = KeptBytes(model), torch.ones(5, 10, requires_grad=True)
    with count.counted():
        hidden = model(inputs)  # keeps inputs and weights: 200 bytes, and the weights do not count
        square = hidden * hidden  # keeps hidden twice, counted once: 200 more
        assert count.most == 400
        square.exp().sum().backward()  # keeps the result of exp: 200 more
    assert count.most == 600
    assert count._now == 0
    assert count._uses
    assert not any(count._uses.values())


@pytest.mark.wide
def test_what_an_interrupted_run_left_stays_as_it_is(planned, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    recipe = tmp_path / "run" / "training_options.yaml"
    recipe.write_text("left: there")
    assert planned("--dry_run", max_steps=1).updates == 1
    assert recipe.read_text() == "left: there"
    assert [path.name for path in recipe.parent.iterdir()] == [recipe.name]
    assert "begins anew" not in caplog.text


@pytest.mark.wide
def test_gradient_checkpointing_keeps_less(planned):
    one, other = (
        planned("--dry_run", max_steps=1, gradient_checkpointing=on) for on in (False, True)
    )
    assert other.memory.activations < one.memory.activations / 2


def test_a_dry_run_that_goes_on_is_a_mistake(planned, capsys):
    with pytest.raises(SystemExit):
        planned("--dry_run", "--resume_from_checkpoint=latest")
    assert "`dry_run` looks at a run from its beginning" in capsys.readouterr().err


def test_a_dry_run_refuses_what_the_run_would(planned):
    with pytest.raises(ValueError, match="70 training examples, too few for one update of 80"):
        planned("--dry_run", per_device_batch_size=40)


def test_it_is_said_in_lines():
    memory = Memory(4_000_000_000, 4_000_000_000, 8_000_000_000, 0, 1_500_000_000)
    plan = Plan(
        device="cuda",
        processes=4,
        texts=10,
        examples=8,
        held_out=2,
        tokens_per_epoch=800,
        updates=100,
        epochs=50.0,
        examples_per_update=4,
        tokens_per_update=390.0,
        padding_share=0.125,
        parameters=1_000_000_000,
        trained=1_000_000_000,
        memory=memory,
        peak=18_000_000_000,
        disk=48_000_000,
        free=900_000,
        seconds_per_update=72.0,
        cpu_seconds_per_update=1.5,
    )
    said = "\n".join(plan.lines())
    assert "10 texts, 8 examples of 100.0 tokens on average, 800 tokens per epoch; 2 ex" in said
    assert "100 of 4 examples on 4 x cuda: 50 epochs" in said
    assert "12.5% of the positions" in said
    assert "about 17.5 GB per process: weights 4 GB" in said
    assert "Measured at its peak: 18 GB." in said
    assert "disk     48 MB for checkpoints and models; 900 kB are free" in said
    assert "time     about 2.0 h without evaluations" in said
    assert "5 maskable tokens per second, the median of 3 updates, each 1.5 s of CPU time" in said


@pytest.mark.slow
def test_of_several_processes_one_speaks(tmp_path):
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    asked = words({**SMALL, "output_dir": tmp_path / "run", "max_steps": 4})
    words_of_script = ["scripts/train.py", *write_inputs(tmp_path), *asked, "--dry_run"]
    done = subprocess.run(
        [sys.executable, *launch, *words_of_script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("updates  4 of 16 examples on 2 x cpu") == 1
    assert done.stdout.count("Nothing was written.") == 1
    assert not (tmp_path / "run").exists()
