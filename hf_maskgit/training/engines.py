"""The engines that share a run's work among processes, by what Accelerate was told to use."""

from accelerate import Accelerator

from .deepspeed_engine import ZeRO, asked_for_deepspeed
from .engine import Engine
from .sharding import FSDP2

COPIES = Engine()
DEEPSPEED = "DEEPSPEED"
# By the kind of processes that Accelerate names. Those that are not here hold whole copies; None
# cannot be trained with.
ENGINES: dict[str, Engine | None] = {
    "FSDP": FSDP2(),
    DEEPSPEED: ZeRO(),
    "MEGATRON_LM": None,
    "XLA": None,
}


def engine_of(accelerator: Accelerator) -> Engine:
    """Return the engine of a run.

    Args:
        accelerator: from `make_accelerator`.

    Raises:
        ValueError: for one of which no checkpoint can be written without pickles.
    """
    kind = DEEPSPEED if asked_for_deepspeed() else accelerator.distributed_type.value
    is_first_fsdp = kind == "FSDP" and not accelerator.is_fsdp2
    engine = None if is_first_fsdp else ENGINES.get(kind, COPIES)
    if engine is None:
        name = "the first version of FSDP" if is_first_fsdp else kind
        raise ValueError(
            f"Accelerate is set up for {name}, and a checkpoint of such a run cannot be written "
            "without pickles. Train with whole copies of the model, one per process (MULTI_GPU, "
            "MULTI_CPU), or with its weights in shards by FSDP2 (--use_fsdp --fsdp_version 2) or "
            "by DeepSpeed (--use_deepspeed --zero_stage 3)."
        )
    return engine
