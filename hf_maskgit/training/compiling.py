"""The forward pass of a run, compiled: the same passes, by torch's compilers."""

import os
import shutil

import torch
from torch import nn

# Whose code is compiled by the system's C++ compiler where a model is on the CPU.
_NEEDS_CPP = "inductor"
_CPP_COMPILERS = ("g++", "clang++", "c++", "cl")


def check_backend(backend: str) -> None:
    """Refuse a compiler that torch has not.

    Raises:
        ValueError: naming those that it has.
    """
    known = torch._dynamo.list_backends(exclude_tags=())
    if backend not in known:
        raise ValueError(
            f"`torch_compile_backend` must be one of {', '.join(known)}, got {backend!r}."
        )


def compile_in_place(model: nn.Module, backend: str, device: torch.device) -> None:
    """Let every pass of a model go through a compiler; its `state_dict` keeps its names.

    Sizes are variables from the first pass on: a run that goes on takes its passes by the same code
    as one that was never interrupted, whatever the length of the texts that come first.

    Args:
        model: changed in place.
        backend: name of the compiler.
        device: where the model is.

    Raises:
        ValueError: where the compiler needs a C++ compiler and there is none.
    """
    compilers = filter(None, (os.environ.get("CXX"), *_CPP_COMPILERS))
    if device.type == "cpu" and backend == _NEEDS_CPP and not any(map(shutil.which, compilers)):
        raise ValueError(
            "`torch_compile` on a CPU needs a C++ compiler, and none was found. Install one, such "
            "as g++, name it in the environment variable CXX, or take another "
            "`torch_compile_backend`, such as 'aot_eager'."
        )
    model.compile(backend=backend, dynamic=True)
