"""Random streams that depend on a key alone.

Masks are keyed by (seed, epoch, example id) and generated rows by (row seed, pass), so that a batch
size, a resumed run or the neighbours in a batch change nothing.
"""

import numbers
from collections.abc import Iterable, Sequence

import torch

from .argument_checks import check_generator

_WORD = (1 << 64) - 1
_MOST_TEXTS = 100_000  # all texts of a call are decoded side by side, each with memory of its own


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
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise ValueError(f"`seed` must be an integer, got {seed!r}.")
    return keyed_generator(int(seed))


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
