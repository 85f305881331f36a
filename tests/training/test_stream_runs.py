"""Runs on streams: interrupted, killed, or on other processes, they end with the same weights."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scripts.train import main
from tests.support.tiny_training import (
    SMALL,
    assert_same_weights,
    at_call,
    log_of,
    repeated_symbols,
    words,
    write_inputs,
)
from tests.training.test_resuming import (
    KILLED,
    SMOOTH,
    STILL,
    assert_same_run,
    launched,
    run,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")

STREAM = {
    **SMALL,
    "max_steps": 14,
    "streaming": "true",
    "stream_lanes": 4,
    "shuffle_buffer": 9,
    "checkpoint_every": 3,
    "eval_every": 7,
}


def weights_of(folder):
    return load_file(Path(folder) / "model.safetensors")


def stream_inputs(folder, **changes):
    """Six files of 10 texts to learn from, so that a run of 14 updates makes a second pass."""
    inputs = write_inputs(folder, **changes)
    texts = repeated_symbols(60)
    for number in range(6):
        lines = [json.dumps({"text": text}) for text in texts[number::6]]
        (folder / f"part-{number}.jsonl").write_text("\n".join(lines))
    (folder / "held_out.txt").write_text("\n".join(repeated_symbols(10, seed=1)))
    inputs[inputs.index("--dataset") + 1] = str(folder / "part-*.jsonl")
    return [*inputs, "--eval_dataset", str(folder / "held_out.txt")]


@pytest.mark.wide
def test_a_run_on_a_stream_goes_on_exactly_with_workers_or_without(tmp_path, monkeypatch):
    inputs = stream_inputs(tmp_path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main([*inputs, *words({**STREAM, "output_dir": whole})])
    assert "A stream of `part-*.jsonl`" in (whole / "README.md").read_text()
    at_call(monkeypatch, 11)
    with pytest.raises(KeyboardInterrupt):
        main([*inputs, *words({**STREAM, "output_dir": broken, "num_workers": 2})])
    torch.manual_seed(99)
    recipe = broken / "training_options.yaml"
    main([str(recipe), "--resume_from_checkpoint=latest", "--num_workers=1"])
    assert_same_weights(weights_of(broken), weights_of(whole))
    for name in ("loss", "eval_nats_per_token"):
        assert log_of(broken, name) == log_of(whole, name)


def test_what_a_stream_cannot_do_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.train.make_accelerator", lambda _: pytest.fail("work was started"))
    inputs = [*write_inputs(tmp_path), "--output_dir", str(tmp_path / "run"), "--streaming"]
    for option, sentence in (
        ("--drop_empty_texts", "needs `max_steps`, the number of updates"),
        ("--group_by_length", "needs `max_steps`"),
    ):
        with pytest.raises(ValueError, match=sentence):
            main([*inputs, option])
    with pytest.raises(ValueError, match="nobody has seen all of a stream"):
        main([*inputs, "--max_steps=1", "--group_by_length"])


@pytest.mark.slow
def test_a_bad_row_stops_a_run_and_leaves_its_checkpoints(tmp_path):
    inputs = stream_inputs(tmp_path)
    lines = (tmp_path / "part-3.jsonl").read_text().splitlines()
    lines[8] = json.dumps({"text": "w1 [MASK]"})
    (tmp_path / "part-3.jsonl").write_text("\n".join(lines))
    options = {**STREAM, "shuffle_buffer": 2, "output_dir": tmp_path / "run", "num_workers": 1}
    with pytest.raises(ValueError, match=r"row 8 of lane 3 of .* contains the mask token"):
        main([*inputs, *words({**options, "checkpoint_every": 1})])
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
    assert not (tmp_path / "run" / "checkpoint-5").exists()
    lines[8] = json.dumps({"text": "w1 w2"})
    (tmp_path / "part-3.jsonl").write_text("\n".join(lines))
    main(
        [
            str(tmp_path / "run" / "training_options.yaml"),
            *("--resume_from_checkpoint=latest", "--allow_changes=training_data"),
        ]
    )
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_killed_run_on_a_stream_resumes_to_the_same_weights(tmp_path):
    inputs = stream_inputs(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = {**STREAM, "num_workers": 2, "ema_decay": 0.9}
    code, errors = run("scripts/train.py", *inputs, *words({"output_dir": whole, **options}))
    assert code == 0, errors
    code, errors = run("-c", KILLED, *inputs, *words({"output_dir": killed, **options}))
    assert code == -signal.SIGKILL, errors
    recipe = killed / "training_options.yaml"
    code, errors = run("scripts/train.py", recipe, "--resume_from_checkpoint=latest")
    assert code == 0, errors
    assert_same_weights(weights_of(killed), weights_of(whole))


@pytest.mark.slow
def test_a_run_on_a_mixture_of_streams_is_the_same_on_two_processes(tmp_path):
    inputs = stream_inputs(tmp_path, **STILL)
    (tmp_path / "more.txt").write_text("\n".join(repeated_symbols(30, seed=2)))
    inputs.insert(inputs.index("--dataset") + 2, str(tmp_path / "more.txt"))
    options = {**STREAM, **SMOOTH, "max_steps": 6, "checkpoint_every": 3, "eval_every": 3}
    inputs += ["--dataset_probs", "2", "1"]
    alone, both, grown = (tmp_path / name for name in ("alone", "both", "grown"))
    layouts = (
        {"per_device_batch_size": 4, "gradient_accumulation_steps": 2},
        {"per_device_batch_size": 2, "gradient_accumulation_steps": 2, "num_workers": 1},
    )
    main([*inputs, *words({**options, **layouts[0], "output_dir": alone})])
    launched(*inputs, *words({**options, **layouts[1], "output_dir": both}))
    assert len(list((both / "checkpoint-6").glob("stream_states_*.json"))) == 2
    assert_same_run(both, alone)
    shutil.copytree(alone, grown)
    shutil.rmtree(grown / "checkpoint-6")
    launched(
        grown / "training_options.yaml",
        *words({**layouts[1], "output_dir": grown}),
        *("--resume_from_checkpoint=latest", "--allow_changes", "num_processes"),
        *("per_device_batch_size", "gradient_accumulation_steps"),
    )
    assert_same_run(grown, alone)


@pytest.mark.wide
def test_a_run_on_a_stream_is_planned_without_counting_its_texts(tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    options = {**STREAM, "output_dir": tmp_path / "run", "dry_run": "true"}
    main([*stream_inputs(tmp_path), *words(options)])
    said = caplog.text + capsys.readouterr().out
    assert "a stream, whose texts nobody has counted; 10 examples held out" in said
    assert not (tmp_path / "run").exists()
