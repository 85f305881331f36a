"""Number formats that a device chooses: by what its processor says that it has."""

import logging
from types import SimpleNamespace

import pytest
import torch

from hf_maskgit.training import mixed_precision
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.building import make_accelerator
from hf_maskgit.training.mixed_precision import (
    autocast,
    format_on,
    multiplies_bf16,
    slow_format,
)

CPU = torch.device("cpu")


def let_cpu_be(monkeypatch, has):
    monkeypatch.setattr(mixed_precision, "multiplies_bf16", lambda device: has)


@pytest.mark.parametrize(
    ("capabilities", "has"),
    [
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": False}, False),
        ({"architecture": "aarch64", "bf16": True}, True),
        ({"architecture": "riscv64"}, True),  # nobody says
    ],
)
def test_a_cpu_tells_what_it_has(monkeypatch, capabilities, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert multiplies_bf16(CPU) is has


def test_this_cpu_is_asked_by_torchs_own_words():
    assert torch.cpu.get_capabilities()["architecture"]
    if torch.cpu.get_capabilities()["architecture"] == "x86_64":
        assert {"avx512_bf16", "amx_bf16"} <= set(torch.cpu.get_capabilities())


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_is_asked_without_what_it_pretends_to(monkeypatch, has):
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda **options: asked.append(options) or has
    )
    assert multiplies_bf16(torch.device("cuda", 0)) is has
    assert asked == [{"including_emulation": False}]


@pytest.mark.parametrize("has", [True, False])
def test_of_other_devices_accelerate_knows(monkeypatch, has):
    monkeypatch.setattr(mixed_precision, "is_bf16_available", lambda ignore_tpu: has)
    assert multiplies_bf16(torch.device("mps")) is has


@pytest.mark.parametrize(("has", "chosen"), [(True, "bf16"), (False, "no")])
def test_auto_is_what_the_device_has(monkeypatch, has, chosen):
    let_cpu_be(monkeypatch, has)
    assert format_on("auto", CPU) == chosen
    assert [format_on(given, CPU) for given in ("bf16", "no", "fp16")] == ["bf16", "no", "fp16"]
    with autocast("auto", CPU):
        assert torch.is_autocast_enabled("cpu") is has
    with autocast("no", CPU):
        assert not torch.is_autocast_enabled("cpu")
    with autocast("bf16", CPU):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.usefixtures("_fresh_accelerate")
@pytest.mark.parametrize(("has", "chosen"), [(True, "bf16"), (False, "no")])
def test_a_training_has_what_auto_comes_to(monkeypatch, tmp_path, has, chosen):
    let_cpu_be(monkeypatch, has)
    options = TrainArguments(output_dir=str(tmp_path), use_cpu=True, mixed_precision="auto")
    assert make_accelerator(options).mixed_precision == chosen


@pytest.mark.usefixtures("_fresh_accelerate")
@pytest.mark.parametrize(("has", "given"), [(True, "bf16"), (False, "bf16"), (False, "no")])
def test_bf16_without_products_of_it_is_warned_of(monkeypatch, tmp_path, caplog, has, given):
    let_cpu_be(monkeypatch, has)
    options = TrainArguments(output_dir=str(tmp_path), use_cpu=True, mixed_precision=given)
    with caplog.at_level(logging.WARNING):
        make_accelerator(options)
    warned = "this CPU has no products of it" in caplog.text
    assert warned is (given == "bf16" and not has)


def test_the_warning_says_what_to_do(monkeypatch):
    let_cpu_be(monkeypatch, False)
    said = slow_format("bf16", CPU)
    assert said is not None
    assert "mixed_precision 'no' is float32" in said
    assert slow_format(None, CPU) is None


def test_what_accelerate_launch_says_is_warned_of_too(monkeypatch, tmp_path, caplog):
    let_cpu_be(monkeypatch, False)
    monkeypatch.setattr(
        "hf_maskgit.training.building.Accelerator",
        lambda **options: SimpleNamespace(
            mixed_precision="bf16", device=CPU, is_main_process=True, num_processes=1
        ),
    )
    monkeypatch.setattr("hf_maskgit.training.building.shard_on_cpus", lambda accelerator: None)
    monkeypatch.setattr(
        "hf_maskgit.training.building.engine_of",
        lambda accelerator: SimpleNamespace(check=lambda *given: None),
    )
    make_accelerator(TrainArguments(output_dir=str(tmp_path), use_cpu=True))
    assert "no products of it" in caplog.text
