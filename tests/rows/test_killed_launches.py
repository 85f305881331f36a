"""Two processes of the launcher, killed and started again: the folder is that of one process."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.launches import completed, launched
from tests.support.project import ROOT
from tests.support.tiny import WORDS

SCRIPT = "scripts/generate.py"


@pytest.fixture
def words(saved, tmp_path):
    rows = [
        {"id": i, "text": " ".join(["[MASK]"] * (i % 2) + WORDS[: i * 5 % 17 + 1])}
        for i in range(240)
    ]
    file = tmp_path / "big.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = ("--samples_per_part", "40", "--batch_size", "4", "--steps", "40")
    return ("--model", saved, "--input_file", str(file), "--max_new_tokens", "20", *how)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed_while_it_writes(words, folder):
    """Start two processes under the launcher, and kill all three once some batches are written."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2"]
    launch += ["--mixed_precision=no", "--main_process_port=0"]
    launch += ["--config_file=scripts/accelerate_configs/cpu.yaml", SCRIPT]
    process = subprocess.Popen(
        [*launch, *words, "--output_file", f"{folder}/"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 240
    while sum(path.read_bytes().count(b"\n") for path in folder.glob("*.unfinished")) < 3:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    launcher = psutil.Process(process.pid)
    processes = [launcher, *launcher.children(recursive=True)]
    assert len(processes) >= 3
    for each in processes:
        each.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=60)
    process.communicate()


@pytest.mark.slow
def test_killed_processes_go_on_and_write_what_one_process_writes(words, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    done = completed(SCRIPT, *words, "--output_file", f"{one}/")
    assert done.returncode == 0, done.stderr
    killed_while_it_writes(words, two)
    begun = {path.name: path.read_bytes() for path in two.glob("*.unfinished")}
    assert begun
    finished = {path.name: path.stat().st_ino for path in two.glob("part-*-of-*")}
    launched(*words, "--output_file", f"{two}/", program=SCRIPT)
    assert contents(two) == contents(one)
    assert all((two / name).stat().st_ino == inode for name, inode in finished.items())
    lines = [line for path in sorted(two.glob("part-*")) for line in path.read_text().splitlines()]
    assert [json.loads(line)["id"] for line in lines] == list(range(240))


@pytest.mark.slow
def test_two_machines_write_each_row_once_with_the_bytes_of_one_process(words, tmp_path):
    """Two launchers on one host, two processes each: as two machines that share a disk."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=4"]
    launch += ["--num_machines=2", "--main_process_ip=127.0.0.1", f"--main_process_port={port}"]
    launch += ["--mixed_precision=no", "--config_file=scripts/accelerate_configs/cpu.yaml"]
    how = {
        "cwd": ROOT,
        "env": {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        "stderr": subprocess.PIPE,
    }
    folder = tmp_path / "machines"
    command = [SCRIPT, *words, "--output_file", f"{folder}/"]
    machines = [
        subprocess.Popen([*launch, f"--machine_rank={rank}", *command], **how) for rank in (0, 1)
    ]
    for machine in machines:
        told = machine.communicate(timeout=400)[1].decode()
        assert machine.returncode == 0, told
    done = completed(SCRIPT, *words, "--output_file", f"{tmp_path}/one/")
    assert done.returncode == 0, done.stderr
    assert contents(folder) == contents(tmp_path / "one")


@pytest.mark.slow
def test_the_command_of_the_readme_runs_as_it_is_shown(saved, tmp_path):
    """As it stands there: where the demonstration left its model, whatever devices there are."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    section = page.split("\n## Serve and spread\n")[1].split("\n## ")[0]
    (command,) = re.findall(r"^accelerate launch .*$", section, flags=re.M)
    shutil.copytree(saved, tmp_path / "runs/demo/model")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    rows = [{"id": i, "text": text} for i, text in enumerate(["w1 w2", "w3 [MASK]", "w4"])]
    (tmp_path / "big.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (part,) = (tmp_path / "out").glob("part-*.jsonl")
    found = [json.loads(line) for line in part.read_text().splitlines()]
    assert [{"id": row["id"], "text": row["text"]} for row in found] == rows


@pytest.mark.slow
def test_parquet_goes_in_and_out_over_two_processes(saved, tmp_path):
    import pyarrow
    import pyarrow.parquet

    texts = pyarrow.table({"prompt": [f"w{i % 30}" for i in range(50)], "weight": [0.5] * 50})
    pyarrow.parquet.write_table(texts, tmp_path / "in.parquet", row_group_size=7)
    words = ["--model", saved, "--input_file", tmp_path / "in.parquet", "--text_column", "prompt"]
    words += ["--max_new_tokens", "3", "--output_format", "parquet", "--samples_per_part", "20"]
    launched(*words, "--output_file", f"{tmp_path}/out/", program=SCRIPT)
    table = pyarrow.parquet.read_table(sorted((tmp_path / "out").glob("*.parquet")))
    assert table.drop(["sample", "seed", "output"]) == texts
    assert all(
        output.startswith(prompt)
        for output, prompt in zip(
            table["output"].to_pylist(), texts["prompt"].to_pylist(), strict=True
        )
    )
