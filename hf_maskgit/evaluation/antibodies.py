"""Variable domains of antibodies: a pretrained encoder, real domains, and their IMGT numbering.

A domain is a text of one-letter residues. Numbers are those of IMGT, which give a residue of every
domain that has it the same name, such as "104" of the second cysteine or "111A" of an insertion.
The packages that are read (extra `antibodies`) are never imported but for the numbering itself.
"""

import importlib.util
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import BertTokenizer, PreTrainedTokenizerBase

from ..core.extras import needs
from ..core.modeling_maskgit import MaskGitForMaskedLM

# Complementarity-determining regions by their IMGT numbers: the loops that touch the antigen.
LOOPS = {"CDR1": range(27, 39), "CDR2": range(56, 66), "CDR3": range(105, 118)}
CHAINS = {"H": "heavy", "K": "kappa", "L": "lambda"}
_CYSTEINES, _TRYPTOPHAN = ("23", "104"), "41"
_J_MOTIF = ("118", "119", "121")  # [WF]-G-x-G, where the joining gene begins
_J_BEGINS = {"H": "W", "K": "F", "L": "F"}
_SHORTEST = 80  # residues of an open reading frame that may hold a domain

_BASES = "TCAG"
_AMINO_ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"  # NCBI's table 1
_CODE = dict(zip(map("".join, itertools.product(_BASES, repeat=3)), _AMINO_ACIDS, strict=True))

# Real sequences inside the package abstar, by what they are.
SETS = {
    "heavy": "test_1k.fasta",
    "heavy, HIV": "test_hiv_bnab_hcs.fasta",
    "light, HIV": "test_hiv_bnab_lcs.fasta",
}


class Domain(NamedTuple):
    """A numbered variable domain.

    Attributes:
        residues: its text.
        chain: a key of `CHAINS`.
        numbers: the IMGT number of each residue, in their order.
    """

    residues: str
    chain: str
    numbers: tuple[str, ...]

    def places(self, loop: str) -> list[int]:
        """List where the residues of a loop of `LOOPS` stand in the text."""
        return [i for i, n in enumerate(self.numbers) if int(re.sub(r"\D", "", n)) in LOOPS[loop]]

    def text_of(self, loop: str) -> str:
        """Return the residues of a loop."""
        return "".join(self.residues[i] for i in self.places(loop))


class Marks(NamedTuple):
    """What nearly every variable domain has.

    Attributes:
        cysteines: both of the bridge that holds it together, numbers 23 and 104.
        tryptophan: of its core, number 41.
        j_motif: W-G-x-G of heavy chains, F-G-x-G of light ones, numbers 118 to 121.
    """

    cysteines: bool
    tryptophan: bool
    j_motif: bool


def marks_of(domain: Domain) -> Marks:
    """Tell which of the conserved residues a domain has."""
    at = dict(zip(domain.numbers, domain.residues, strict=True))
    return Marks(
        all(at.get(number) == "C" for number in _CYSTEINES),
        at.get(_TRYPTOPHAN) == "W",
        [at.get(number) for number in _J_MOTIF] == [_J_BEGINS[domain.chain], "G", "G"],
    )


def load_antiberty(**options: Any) -> tuple[MaskGitForMaskedLM, PreTrainedTokenizerBase]:
    """Wrap AntiBERTy (arXiv 2112.07782), the encoder inside the package antiberty, as it is.

    Its checkpoint is read as tensors alone; no code of the package runs.

    Args:
        **options: of `MaskGitForMaskedLM.from_encoder`, such as `device_map`.

    Returns:
        The generator in eval mode and its tokenizer, whose texts are residues with blanks between.

    Raises:
        ImportError: when the package, or the release of it that holds weights, is not installed.
    """
    folder = _folder_of("antiberty", "Antibodies are written by its encoder AntiBERTy.")
    weights, words = (folder / "trained_models" / n for n in ("AntiBERTy_md_smooth", "vocab.txt"))
    if not (weights / "config.json").exists() or not words.exists():
        raise ImportError(
            f"The package antiberty in {str(folder)!r} holds no weights, as none does since its "
            "release 1.0; install the one before: pip install antiberty==0.1.3."
        )
    names = words.read_text(encoding="utf-8").split()
    tokenizer = BertTokenizer(vocab={n: i for i, n in enumerate(names)}, do_lower_case=False)
    asked = {"weights_only": True, **options}
    model = MaskGitForMaskedLM.from_encoder(str(weights), tokenizer=tokenizer, **asked)
    return model.eval(), tokenizer


