"""What every test relies on: no network, none of the user's caches, the same draws each time."""

import gc
import logging
import os
import tempfile

import hypothesis
import pytest

# huggingface_hub and datasets read these when a test module imports them, so after this file.
# A test that talks to a server of its own does so in a process with an environment of its own.
_hf_home = tempfile.TemporaryDirectory(prefix="hf_maskgit_tests_")
os.environ["HF_HOME"] = _hf_home.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Forked data-loading workers and the tokenizers' own threads do not go together.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# Tiny matrices gain nothing from a second thread, and lose much on a busy machine. torch reads this
# when it is first imported: not here, as the process that only hands out tests needs no torch.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

# torch and transformers are some 400,000 objects, which the collector of cycles would visit again
# and again: a tenth of all time. It comes by less often, and leaves alone what collection brought.
gc.set_threshold(100_000, 20, 100)


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before what is wide is left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from tests.support.durations import TESTS, default_tests
    from tests.support.grids import thin

    thin(config, items)
    config.stash[TESTS] = default_tests(items)


# Same examples in every run, and no time limit per example: a busy machine is not a defect.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _seed_the_global_generator() -> None:
    """Dropout, initial weights and whatever else draws from torch's global generator repeats."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _forget_what_was_warned_of() -> None:
    """A warning that is given once per process is given once per test."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.warning_once.cache_clear()


@pytest.fixture
def _fresh_accelerate():
    """Accelerate keeps device, number format and accumulation for the whole process: not beyond."""
    from accelerate.state import AcceleratorState, GradientState

    def forget() -> None:
        GradientState._reset_state()
        AcceleratorState._reset_state(reset_partial_state=True)

    forget()  # a run that a whole module shares was made before its first test
    yield
    forget()


@pytest.fixture
def _untouched_libraries(_fresh_accelerate):
    """A demonstration makes other packages quiet: not beyond its test."""
    import datasets
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    levels = {name: logging.getLogger(name).level for name in ("accelerate", "hf_maskgit")}
    yield
    transformers_logging.set_verbosity(verbosity)
    transformers_logging.enable_progress_bar()
    datasets.enable_progress_bars()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved generator of wide random weights, which writes many different texts: no card yet."""
    from tests.support.tiny import tiny_model, word_tokenizer

    path = tmp_path_factory.mktemp("generator")
    tiny_model().save_pretrained(path)
    word_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def saved(folder):
    """The same folder as a word of a command line."""
    return str(folder)


@pytest.fixture
def _nobody_is_logged_in(monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def a_token(monkeypatch, _nobody_is_logged_in):
    monkeypatch.setenv("HF_TOKEN", "hf_something")


@pytest.fixture
def no_process(monkeypatch):
    """The answers of a fresh process, without starting one: what this process answers."""
    from hf_maskgit import MaskGitForMaskedLM
    from hf_maskgit.hub import push
    from hf_maskgit.hub.reloading import answers_of
    from tests.support.tiny import word_tokenizer

    def answers(staged, *, with_package):
        return answers_of(MaskGitForMaskedLM.from_pretrained(staged), word_tokenizer())

    monkeypatch.setattr(push, "answers_in_a_fresh_process", answers)
