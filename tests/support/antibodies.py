"""Antibody domains made by hand, what numbers them, and a small generator of residues."""

from types import SimpleNamespace

import torch
from transformers import BertTokenizer

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation.antibodies import Domain
from hf_maskgit.evaluation.loop_recovery import RESIDUES
from tests.support.tiny_tokenizers import model_for

# As in most heavy chains, nobody has number 10 or 73; loops of 12, 10 and 13 residues.
NUMBERS = tuple(str(n) for n in range(1, 129) if n not in (10, 73))
CONSERVED = {"23": "C", "41": "W", "104": "C", "118": "W", "119": "G", "121": "G"}
CODONS = dict(
    zip(
        RESIDUES,
        "GCT TGT GAT GAA TTT GGT CAT ATT AAA CTT ATG AAT CCT CAA CGT TCT ACT GTT TGG TAT".split(),
        strict=True,
    )
)


class Annotator:
    """Numbers a text of as many residues as `NUMBERS` one by one; anything else is none."""

    def number(self, residues):
        if len(residues) != len(NUMBERS):
            return SimpleNamespace(error="no domain", chain=None, numbering=None, confidence=None)
        numbering = dict(zip(NUMBERS, residues, strict=True))
        chain = "H" if numbering["118"] == "W" else "K"
        return SimpleNamespace(error=None, chain=chain, numbering=numbering, confidence=0.5)


def domain(seed, **changes):
    """A whole heavy domain with random residues elsewhere, or with other ones at some numbers."""
    draws = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(RESIDUES), (len(NUMBERS),), generator=draws).tolist()
    at = {n: RESIDUES[i] for n, i in zip(NUMBERS, drawn, strict=True)} | CONSERVED
    at |= {number.removeprefix("at"): residue for number, residue in changes.items()}
    return Domain("".join(at.values()), "H", NUMBERS)


def coded(residues):
    """A strand that codes for residues, in the second frame, with an end behind."""
    return f"A{''.join(CODONS[one] for one in residues)}TAACC"


def residue_tokenizer():
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *RESIDUES]
    return BertTokenizer(vocab={name: i for i, name in enumerate(names)}, do_lower_case=False)


def residue_generator() -> MaskGitForMaskedLM:
    torch.manual_seed(0)
    return model_for(residue_tokenizer())
