"""Write the handwritten digits of scikit-learn for scripts/recipes/digits.yaml.

    python -m scripts.prepare_digits --output_dir runs/digits

1,797 images of 8 by 8 pixels in 17 shades lie in the package scikit-learn itself. A row of the
data set has the shades of an image, ids 0..16 in `pixels`, and in `class` its digit as an id behind
these, 17 + digit: it is given, and the pixels are learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict

from hf_maskgit.evaluation.digits import LEVELS, load_digits
from hf_maskgit.training.prepared import save_splits
from hf_maskgit.training.recipes import option, parse_options, run_program


@dataclass
class DigitOptions:
    """Where the images go."""

    output_dir: str = option("runs/digits", "Folder for `images`.")
    validation_fraction: float = option(0.2, "Share of the images to hold out.")
    seed: int = option(0, "Seed of the held-out share.")

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` must lie between 0 and 1, got {self.validation_fraction}."
            )


def main(argv: Sequence[str] | None = None) -> DatasetDict:
    """Write the images, some of them held out."""
    (options,) = parse_options((DigitOptions,), argv, "Write images of digits.")
    pixels, digits = load_digits()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(options.seed))
    held_out = round(len(order) * options.validation_fraction)
    parts = {"train": order[held_out:], "validation": order[:held_out]}
    data = DatasetDict(
        {
            name: Dataset.from_dict(
                {
                    "class": (LEVELS + digits[part])[:, None].tolist(),
                    "pixels": pixels[part].tolist(),
                }
            )
            for name, part in parts.items()
        }
    )
    folder = Path(options.output_dir) / "images"
    save_splits(data, folder)
    print(f"{folder}: " + ", ".join(f"{name} {len(part):,}" for name, part in parts.items()))
    return data


if __name__ == "__main__":
    run_program(main)
