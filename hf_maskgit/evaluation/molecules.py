"""Molecules measured by MOSES' own code (arXiv 1811.12823), beside the rows that it published.

The package `molsets` asks for libraries of its time; with today's it works after four changes from
outside, made here where it is imported.
"""

import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

COLUMNS = (
    "valid",
    "unique@1000",
    "unique@10000",
    "FCD/Test",
    "FCD/TestSF",
    "SNN/Test",
    "SNN/TestSF",
    "Frag/Test",
    "Frag/TestSF",
    "Scaf/Test",
    "Scaf/TestSF",
    "IntDiv",
    "IntDiv2",
    "Filters",
    "Novelty",
)

# Means over three trainings, 30,000 molecules each, by `COLUMNS`: tables 2 and 3 of the
# paper.
_PUBLISHED = {
    "CharRNN": ".975 1 .999 .073 .520 .602 .565 1 .998 .924 .110 .856 .850 .994 .842",
    "VAE": ".977 1 .998 .099 .567 .626 .578 .999 .998 .939 .059 .856 .850 .997 .695",
    "AAE": ".937 1 .997 .556 1.057 .608 .568 .991 .990 .902 .079 .856 .850 .996 .793",
    "LatentGAN": ".897 1 .997 .297 .828 .537 .513 .999 .997 .887 .107 .857 .850 .974 .950",
}
PUBLISHED: Mapping[str, tuple[float, ...]] = {
    name: tuple(map(float, row.split())) for name, row in _PUBLISHED.items()
}

_HOW_TO_GET = (
    "Molecules are measured by the code of MOSES, whose package asks for older libraries than "
    "others allow. Install it without what it asks for: pip install --no-deps molsets==0.3.1 "
    "fcd_torch==1.0.7, and pip install 'hf_maskgit[molecules]'."
)


def load_moses() -> ModuleType:
    """Import MOSES, which needs three things that libraries have given up since.

    Raises:
        ImportError: saying how to install it, where it or a library of its is missing.
    """
    try:
        pandas = importlib.import_module("pandas")
        importlib.import_module("rdkit")
        importlib.import_module("matplotlib")  # it draws, and imports this unasked
        if "rdkit.six" not in sys.modules:  # of Python 2's time: one function is used
            six: Any = ModuleType("rdkit.six")
            six.iteritems = lambda mapping: iter(mapping.items())
            sys.modules["rdkit.six"] = six
        if not hasattr(pandas.DataFrame, "append"):
            pandas.DataFrame.append = lambda self, other, **options: pandas.concat(
                [self, other], **options
            )
        moses = importlib.import_module("moses")
        metrics: Any = importlib.import_module("moses.metrics.metrics")
    except ImportError as error:
        raise ImportError(f"{_HOW_TO_GET} ({error})") from error
    # Fragments are counted in whole numbers, whose squares today's scipy multiplies: of tens of
    # thousands of molecules the product has more than 63 bits.
    metrics.cos_distance = _cosine_distance
    return moses


def _cosine_distance(one: Any, other: Any) -> float:
    """Return 1 - the cosine between two vectors of counts."""
    cosine = importlib.import_module("scipy.spatial.distance").cosine
    return float(cosine(one.astype(float), other.astype(float)))


def moses_metrics(
    molecules: Sequence[str],
    train: Iterable[str] | None = None,
    device: str = "cpu",
    processes: int = 1,
) -> dict[str, float]:
    """Compute MOSES' table for generated molecules, against its test and scaffold test set.

    Args:
        molecules: SMILES, at least 10,000 of them for `unique@10000` to mean it.
        train: SMILES that were trained on, for novelty; None takes MOSES' training set.
        device: where ChemNet runs.
        processes: that share the work.

    Returns:
        The entries of `COLUMNS` and the distances of four properties, by MOSES' names; nan where
        there is nothing to compare, as without a single ring.

    Raises:
        ImportError: where MOSES is not installed.
    """
    moses = load_moses()
    found = moses.get_all_metrics(
        list(molecules),
        k=(1000, 10000),
        n_jobs=processes,
        device=device,
        train=None if train is None else list(train),
    )
    return {name: float(value) for name, value in found.items()}


def moses_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Write rows of figures as a Markdown table, the published ones below.

    Args:
        rows: figures by the name of what they are of.
    """
    published = {name: dict(zip(COLUMNS, row, strict=True)) for name, row in PUBLISHED.items()}
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in {**rows, **published}.items():
        cells = (f"{row[column]:.3f}" if column in row else "" for column in COLUMNS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
