"""The log of a run: lines that are read back, also where a killed run left half of one."""

import json
import signal
from dataclasses import asdict
from functools import partial

import pytest

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation.texts import SampleText, TextWriter
from hf_maskgit.training import evaluations as evals
from hf_maskgit.training.run_log import (
    SAMPLES_NAME,
    RunLog,
    append_line,
    cut_after,
    is_evaluation,
    read_lines,
)
from hf_maskgit.training.stopping import StopSignals
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import at_call, examples, log_lines, loop_of, trained_on

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def test_lines_are_read_back_and_halves_left_out(tmp_path):
    log = tmp_path / "log.jsonl"
    append_line(log, 1, {"loss": 2.5})
    append_line(log, 2, {"text": "λόγος\n"})
    with log.open("a") as lines:
        lines.write('3\n[]\n{"loss": 1.0}\n{"step": "four"}\n\n{"step": 5, "lo')
    assert list(read_lines(log)) == [{"step": 1, "loss": 2.5}, {"step": 2, "text": "λόγος\n"}]
    cut_after(log, 1)
    assert list(read_lines(log)) == [{"step": 1, "loss": 2.5}]
    with pytest.raises(ValueError, match=r"There is no log of a run: '.*none.jsonl': No such file"):
        list(read_lines(tmp_path / "none.jsonl"))


