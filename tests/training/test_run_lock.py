"""The lock: one run per folder, and none after a run was killed."""

import os
import runpy
import signal
import subprocess
import sys

import pytest

from hf_maskgit.rows import crowd_lock
from hf_maskgit.training import run_lock
from hf_maskgit.training.run_lock import LOCK_NAME, RunLock

# The file alone, without the package around it: an interpreter that starts in no time.
HOLDER = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("run_lock", sys.argv[1])
run_lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_lock)
with run_lock.RunLock(sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    words = [sys.executable, "-c", HOLDER, run_lock.__file__, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_in_one_folder_is_refused_with_the_first_ones_name(holder, tmp_path):
    said = rf"Another run writes to `output_dir` '{tmp_path}' \(process {holder.pid} on "
    with pytest.raises(ValueError, match=said), RunLock(tmp_path):
        pass


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_lock(holder, tmp_path, signum):
    holder.send_signal(signum)
    holder.wait()
    with RunLock(tmp_path):
        assert (tmp_path / LOCK_NAME).exists()
    assert not (tmp_path / LOCK_NAME).exists()


def test_two_runs_of_one_process_are_told_apart(tmp_path):
    with RunLock(tmp_path), pytest.raises(ValueError, match=r"\(this process\)"), RunLock(tmp_path):
        pass
    with pytest.raises(KeyError), RunLock(tmp_path):
        raise KeyError
    with RunLock(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match=r"Nothing can be written to `output_dir` '.*file/run'"):
        RunLock(tmp_path / "file" / "run").__enter__()

    def read_only(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(run_lock.os, "open", read_only)
    with pytest.raises(RuntimeError, match="Read-only file system. Name a folder that can"):
        RunLock(tmp_path).__enter__()


def test_a_system_that_cannot_tell_links_has_locks_too(tmp_path, monkeypatch):
    """Windows: its `os` has no such flag."""
    monkeypatch.delattr(os, "O_NOFOLLOW")
    alone, together = (runpy.run_path(module.__file__) for module in (run_lock, crowd_lock))
    assert alone["NO_LINK"] == together["NO_LINK"] == 0
    with alone["RunLock"](tmp_path), together["CrowdLock"](tmp_path / "crowd") as lock:
        assert lock.is_alone()


def test_a_link_in_the_locks_place_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "precious")
    with pytest.raises(RuntimeError, match="Nothing can be written"), RunLock(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_file_system_without_locks_is_spoken_of(tmp_path, monkeypatch, caplog):
    def none(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_lock.fcntl, "lockf", none)
    with RunLock(tmp_path):
        pass
    assert "has no locks (Function not implemented)" in caplog.text
