"""What a launcher tells a process of its place."""

import torch

from hf_maskgit.evaluation.processes import own_device, own_place


def test_without_a_launcher_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert own_place() == (0, 1)
    assert own_device().index in (None, 0)


def test_each_process_of_a_machine_has_a_device_of_its_own(monkeypatch):
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert own_place() == (5, 8)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert own_device() == torch.device("cpu")
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: cuda)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    assert own_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert own_device() == torch.device("cuda", 2)
