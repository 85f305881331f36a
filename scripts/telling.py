"""How the demonstrations speak: headings with times, paragraphs, and of a machine that is slow."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import fill

from datasets import disable_progress_bars
from transformers.utils import logging as transformers_logging

_FAR_SLOWER = 3.0  # times as long as usual; below, nothing is said


@contextmanager
def section(title: str) -> Iterator[None]:
    """Print a heading before and the time taken after."""
    print(f"\n{title}\n")
    start = time.perf_counter()
    yield
    print(f"\n({time.perf_counter() - start:.0f} s)", flush=True)


def say(*paragraphs: str) -> None:
    """Print paragraphs at a readable width."""
    for paragraph in paragraphs:
        print(fill(paragraph, 88, subsequent_indent="    "))


def quiet_libraries() -> None:
    """Leave the screen to the story: other packages report errors only."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("accelerate", "hf_maskgit"):
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bars()


def processes_per_core() -> float | None:
    """Return how many processes want each core now; None where the system does not tell."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows; systems that hide it
        return None


def told_of_slowness(factor: float, minutes: float, threads: int, shorter: str | None) -> list[str]:
    """Say that a machine is far slower than two idle cores, what that means, and what to do.

    Args:
        factor: how many times as long as there something has taken here.
        minutes: what is to come takes there; 0 where nothing is.
        threads: that torch computes with.
        shorter: a command that does the same in little; None where there is none.

    Returns:
        Paragraphs; none where the machine is fast enough.
    """
    if factor < _FAR_SLOWER:
        return []
    waiting = processes_per_core()
    shared = waiting is not None and waiting > 1
    why = "Other programs want its cores as well." if shared else "Its cores may be slow, or few."
    told = [f"This machine takes {factor:.0f} times as long as two idle cores. {why}"]
    if minutes:
        told[0] += (
            f" What is to come would take about {minutes * factor:.0f} minutes instead of "
            f"{minutes:.0f}; the results are the same but for rounding."
        )
    if threads > 1:
        told.append(
            "Where cores are shared, one thread is often much faster than several that wait for "
            "each other: stop with Ctrl-C and try OMP_NUM_THREADS=1 make demo."
        )
    return told if shorter is None else [*told, f"The same story in little: {shorter}"]
