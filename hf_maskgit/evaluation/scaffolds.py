"""Molecules around a scaffold: its open places, what keeps it, how different designs are.

Chemistry is RDKit's (extra `molecules`).
"""

import importlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core.extras import needs

FIELD = re.compile(r"\{(?P<name>[^\W\d]\w*)[^{}]*\}")
_RING_NUMBER = re.compile(r"\[[^\]]*\]|%[0-9]{2}|(?P<number>[0-9])")
_EMPTY_BRANCH = re.compile(r"\(\)")
_RADIUS, _BITS = 2, 1024  # of Morgan fingerprints, as MOSES takes them for IntDiv


class Place(NamedTuple):
    """An open place of a scaffold.

    Attributes:
        name: of its field.
        rings: numbers that rings may have there, lowest first.
        attached: whether an atom stands before it.
    """

    name: str
    rings: tuple[int, ...]
    attached: bool


def load_rdkit(module: str = "Chem") -> Any:
    """Import a module of RDKit.

    Raises:
        ImportError: saying how to install it.
    """
    with needs("Chemistry is left to RDKit", "molecules"):
        return importlib.import_module(f"rdkit.{module}")


def open_places(scaffold: str, most_rings: int = 3) -> list[Place]:
    """Find the open places of a scaffold, such as `c1ccc({right:1-9})cc1`.

    Args:
        scaffold: SMILES with fields of the infilling pipeline where atoms may be added.
        most_rings: ring numbers that a place gets at most; every one doubles its automaton.

    Raises:
        ValueError: for a scaffold without a field, or with all ring numbers open at one.
    """
    places, start = [], 0
    open_numbers: set[int] = set()
    for field in FIELD.finditer(scaffold):
        for found in _RING_NUMBER.finditer(scaffold, start, field.start()):
            if found["number"] is not None:
                open_numbers ^= {int(found["number"])}
        free = tuple(n for n in range(1, 10) if n not in open_numbers)[:most_rings]
        if not free:
            raise ValueError(
                f"The scaffold {scaffold!r} has all nine ring numbers open at {field[0]}; write it "
                "so that fewer rings are open there."
            )
        places.append(Place(field["name"], free, field.start() > 0))
        start = field.end()
    if not places:
        raise ValueError(
            f"The scaffold {scaffold!r} has no open place; write a field in braces where atoms may "
            "be added, as in c1ccc({right:1-9})cc1."
        )
    return places


def core_of(scaffold: str) -> Any:
    """Return the scaffold without what may be added, as a molecule of RDKit.

    Raises:
        ImportError: without RDKit.
        ValueError: where what is left is no molecule.
    """
    smiles = _EMPTY_BRANCH.sub("", FIELD.sub("", scaffold))
    molecule = read_molecule(smiles) if smiles else None
    if molecule is None:
        raise ValueError(
            f"The scaffold {scaffold!r} without its open places is {smiles!r}, which RDKit cannot "
            "read as a molecule."
        )
    return molecule


def read_molecule(smiles: str) -> Any | None:
    """Read SMILES; None for what is no molecule, without RDKit's complaint."""
    with load_rdkit("rdBase").BlockLogs():
        return load_rdkit().MolFromSmiles(smiles) if smiles else None


def keeps(molecule: Any, core: Any) -> bool:
    """Tell whether a molecule has the scaffold's atoms and bonds in it."""
    return bool(molecule.HasSubstructMatch(core))


def internal_diversity(smiles: Sequence[str]) -> float | None:
    """Compute IntDiv of MOSES (arXiv 1811.12823): 1 less the mean similarity of two molecules.

    Args:
        smiles: of valid molecules.

    Returns:
        In [0, 1]; None without any.
    """
    likeness = mean_similarities(smiles)
    return 1 - sum(likeness) / len(likeness) if likeness else None


def mean_similarities(smiles: Sequence[str]) -> list[float]:
    """Compute how like all molecules each of them is, in the mean, itself among them.

    Tanimoto similarity of Morgan fingerprints, in [0, 1].

    Args:
        smiles: of valid molecules.
    """
    generators = load_rdkit("Chem.rdFingerprintGenerator")
    similarities = load_rdkit("DataStructs").BulkTanimotoSimilarity
    generator = generators.GetMorganGenerator(radius=_RADIUS, fpSize=_BITS)
    prints = [generator.GetFingerprint(read_molecule(one)) for one in smiles]
    return [float(sum(similarities(one, prints))) / len(prints) for one in prints]


def draw_grid(smiles: Sequence[str], cores: Sequence[Any], per_row: int = 4) -> Any:
    """Draw molecules with their scaffold marked, as a picture of Pillow.

    Args:
        smiles: one or more valid molecules.
        cores: the scaffold of each.
        per_row: molecules beside each other.
    """
    molecules: list[Any] = [read_molecule(one) for one in smiles]
    return load_rdkit("Chem.Draw").MolsToGridImage(
        molecules,
        molsPerRow=per_row,
        subImgSize=(240, 150),
        highlightAtomLists=[m.GetSubstructMatch(c) for m, c in zip(molecules, cores, strict=True)],
        returnPNG=False,
    )
