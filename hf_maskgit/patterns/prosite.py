"""Motifs of proteins in PROSITE's notation, as elements of residues.

PROSITE user manual, "Syntax rules": `C-x(2,4)-C-x(3)-[LIVMFYWC]` is a cysteine, two to four
residues of any kind, a cysteine, three of any kind, and one of the eight in brackets.
"""

import re
from collections.abc import Mapping

from ..core.options import shown
from ..core.pattern_automaton import MOST_STATES, Element

STANDARD = "ACDEFGHIKLMNPQRSTVWY"
_MOST = MOST_STATES - 1  # residues of an element: each makes a state
_ELEMENT = re.compile(r"(x|[A-Z]|\[[A-Z]+\]|\{[A-Z]+\})(?:\((\d+)(?:,(\d+))?\)|(\*))?")


def elements_of(motif: str, residues: Mapping[str, int]) -> list[Element]:
    """Read a motif.

    Args:
        motif: elements with "-" between them, each a residue, `x` for any of the twenty standard
            ones, `[..]` for one of several or `{..}` for any standard one but these, repeated
            `(n)` or `(n,m)` times or, behind a `*`, any number of times. `<` before the first and
            `>` behind the last say that the motif begins or ends the span, as it does anyway; so
            does a full stop behind it all.
            `[..>]` at the end is a residue of the brackets or nothing.
        residues: id of every residue that the vocabulary has, by its letter.

    Raises:
        ValueError: for something else, or a residue that the vocabulary lacks.
    """
    body = motif.strip().removesuffix(".").removeprefix("<").removesuffix(">")
    elements = []
    parts = body.split("-")
    for number, part in enumerate(parts):
        may_end = number == len(parts) - 1 and part.startswith("[") and part.endswith(">]")
        read = _ELEMENT.fullmatch(f"{part[:-2]}]" if may_end else part)
        if read is None:
            raise ValueError(
                f"{part!r} in the motif {motif!r} is no element of PROSITE's notation; elements "
                "are C, x, [LIVM] and {P}, repeated as in x(3), x(2,4) or x*, with '-' between."
            )
        named, fewest, most, endless = read.groups()
        letters = set(re.sub(r"[^A-Z]", "", named))
        missing = sorted(letters - residues.keys())
        if missing:
            raise ValueError(
                f"The motif {motif!r} names the residue {missing[0]}, for which this tokenizer has "
                f"no token; it has {''.join(sorted(residues))}."
            )
        if named[0] in "x{":
            letters = set(STANDARD) & residues.keys() - letters
        least = 0 if endless or may_end else int(fewest or 1)
        limit = None if endless else int(most or fewest or 1)
        if max(least, limit or 0) > _MOST:
            raise ValueError(
                f"{part!r} in the motif {shown(motif)} stands for more than {_MOST:,} residues, "
                "which is the limit; bound what repeats, or write x*."
            )
        if not letters or (limit is not None and limit < least):
            raise ValueError(f"{part!r} in the motif {motif!r} is met by no residues.")
        elements.append(Element(frozenset(residues[letter] for letter in letters), least, limit))
    return elements