def load_annotator() -> Any:
    """Return what numbers domains: an `Annotator` of immunum, for antibodies by IMGT.

    Raises:
        ImportError: when it is not installed.
    """
    with needs("Residues are numbered by the package immunum", "antibodies"):
        from immunum import Annotator
    return Annotator(chains=list(CHAINS), scheme="imgt")


def read_reads(name: str) -> list[str]:
    """Read nucleotide sequences of one of `SETS`.

    Raises:
        ImportError: when abstar is not installed.
    """
    how = "Real sequences come from its test data; what it asks for itself is not needed."
    path = _folder_of("abstar", how, "--no-deps abstar==0.8.0") / "test_data" / SETS[name]
    records = path.read_text(encoding="utf-8").split(">")[1:]
    return ["".join(record.split("\n")[1:]).upper().strip() for record in records]


def reading_frames(read: str) -> Iterator[str]:
    """Yield what a strand of DNA may code for: long enough stretches of residues in any frame."""
    for start in range(3):
        codons = (read[i : i + 3] for i in range(start, len(read) - 2, 3))
        protein = "".join(_CODE.get(codon, "*") for codon in codons)  # an unknown base ends one
        yield from (part for part in protein.split("*") if len(part) >= _SHORTEST)


def number(residues: str, annotator: Any) -> tuple[Domain, float] | None:
    """Find the variable domain in a text and number it.

    Args:
        residues: one-letter codes.
        annotator: of `load_annotator`.

    Returns:
        The domain and the annotator's confidence in it, in [0, 1]; None where there is none.
    """
    found = annotator.number(residues)
    if found.error is not None:
        return None
    text = "".join(found.numbering.values())
    return Domain(text, found.chain, tuple(found.numbering)), float(found.confidence)


def domains_of(reads: Iterable[str], annotator: Any) -> list[Domain]:
    """Find the whole variable domains in strands of DNA, one for each different CDR3.

    Whole is one with residues before its first loop, none of its three loops empty, and all
    conserved residues (`Marks`) in their places. Reads that share their CDR3 stem from one cell, as
    a rule; the first of them counts.

    Args:
        reads: nucleotides, the strand that codes.
        annotator: of `load_annotator`.
    """
    different: dict[tuple[str, str], Domain] = {}
    for read in reads:
        found = [one for part in reading_frames(read) if (one := number(part, annotator))]
        if not found:
            continue
        domain, _ = max(found, key=lambda one: one[1])
        if is_whole(domain):
            different.setdefault((domain.chain, domain.text_of("CDR3")), domain)
    return list(different.values())


def is_whole(domain: Domain) -> bool:
    """Tell whether a domain has its loops, something before them, and all conserved residues."""
    places = [domain.places(loop) for loop in LOOPS]
    return all(places) and places[0][0] > 0 and all(marks_of(domain))


def spelled(residues: str, hidden: Sequence[int], mask: str) -> str:
    """Write residues as the tokenizer reads them, those at some places as masks."""
    return " ".join(mask if i in set(hidden) else one for i, one in enumerate(residues))


def _folder_of(package: str, why: str, how: str = "'hf_maskgit[antibodies]'") -> Path:
    """Find an installed package's folder without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ImportError(f"The package {package} is not installed. {why} pip install {how}.")
    return Path(found.origin).parent
