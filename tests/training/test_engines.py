"""Engines: which one a run has, and those that it cannot have."""

from types import SimpleNamespace

import pytest

from hf_maskgit.training.cost import SHARDED
from hf_maskgit.training.deepspeed_engine import ZeRO
from hf_maskgit.training.engine import Engine
from hf_maskgit.training.engines import COPIES, ENGINES, engine_of
from hf_maskgit.training.sharding import FSDP2


def accelerator_of(kind, is_fsdp2=False):
    return SimpleNamespace(distributed_type=SimpleNamespace(value=kind), is_fsdp2=is_fsdp2)


@pytest.mark.parametrize("kind", ["NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU"])
def test_processes_hold_whole_copies_unless_told_otherwise(kind):
    assert engine_of(accelerator_of(kind)) is COPIES
    assert type(COPIES) is Engine


def test_fsdp2_is_an_engine_of_its_own():
    assert isinstance(engine_of(accelerator_of("FSDP", is_fsdp2=True)), FSDP2)


def test_deepspeed_is_used_where_its_launcher_says_so(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert isinstance(engine_of(accelerator_of("MULTI_CPU")), ZeRO)


@pytest.mark.parametrize(
    ("kind", "named"),
    [("MEGATRON_LM", "MEGATRON_LM"), ("XLA", "XLA"), ("FSDP", "the first version of FSDP")],
)
def test_other_engines_are_refused_before_the_run(kind, named):
    with pytest.raises(ValueError, match=f"set up for {named}.*without pickles"):
        engine_of(accelerator_of(kind))


@pytest.mark.parametrize("stage", [2, 3])
def test_each_engine_lays_out_what_the_cost_is_computed_for(monkeypatch, stage):
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", str(stage))
    found = {engine.layout(None) for engine in (*ENGINES.values(), COPIES) if engine is not None}
    assert found <= set(SHARDED)
    assert f"ZeRO-{stage}" in found
