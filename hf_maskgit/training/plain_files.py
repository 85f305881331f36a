"""Plain files, a text per line: read and written as such unless their name says otherwise."""

from pathlib import Path

from .recipes import read_text

# Endings that promise another form: a header or a bracket would pass for a text, a sequence that
# goes on over lines for several, and whoever opens what was written would find something else.
OTHER_FORMS = frozenset(
    ".json .jsonl .csv .tsv .parquet .arrow .feather .xlsx .fasta .fas .fa .faa .fna .fastq .fq "
    ".pdb .sdf .gz .bz2 .xz .zst .zip .pt .npy .safetensors".split()
)


def is_plain(path: str | Path) -> bool:
    """Tell whether a file's name leaves room for a text per line."""
    return Path(path).suffix.lower() not in OTHER_FORMS


def read_lines(path: str | Path) -> list[str]:
    """Read the lines of a text file, as data sets of texts are read: at their ends alone.

    `str.splitlines` would also cut a text at a form feed, or at what Unicode calls a separator.

    Raises:
        ValueError: as `read_text`, and for a file whose name promises another form.
    """
    if Path(path).is_file() and not is_plain(path):
        raise ValueError(
            f"{str(path)!r} is read as plain texts, one per line, which is not what its ending "
            "says; write such a file (.txt) from it."
        )
    text = read_text(path)
    return text.removesuffix("\n").split("\n") if text else []
