"""What a few hundred written molecules are worth: valid, different, unlike each other, how large.

Enough to compare samplers and trainings; what compares with published rows is `molecules`.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from .scaffolds import load_rdkit, mean_similarities, read_molecule


class Estimate(NamedTuple):
    """A figure, and how far that of other samples would be from it."""

    value: float
    std_error: float


class MoleculeFigures(NamedTuple):
    """Figures of written molecules.

    Attributes:
        valid: share that RDKit can read.
        unique: share of different molecules among the valid ones; it falls with their number.
        diversity: 1 less the mean similarity of two valid ones, each beside itself too (IntDiv of
            MOSES), so that n molecules have at most 1 - 1/n.
        atoms: of a valid one, hydrogen left out.
    """

    valid: Estimate
    unique: float | None
    diversity: Estimate | None
    atoms: Estimate | None


def molecule_figures(texts: Sequence[str]) -> MoleculeFigures:
    """Measure written molecules.

    Args:
        texts: SMILES, one or more, valid or not.

    Returns:
        The figures; None where there is no valid one.

    Raises:
        ImportError: without RDKit.
        ValueError: without a text.
    """
    if not texts:
        raise ValueError("There is no molecule to measure; give one or more texts.")
    read = [molecule for molecule in map(read_molecule, texts) if molecule is not None]
    share = len(read) / len(texts)
    valid = Estimate(share, math.sqrt(share * (1 - share) / len(texts)))
    if not read:
        return MoleculeFigures(valid, None, None, None)
    smiles = [str(load_rdkit().MolToSmiles(molecule)) for molecule in read]
    likeness = mean_similarities(smiles)
    # A molecule is in twice as many pairs as it has a share of: the mean over pairs has twice the
    # error of a mean over molecules.
    diversity = Estimate(1 - statistics.fmean(likeness), 2 * _error_of_mean(likeness))
    atoms = [float(molecule.GetNumHeavyAtoms()) for molecule in read]
    size = Estimate(statistics.fmean(atoms), _error_of_mean(atoms))
    return MoleculeFigures(valid, len(set(smiles)) / len(smiles), diversity, size)


def _error_of_mean(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.inf
    return statistics.stdev(values) / math.sqrt(len(values))
