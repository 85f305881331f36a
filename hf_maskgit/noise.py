"""Random streams that depend on a key alone.

Masks are keyed by (seed, epoch, example id) and generated rows by (row seed, pass), so that a batch
size, a resumed run or the neighbours in a batch change nothing.
"""

import torch

_WORD = (1 << 64) - 1


def mix(*key: int) -> int:
    """Hash a tuple of integers to 63 bits (the finaliser of splitmix64, one round per integer)."""
    state = len(key)
    for part in key:
        state = (state + (part & _WORD) + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state >> 1  # torch's seeds are signed


def keyed_generator(*key: int) -> torch.Generator:
    """Make a CPU generator whose stream is a function of the integers in `key` alone."""
    return torch.Generator().manual_seed(mix(*key))


def fresh_seed(generator: torch.Generator | None = None) -> int:
    """Draw one seed from `generator`, or from torch's global generator when it is None."""
    device = generator.device if generator is not None else None
    draw = torch.randint(2**62, (), generator=generator, device=device)
    return int(draw)
