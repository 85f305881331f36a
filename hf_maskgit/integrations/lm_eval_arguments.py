"""What the lm-evaluation-harness hands over as words of its command line: read, or refused."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from ..core.generation_config_maskgit import OPTIONS, unknown_options
from ..core.generation_output import OF_A_CALL
from ..core.options import shown
from ..evaluation.processes import num_processes

logger = logging.getLogger(__name__)

NAME = "hf_maskgit"  # of the model type
_LIKELIHOODS = ("bound", "exact")
_DEVICE_OF_HARNESS = "cuda:0"
# Options of `generate` that a task says in the harness's own words, or that are not its to say.
_SAID_OTHERWISE = {
    **dict.fromkeys(OF_A_CALL, "each request gets one text; leave it out"),
    "stop_strings": "its word for them is `until`",
}


def checked_batch_size(batch_size: Any, max_batch_size: Any) -> int:
    """Read the batch size, a word on the harness's command line."""
    size = int(batch_size) if str(batch_size).isdecimal() else batch_size
    if max_batch_size is not None or not isinstance(size, int) or size < 1:
        raise ValueError(
            "--batch_size is the number of masked texts per pass, 64 for example, and there is no "
            f"automatic one; got {shown(batch_size)}"
            + ("." if max_batch_size is None else f" with --max_batch_size {max_batch_size}.")
        )
    if size == 1:
        logger.warning(
            "Each masked text gets a pass of its own, and each request has dozens of them: name "
            "--batch_size 64, or what the memory holds. It changes no figure."
        )
    return size


def device_of(named: str | None) -> torch.device:
    """Choose where to run: the harness says "cuda:0" itself where nobody names a device."""
    here = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if named is None:
        return here
    if named == _DEVICE_OF_HARNESS and not torch.cuda.is_available():
        logger.info("There is no device %r here: the model runs on %r.", named, str(here))
        return here
    return torch.device(named)


def check_alone() -> None:
    """Refuse to be one of several processes, each of which would answer everything.

    Raises:
        ValueError: naming how many a launcher has started.
    """
    if num_processes() > 1:
        raise ValueError(
            f"A launcher has started {num_processes()} processes, and the model type {NAME!r} "
            "answers in one; start it without `accelerate launch`."
        )


def check_arguments(pretrained: Any, likelihood: Any, others: Mapping[str, Any]) -> None:
    """Refuse what is missing, does not exist, or is no choice."""
    if others.get("trust_remote_code"):
        raise ValueError(
            "No code of a model's folder is run; leave out --trust_remote_code. The model has to "
            "be one of hf_maskgit, or an encoder that transformers knows."
        )
    if others:
        raise ValueError(
            f"The model type {NAME!r} has no argument {next(iter(others))!r}; it has pretrained, "
            "dtype, likelihood, num_samples, most_tokens, max_length, window_stride, "
            "max_unknown_share and seed."
        )
    if not pretrained:
        raise ValueError(
            "Name the generator: --model_args pretrained=FOLDER, or a name on the Hub."
        )
    if likelihood not in _LIKELIHOODS:
        raise ValueError(
            f"`likelihood` must be one of {', '.join(_LIKELIHOODS)}, got {shown(likelihood)}."
        )


def options_of_generation(given: Mapping[str, Any]) -> tuple[list[str], int, dict[str, Any]]:
    """Read a task's options: stop strings, how many tokens, and what goes to `generate`.

    Raises:
        ValueError: for what is no option of `generate`, or is said otherwise here.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    options: dict[str, Any] = dict(normalize_gen_kwargs(dict(given)))
    until = [string for string in options.pop("until") if string]
    count = int(options.pop("max_gen_toks"))
    if not options["do_sample"]:
        options.pop("temperature", None)  # 0 there, and of no use to an argmax
    unknown = [name for name in options if name not in (*OPTIONS, "preset")]
    if unknown:
        raise ValueError(unknown_options(unknown))
    for name, instead in _SAID_OTHERWISE.items():
        if name in options:
            raise ValueError(f"`{name}` is no option of a task: {instead}.")
    return until, count, options
