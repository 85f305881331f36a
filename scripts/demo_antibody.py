"""Loops of an antibody, filled by a pretrained encoder as it is: half a minute, no training.

    python -m scripts.demo_antibody

It is the first act of `make demo`. The encoder AntiBERTy lies in the package `antiberty`; the chain
is the heavy one of adalimumab, as published (Protein Data Bank, entry 4NYL).
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation.antibodies import load_antiberty, spelled
from hf_maskgit.evaluation.loop_recovery import RESIDUES, recovered
from hf_maskgit.training.recipes import run_program
from hf_maskgit.visualization import print_unmasking, unmasking_lines

from .telling import quiet_libraries, say, told_of_slowness

CHAIN = (
    "EVQLVESGGGLVQPGRSLRLSCAASGFTFDDYAMHWVRQAPGKGLEWVSAITWNSGHIDYADSVEGRFTISRDNAKNSLYLQMNSLRAEDTAVYYC"
    "AKVSYLSTASSLDYWGQGTLVTVSS"
)
LOOPS = ("GFTFDDYA", "ITWNSGHI", "AKVSYLSTASSLDY")  # CDR1 to CDR3 by IMGT
SHOWN = 1  # of the loops, pass by pass
AROUND = 8  # residues beside the loop that are shown with it
IDLE_SECONDS = 0.6  # that the first loop takes on two idle cores; tells what a machine is like


@dataclass(frozen=True)
class FilledLoop:
    """A loop that was hidden and filled.

    Attributes:
        real: its residues in the antibody.
        written: those that the encoder put there.
        probabilities: that each had when it was revealed.
    """

    real: str
    written: str
    probabilities: list[float]


def main(minutes: float = 0.0, shorter: str | None = None) -> list[FilledLoop]:
    """Fill each loop and print what came out.

    Args:
        minutes: what comes after this takes on two idle cores; said where this machine is slow.
        shorter: a command that does the same in little, if there is one; said there as well.
    """
    quiet_libraries()
    model, tokenizer = load_antiberty()
    marked = CHAIN
    for loop in LOOPS:
        marked = marked.replace(loop, f" [{loop}] ")
    say(
        "An antibody holds on to its target with loops. This is one chain of adalimumab, a "
        "medicine against rheumatism, a letter for each of its building blocks (residues), its "
        "three loops in brackets:",
        *("", marked, ""),
        f"AntiBERTy, an encoder of {model.num_parameters() / 1e6:.0f} million parameters that "
        "learned to guess hidden residues of antibodies, becomes a generator as it is. Each loop "
        "is hidden and filled, in every pass the residue that it is surest of.",
    )
    start = time.perf_counter()
    outputs = [fill_loop(model, tokenizer, LOOPS[0])]
    factor = (time.perf_counter() - start) / IDLE_SECONDS
    say(*told_of_slowness(factor, minutes, torch.get_num_threads(), shorter))
    outputs += [fill_loop(model, tokenizer, loop) for loop in LOOPS[1:]]
    say("", f"Loop {SHOWN + 1}, with what stands beside it:", "")
    show_passes(tokenizer, LOOPS[SHOWN], outputs[SHOWN])
    loops = [as_filled(tokenizer, *pair) for pair in zip(LOOPS, outputs, strict=True)]
    print_loops(loops)
    return loops


def fill_loop(model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase, loop: str) -> Any:
    """Hide a loop and fill it, one residue per pass; returns the output of `generate`."""
    start = CHAIN.index(loop)
    text = spelled(CHAIN, range(start, start + len(loop)), str(tokenizer.mask_token))
    rows = tokenizer([text], return_tensors="pt")
    return model.generate(**rows, steps=len(loop), do_sample=False, return_dict_in_generate=True)


def as_filled(tokenizer: PreTrainedTokenizerBase, loop: str, written: Any) -> FilledLoop:
    """Gather what was written in the place of a loop."""
    new = written.reveal_steps[0] >= 0
    residues = tokenizer.convert_ids_to_tokens(written.sequences[0][new].tolist())
    probabilities = written.reveal_log_probabilities[0][new].exp().tolist()
    return FilledLoop(loop, "".join(residues), probabilities)


def show_passes(tokenizer: PreTrainedTokenizerBase, loop: str, written: Any) -> None:
    """Print how a loop came about, with its neighbours."""
    start = CHAIN.index(loop) + 1 - AROUND  # one token frames the chain
    part = slice(start, start + len(loop) + 2 * AROUND)
    tokens = tokenizer.convert_ids_to_tokens(written.sequences[0].tolist())
    print_unmasking(unmasking_lines(tokens[part], written.reveal_steps[0].tolist()[part]))


def print_loops(filled: list[FilledLoop]) -> None:
    """Print loops below each other: real, written, and how sure each residue was."""
    say("", "Each loop, hidden alone, and how sure the encoder was of each residue:")
    for number, loop in enumerate(filled, 1):
        right = round(recovered(loop.written, loop.real) * len(loop.real))
        cells = (loop.real, loop.written, [f"{100 * p:.0f}" for p in loop.probabilities])
        print()
        names = (f"loop {number}, real", "written", "sure (per cent)")
        for name, row in zip(names, cells, strict=True):
            print(f"{name:16}{''.join(f'{cell:>4}' for cell in row)}")
        chance = len(loop.real) / len(RESIDUES)
        print(f"{'':16}{right} of {len(loop.real)} are the real ones; {chance:.1f} by chance")
    say(
        "",
        "The first two loops are much alike in many antibodies, of which it has seen 558 million, "
        "perhaps this one too. The third is put together by chance in every cell: it is what makes "
        "antibodies different, and the encoder is not sure of it, and says so.",
    )


if __name__ == "__main__":
    run_program(main)
