"""Signals: a run writes a checkpoint, says how to go on, and ends with the signal's code."""

import signal
import time

import pytest

import hf_maskgit.training.loop as training
from hf_maskgit.training import evaluations, stopping
from hf_maskgit.training.stopping import RunStopped, StopSignals
from scripts.train import main
from tests.support.tiny_training import (
    SMALL,
    at_call,
    examples,
    log_lines,
    log_of,
    loop_of,
    words,
    write_inputs,
)

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
RUN = {**SMALL, "validation_fraction": 0.1, "log_every": 4, "eval_every": 3}


@pytest.fixture(autouse=True)
def _signals_as_a_terminal_gives_them():
    """Whoever starts the tests in the background has some signals ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {signum: signal.signal(signum, handler) for signum, handler in usual.items()}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def signal_in_call(monkeypatch, name, number, signum):
    """Send this process a signal within a function of the loop's, in its n-th call."""
    module = training if hasattr(training, name) else evaluations
    at_call(monkeypatch, number, lambda: signal.raise_signal(signum), name, module)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The options of a run's inputs, and the folder of the run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    inputs = write_inputs(folder, num_texts=60)
    main([*inputs, *words({"output_dir": folder / "run", **RUN})])
    return inputs, folder / "run"


@pytest.mark.wide
@pytest.mark.parametrize(
    ("where", "call", "signum", "step"),
    [
        ("take_update", 3, signal.SIGTERM, 3),  # the evaluation after it is still due
        pytest.param("evaluate_bound", 1, signal.SIGINT, 3, marks=pytest.mark.slow),
        pytest.param("take_update", 5, signal.SIGHUP, 5, marks=pytest.mark.slow),
    ],
)
def test_a_signal_writes_a_checkpoint_that_goes_on_to_the_same_run(
    tmp_path, monkeypatch, whole, where, call, signum, step
):
    inputs, plain = whole
    with monkeypatch.context() as patched:
        signal_in_call(patched, where, call, signum)
        with pytest.raises(
            RunStopped, match=rf"checkpoint-{step}'; the same command goes on"
        ) as raised:
            main([*inputs, *words({"output_dir": tmp_path / "stopped", **RUN})])
    assert raised.value.exit_code == 128 + signum
    assert not (tmp_path / "stopped" / "run.lock").exists()
    recipe = tmp_path / "stopped" / "training_options.yaml"
    main([str(recipe), "--resume_from_checkpoint=latest"])
    stopped = tmp_path / "stopped"
    weights = [(run / "model.safetensors").read_bytes() for run in (plain, stopped)]
    assert weights[0] == weights[1]
    for name in ("loss", "eval_nats_per_token"):
        assert log_of(stopped, name) == log_of(plain, name)
    steps = [[line["step"] for line in log_lines(run)] for run in (plain, stopped)]
    assert steps == [[3, 4, 6, 6]] * 2


def test_a_signal_after_the_last_update_leaves_only_what_is_left(tmp_path, monkeypatch):
    loop = loop_of(tmp_path / "run", eval_examples=examples(8, 1), max_steps=2)
    signal_in_call(monkeypatch, "evaluate_bound", 1, signal.SIGTERM)
    with StopSignals(speaks=False) as loop.stop, pytest.raises(KeyboardInterrupt):
        loop.run()
    assert loop.progress.evaluation_due
    assert [line["step"] for line in log_lines(tmp_path / "run")] == [1, 2]
    loop.stop = None
    loop.run()
    assert [line["step"] for line in log_lines(tmp_path / "run")] == [1, 2, 2]


def test_an_echo_of_ctrl_c_is_none_and_a_second_one_ends_at_once(monkeypatch, capfd):
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # passed on by a launcher
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGINT
        monkeypatch.setattr(stopping, "_ECHO_SECONDS", 0.0)
        time.sleep(0.001)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err.count("a checkpoint is written after this update") == 1


def test_what_was_done_with_signals_before_is_done_after(monkeypatch):
    before = [signal.getsignal(signum) for signum in stopping._SIGNALS]
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with StopSignals(speaks=False) as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert [signal.getsignal(signum) for signum in stopping._SIGNALS] == before


def test_work_is_left_only_where_that_is_allowed():
    done = []

    def work():
        signal.raise_signal(signal.SIGTERM)
        done.append(1)

    with StopSignals(speaks=False) as stop:
        assert not stop.finished(work, may_abandon=True)
        assert not stop.finished(lambda: done.append(2), may_abandon=True), "asked before"
        assert stop.finished(lambda: done.append(3), may_abandon=False)
    assert done == [3]