def test_of_an_evaluation_that_is_due_nothing_stays(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [(1, {"loss": 2.5}), (2, {"eval_std_error": 0.5}), (2, {"skipped_updates": 1})]
    for due, kept in ((False, lines), (True, [lines[0], lines[2]])):
        log.unlink(missing_ok=True)
        for step, values in (*lines, (3, {"loss": 1.0})):
            append_line(log, step, values)
        cut_after(log, 2, due)
        assert list(read_lines(log)) == [{"step": step, **values} for step, values in kept]


@pytest.mark.wide
def test_a_run_that_goes_on_twice_from_an_evaluation_tells_it_once(tmp_path, monkeypatch):
    """Killed behind an evaluation that a signal had put off, before the next checkpoint."""
    options = {"eval_every": 2, "eval_texts": 1, "eval_examples": examples(8, 1)}
    whole = loop_of(tmp_path / "whole", **options)
    whole.run()
    again = loop_of(tmp_path / "again", **options)
    with StopSignals(speaks=False) as again.stop, monkeypatch.context() as patch:
        at_call(patch, 1, partial(signal.raise_signal, signal.SIGTERM), "evaluate_bound", evals)
        with pytest.raises(KeyboardInterrupt):
            again.run()
    again.stop = None
    for number in (1, 2):
        again.resume(tmp_path / "again" / "checkpoint-2")
        with monkeypatch.context() as patch:
            at_call(patch, number)  # once before a further update, once behind it
            with pytest.raises(KeyboardInterrupt):
                again.run()
    again.resume(tmp_path / "again" / "checkpoint-2")
    again.run()
    told = [
        [
            [line["step"] for line in read_lines(tmp_path / name / file) if wanted(line)]
            for file in ("training_log.jsonl", SAMPLES_NAME)
            for wanted in (is_evaluation, lambda line: not is_evaluation(line))
        ]
        for name in ("whole", "again")
    ]
    assert told[0] == told[1]


@pytest.mark.wide
def test_texts_are_written_at_every_evaluation_and_change_nothing(tmp_path, caplog):
    """With or without them, and without held-out examples: the same weights, bit for bit."""
    caplog.set_level("INFO", "hf_maskgit")
    runs = {}
    prompts = ["w1 w2", "w3 [MASK] w4"]
    for name, asked in (("quiet", {}), ("busy", {"eval_texts": 2, "eval_prompts": prompts})):
        loop = loop_of(tmp_path / name, eval_every=2, **asked)
        loop.run()
        runs[name] = {key: weight.clone() for key, weight in loop.model.state_dict().items()}
    assert all((runs["busy"][name] == weight).all() for name, weight in runs["quiet"].items())
    assert not (tmp_path / "quiet" / SAMPLES_NAME).exists()
    lines = list(read_lines(tmp_path / "busy" / SAMPLES_NAME))
    assert [line["step"] for line in lines] == [2] * 4 + [4] * 4 + [6] * 4
    for step in (0, 4, 8):
        assert [line["prompt"] for line in lines[step : step + 4]] == [
            p for p in prompts for _ in "ab"
        ]
        assert [line["seed"] for line in lines[step : step + 4]] == [x["seed"] for x in lines[:4]]
    assert lines[0]["text"].startswith("w1 w2")
    assert lines[0]["nats_per_token"] > 0
    assert f"nats): {lines[0]['text']!r}" in caplog.text
    assert "After update 2 (" in caplog.text


@pytest.mark.wide
def test_a_resumed_run_has_every_text_and_number_once(tmp_path):
    options = {"eval_every": 2, "eval_texts": 1, "eval_examples": examples(8, 1)}
    whole = loop_of(tmp_path / "whole", checkpoint_every=3, **options)
    whole.run()
    whole.resume(tmp_path / "whole" / "checkpoint-3")
    left = list(read_lines(tmp_path / "whole" / SAMPLES_NAME))
    assert [line["step"] for line in left] == [2]
    assert max(line["step"] for line in log_lines(tmp_path / "whole")) == 3
    whole.run()
    again = list(read_lines(tmp_path / "whole" / SAMPLES_NAME))
    assert [line["step"] for line in again] == [2, 4, 6]
    steps = [line["step"] for line in log_lines(tmp_path / "whole") if "eval_std_error" in line]
    assert steps == [2, 4, 6]
    # Where nothing is left to do, nothing is told a second time.
    whole.resume(tmp_path / "whole" / "checkpoint-6")
    whole.evaluations.bound = None
    whole.run()
    assert whole.bound is not None
    assert list(read_lines(tmp_path / "whole" / SAMPLES_NAME)) == again


@pytest.mark.wide
def test_texts_are_those_of_the_model_that_is_saved(tmp_path):
    """Where weights are averaged, of the averages."""
    loop = loop_of(tmp_path / "run", eval_texts=2, ema_decay=0.9)
    loop.run()
    loop.save_model(tmp_path / "run")
    saved = MaskGitForMaskedLM.from_pretrained(tmp_path / "run")
    texts = TextWriter(saved, word_tokenizer(), (), 2, loop.options.seed).write(saved)
    lines = list(read_lines(tmp_path / "run" / SAMPLES_NAME))
    assert lines == [{"step": 6, **asdict(text)} for text in texts]
    loop.model.eval()
    assert TextWriter(saved, word_tokenizer(), (), 2, 0).write(loop.model) != texts


@pytest.mark.wide
def test_a_run_writes_to_a_prompt_of_unknown_words_where_that_is_asked_for(tmp_path):
    asked = {"eval_texts": 1, "eval_prompts": "zz qq w1", "max_steps": 1, "max_length": 16}
    with pytest.raises(ValueError, match="raise `max_unknown_share`, which is 0.5"):
        trained_on(tmp_path, ["w1 w2 w3"] * 100, **asked)
    trained_on(tmp_path, ["w1 w2 w3"] * 100, max_unknown_share=1, **asked)
    (line,) = read_lines(tmp_path / "run" / SAMPLES_NAME)
    assert line["prompt"] == "zz qq w1"


@pytest.mark.wide
@pytest.mark.parametrize(
    ("way", "more", "written"),
    [
        ("sampled", {}, [8, 8]),
        ("window", {"end_fill": 16}, [14, 14]),
        ("sampled", {"streaming": True, "stream_lanes": 100}, None),
    ],
)
def test_a_model_that_stores_how_it_finds_lengths_is_trained_to_the_end(
    tmp_path, way, more, written
):
    """Samples and card leave the lengths to it; of a stream no lengths are known."""
    decoding = json.dumps({"num_tokens": way, "suppress_tokens": [3]})
    asked = {"eval_texts": 2, "max_steps": 1, "max_length": 16, "decoding": decoding, **more}
    trained_on(tmp_path, ["w1 w2 w3 w4 w5 w6 w7 w8"] * 100, **asked)
    texts = [line["text"] for line in read_lines(tmp_path / "run" / SAMPLES_NAME)]
    assert written in (None, [len(text.split()) for text in texts])
    assert len(texts) == 2
    assert "Written from nothing" in (tmp_path / "run" / "README.md").read_text()


def test_only_numbers_reach_the_trackers_of_numbers(tmp_path, monkeypatch):
    loop = loop_of(tmp_path / "run")
    told = []
    monkeypatch.setattr(loop.accelerator, "log", lambda values, step: told.append((step, values)))
    log = RunLog(loop.accelerator, tmp_path / "run")
    log.tell(3, {"loss": 1.0})
    log.tell_texts(3, [SampleText("", "w1", 7, None)])
    assert told == [(3, {"loss": 1.0})]
    (line,) = (tmp_path / "run" / SAMPLES_NAME).read_text().splitlines()
    assert json.loads(line) == {
        "step": 3,
        "prompt": "",
        "text": "w1",
        "seed": 7,
        "nats_per_token": None,
    }
