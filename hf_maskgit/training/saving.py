"""A finished model: written whole for `from_pretrained`, or not at all."""

from pathlib import Path

from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from .adapters import has_adapters, merged, write_adapter
from .finiteness import check_finite
from .run_files import UNFINISHED, in_every_process, move_files, told_if_it_fails


def save_finished(
    accelerator: Accelerator, model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write model and tokenizer for `from_pretrained`; every process must call this.

    Adapters are merged into the weights, and lie beside them. All is written aside and moved
    into place when it is whole.

    Args:
        accelerator: knows the processes.
        model: as `accelerator` prepared it.
        tokenizer: its own.
        folder: made where it is missing.

    Raises:
        NotFiniteError: when weights are nan or infinite; what is in the folder stays.
        RuntimeError: when it cannot be written.
    """
    plain, own = accelerator.unwrap_model(model), accelerator.get_state_dict(model)
    weights = merged(plain, own)

    def write() -> None:
        if not accelerator.is_main_process:
            return
        check_finite("weights", weights.items())
        aside = folder / f"model{UNFINISHED}"
        advice = "Make room, and resume from 'latest': the last checkpoint is as it was."
        with told_if_it_fails(folder, advice):
            plain.save_pretrained(aside, state_dict=weights)
            tokenizer.save_pretrained(aside)
            move_files(aside, folder)
            if has_adapters(plain):
                write_adapter(plain, own, folder)

    in_every_process(accelerator, write)
    accelerator.wait_for_everyone()
