"""The training script, with a third update whose loss is no number."""

import sys

import torch

import hf_maskgit.training.loop as training
from scripts.train import main

_TAKE_UPDATE, _SPOILED = training.take_update, 3
_calls = iter(range(1, sys.maxsize))


def spoiled(accelerator, model, *others):
    """Take an update; the third is the one whose head gives no numbers."""
    hook = None
    if next(_calls) == _SPOILED:
        head = accelerator.unwrap_model(model).denoiser.cls
        hook = head.register_forward_hook(lambda _, __, output: output * torch.nan)
    try:
        return _TAKE_UPDATE(accelerator, model, *others)
    finally:
        if hook is not None:
            hook.remove()


if __name__ == "__main__":
    training.take_update = spoiled
    main()
