"""Random streams that depend on a key alone.

Masks are keyed by (seed, epoch, example id) and generated rows by (row seed, pass), so that a batch
size, a resumed run or the neighbours in a batch change nothing.
"""

import numbers
import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .argument_checks import check_generator
from .options import shown

_WORD = (1 << 64) - 1
# Of splitmix64, as the signed integers with these bits.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_MOST_TEXTS = 100_000  # all texts of a call are decoded side by side, each with memory of its own


def mix(*key: int) -> int:
    """Hash a tuple of integers to 63 bits (the finaliser of splitmix64, one round per integer)."""
    state = len(key)
    for part in key:
        # NumPy's integers would overflow, and a fraction is none.
        state = (state + (operator.index(part) & _WORD) + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state >> 1  # torch's seeds are signed


def mixed(*key: Tensor | int) -> Tensor:
    """Do as `mix` with tensors of integers, element by element, where the tensors are.

    Args:
        *key: long tensors that broadcast, or integers of 64 bits; at least one tensor.

    Returns:
        Long, at least 0.
    """
    state = torch.tensor(len(key))
    for part in key:
        device = part.device if isinstance(part, Tensor) else state.device
        state = _finalised(
            state.to(device) + (part if isinstance(part, Tensor) else signed(part)) + _GAMMA
        )
    return _shifted(state, 1)


def signed(number: int) -> int:
    """Return the signed integer with the last 64 bits of any."""
    return ((number & _WORD) ^ (1 << 63)) - (1 << 63)


def keyed_uniforms(keys: Tensor, count: int) -> Tensor:
    """Draw the first numbers of the streams of some keys: splitmix64, which a counter decides.

    Nothing is carried from one number to the next, so that all streams are made at once, on any
    device, and a longer draw begins as a shorter one.

    Args:
        keys: (R,) long, from `mixed`.
        count: numbers per stream.

    Returns:
        (R, count) float64 in [0, 1), multiples of 2^-53.
    """
    place = torch.arange(1, count + 1, device=keys.device)
    return _shifted(_finalised(keys[:, None] + place * _GAMMA), 11).double() * 2.0**-53


def _finalised(state: Tensor) -> Tensor:
    """Mix the bits of 64-bit integers (the finaliser of splitmix64); torch's products wrap."""
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Shift to the right, with zeros coming in and not the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def keyed_generator(*key: int) -> torch.Generator:
    """Make a CPU generator whose stream is a function of the integers in `key` alone."""
    return torch.Generator().manual_seed(mix(*key))


def fresh_seed(generator: torch.Generator | None = None) -> int:
    """Draw one seed from `generator`, or from torch's global generator when it is None."""
    device = generator.device if generator is not None else None
    draw = torch.randint(2**62, (), generator=generator, device=device)
    return int(draw)


def chosen_generator(seed: int | None, generator: torch.Generator | None) -> torch.Generator | None:
    """Return the generator that a caller's seed or generator stands for.

    Args:
        seed: an integer of the caller's, or None.
        generator: one of the caller's own, or None.

    Returns:
        Where the noise comes from: None is torch's global generator, for neither of the two.

    Raises:
        ValueError: for both, or a seed that is no integer.
    """
    _check_one_source(seed, generator)
    if seed is None:
        return generator
    check_seed(seed)
    return keyed_generator(int(seed))


def check_seed(seed: object) -> None:
    """Refuse a seed that is no integer, of whatever size.

    Raises:
        ValueError: showing it.
    """
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise ValueError(f"`seed` must be an integer, got {shown(seed)}.")


def _check_one_source(seed: object, generator: torch.Generator | None) -> None:
    check_generator(generator)
    if seed is not None and generator is not None:
        raise ValueError("Give `seed` or `generator`, not both; each decides the noise alone.")


def row_seeds(
    num_rows: int,
    repeats: int,
    seed: int | Sequence[int] | None,
    generator: torch.Generator | None,
    do_sample: bool,
) -> list[int]:
    """Give each returned row of a decoding its seed.

    Args:
        num_rows: B.
        repeats: texts per row.
        seed: one int, from which every returned row gets a seed of its own; or one per row or per
            returned row.
        generator: draws the seeds; None with no seed uses torch's global one.
        do_sample: False needs no seeds, and touches no generator.

    Raises:
        ValueError: for both a seed and a generator, a number of seeds that does not fit, or more
            returned rows than one call decodes.
    """
    returned = num_rows * repeats
    if repeats > 1 and returned > _MOST_TEXTS:
        raise ValueError(
            f"`num_return_sequences` = {repeats:,} makes {returned:,} texts of {num_rows} rows; a "
            f"call decodes its texts side by side, {_MOST_TEXTS:,} at most. Ask for fewer, and "
            "call again with another seed."
        )
    _check_one_source(seed, generator)
    if seed is None and not do_sample:
        return [0] * returned  # never looked at; no generator is touched
    if seed is None:
        return [fresh_seed(generator) for _ in range(returned)]
    if hasattr(seed, "tolist"):  # of a tensor or an array
        seed = seed.tolist()
    if isinstance(seed, str | float) or not isinstance(seed, numbers.Integral | Iterable):
        raise ValueError(
            f"`seed` must be an integer, or one per row or returned text, got {seed!r}."
        )
    if isinstance(seed, int | numbers.Integral):
        return [mix(int(seed), row) for row in range(returned)]
    seeds = list(seed)
    for one in seeds:
        if not isinstance(one, numbers.Integral):
            raise ValueError(f"`seed` must hold integers, got {one!r} among them.")
    seeds = [int(one) for one in seeds]
    if len(seeds) == returned:
        return seeds
    if len(seeds) == num_rows:
        return [mix(s, copy_) if copy_ else s for s in seeds for copy_ in range(repeats)]
    raise ValueError(
        f"`seed` has {len(seeds)} entries for {num_rows} rows and {returned} returned texts; give "
        "one int, one per row, or one per returned text."
    )
