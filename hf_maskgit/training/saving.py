"""A finished model: written whole for `from_pretrained` or not at all, and taken back."""

import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..core.modeling_maskgit import MaskGitForMaskedLM
from .adapters import has_adapters, merged, taken_apart, write_adapter
from .engines import engine_of
from .finiteness import check_finite
from .run_files import UNFINISHED, in_every_process, move_files, told_if_it_fails
from .shards import as_part_of, held, shape_of, whole_state


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
    plain = accelerator.unwrap_model(model)
    own = whole_state(plain, accelerator.is_main_process)
    weights = merged(plain, own)

    def write() -> None:
        if not accelerator.is_main_process:
            return
        check_finite("weights", weights.items())
        aside = folder / f"model{UNFINISHED}"
        advice = "Make room, and resume from 'latest': the last checkpoint is as it was."
        try:
            with told_if_it_fails(folder, advice):
                plain.save_pretrained(aside, state_dict=weights)
                tokenizer.save_pretrained(aside)
                move_files(aside, folder)
                if has_adapters(plain):
                    write_adapter(plain, own, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # its room may be what was missing

    in_every_process(accelerator, write)
    accelerator.wait_for_everyone()


@torch.no_grad()
def load_finished(accelerator: Accelerator, model: nn.Module, folder: Path) -> None:
    """Give a model the weights that `save_finished` wrote; every process must call this.

    One process reads them, and the others have them from it.

    Args:
        accelerator: knows the processes.
        model: as `accelerator` prepared it; its weights are replaced.
        folder: what `save_finished` wrote of the same run.

    Raises:
        RuntimeError: when they cannot be read.
    """
    plain = accelerator.unwrap_model(model)
    known: dict[str, Tensor] = {}

    def read() -> None:
        if not accelerator.is_main_process:
            return
        try:
            found = MaskGitForMaskedLM.from_pretrained(folder, dtype=plain.dtype).state_dict()
            known.update(taken_apart(plain, found, folder) if has_adapters(plain) else found)
        except (OSError, ValueError) as error:
            raise RuntimeError(
                f"The best model cannot be read from {str(folder)!r} ({error}). Go on from the "
                "last checkpoint without `load_best_model_at_end` to have the last one."
            ) from error

    in_every_process(accelerator, read)
    for name, tensor in plain.state_dict(keep_vars=True).items():
        if accelerator.is_main_process:
            value = known.get(name, held(tensor)).to(accelerator.device, tensor.dtype)
        else:
            value = torch.empty(shape_of(tensor), dtype=tensor.dtype, device=accelerator.device)
        value = broadcast(value) if accelerator.num_processes > 1 else value
        held(tensor).copy_(as_part_of(tensor, value))
    engine_of(accelerator).weights_changed(model)
