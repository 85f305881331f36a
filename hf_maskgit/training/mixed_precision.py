"""The number format of passes, where a device is to choose it: `auto` of `mixed_precision`.

Many processors have no products of bf16. What pretends to them is several times slower than
float32.
"""

import torch
from accelerate.utils import is_bf16_available

# What programs offer whose passes are in one of two formats.
FORMATS_HELP = (
    "Number format of the passes: 'no' is float32; 'auto' is bf16 where the device has products of "
    "it, and float32 elsewhere."
)


def multiplies_bf16(device: torch.device) -> bool:
    """Tell whether a device has products of bf16; of one that does not tell, they are hoped for."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return is_bf16_available(ignore_tpu=True)
    has = torch.cpu.get_capabilities()
    if has.get("architecture") == "x86_64":
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return bool(has.get("bf16", True))


def format_on(mixed_precision: str, device: torch.device) -> str:
    """Return what `auto` comes to on a device; anything else stays."""
    if mixed_precision != "auto":
        return mixed_precision
    return "bf16" if multiplies_bf16(device) else "no"


def autocast(mixed_precision: str, device: torch.device) -> torch.autocast:
    """Let passes be in bf16, or as they are.

    Args:
        mixed_precision: 'bf16', 'no' or 'auto'.
        device: of the model.
    """
    is_bf16 = format_on(mixed_precision, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=is_bf16)


def slow_format(mixed_precision: str | None, device: torch.device) -> str | None:
    """Return a warning where bf16 was asked of a device without products of it."""
    if mixed_precision != "bf16" or multiplies_bf16(device):
        return None
    return (
        f"Passes are in bf16, and this {device.type.upper()} has no products of it, so that they "
        "take longer than in float32. mixed_precision 'no' is float32, 'auto' leaves the choice to "
        "the device."
    )
