"""A finished model: written whole for `from_pretrained` or not at all, and taken back."""

from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..core.modeling_maskgit import MaskGitForMaskedLM
from .adapters import has_adapters, merged, read_adapter, write_adapter
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

    def read() -> None:
        if not accelerator.is_main_process:
            return
        try:
            found = MaskGitForMaskedLM.from_pretrained(folder, dtype=plain.dtype).state_dict()
            adapters = read_adapter(folder) if has_adapters(plain) else {}
        except (OSError, ValueError) as error:
            raise RuntimeError(
                f"The best model cannot be read from {str(folder)!r} ({error}). Go on from the "
                "last checkpoint without `load_best_model_at_end` to have the last one."
            ) from error
        # The weights below adapters do not learn: they are as they were.
        names = plain.state_dict().keys()
        known = {name: tensor for name, tensor in {**found, **adapters}.items() if name in names}
        plain.load_state_dict(known, strict=False)

    in_every_process(accelerator, read)
    if accelerator.num_processes > 1:
        for tensor in plain.state_dict().values():
            tensor.copy_(broadcast(tensor))
