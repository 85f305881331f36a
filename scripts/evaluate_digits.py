"""Let a generator write digits and restore halves of them, as pictures and in figures.

    python -m scripts.evaluate_digits --model runs/digits/training --dataset runs/digits/images \
        --output_dir runs/digits/evaluation

In the folder: `classes.png`, a line of images for each digit; `inpainting.png`, held-out digits,
the same with their lower half hidden, and restored three times; `passes.gif`, digits as they come
about; `figures.json`. The table says how often a classifier that learned from the same training
images, and is no part of the generator, reads the digit that was asked for, beside how often it
reads real held-out ones rightly; and how far images are from the nearest training image, in shades
per pixel, so that copies would show.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation.digits import (
    CLASSES,
    LEVELS,
    SIDE,
    DigitClassifier,
    nearest_distance,
    picture,
    pillow,
    write_animation,
)
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.hub.training_card import written_out
from hf_maskgit.training.recipes import (
    check_least,
    option,
    parse_options,
    required,
    run_program,
)
from hf_maskgit.training.sampler_arguments import OF_LENGTHS, check_samplers, samplers_of
from hf_maskgit.training.sources import check_columns, load_texts

PIXELS = SIDE * SIDE
SAMPLERS: list[dict[str, Any]] = [
    {"pace": "first_hitting", "anneal_temperature": False},
    {"steps": 16},
    {"steps": 8},
    {"order": "random", "steps": 8, "anneal_temperature": False},
]
RESTORED = 3  # times that each half is restored for the picture
SHOWN = 10  # images of a line


@dataclass
class DigitArguments:
    """Who writes, and what is measured."""

    model: str = required("Generator of digits: a folder or a name on the Hub.")
    dataset: str = required("Images, as scripts/prepare_digits.py writes them.")
    output_dir: str = required("Folder for pictures and figures.")
    samplers: str | None = option(
        None,
        "Options of `generate` for each sampler, a JSON list of objects; the first draws the "
        "pictures. Default: one reveal per pass, and three with fewer passes.",
    )
    num_images: int = option(100, "Images of each digit and sampler.")
    seed: int = option(0, "Seed of all images.")

    def __post_init__(self) -> None:
        """Check ranges."""
        check_least(self, num_images=SHOWN)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Write, measure, print the table, and return the figures."""
    (options,) = parse_options((DigitArguments,), argv, "Write and judge digits.")
    samplers = samplers_of(options.samplers, SAMPLERS, {"steps": 16}, decided=OF_LENGTHS)
    pillow()  # by which all is drawn in the end: said before anything is computed
    train, held_out = (read_images(options.dataset, split) for split in ("train", "validation"))
    classifier = DigitClassifier(*train)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model, _ = load_generator(options.model, device_map=device)
    check_samplers(model, samplers)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"real": judged(held_out[0], held_out[1], classifier, train[0])}
    print("| images | passes | classifier right | distance to the nearest of the training |")
    print("|---|---|---|---|")
    print(row_of("held-out, real", figures["real"]))
    digits = torch.arange(CLASSES).repeat_interleave(options.num_images)
    halves, rows = half_hidden(held_out[0], mask_of(model)), []
    for number, sampler in enumerate(samplers):
        name = written_out(sampler)
        empty = torch.full((len(digits), PIXELS), mask_of(model))
        for kind, asked, pixels in (("written", digits, empty), ("restored", held_out[1], halves)):
            done = write(model, asked, pixels, sampler, options.seed)
            images = done.sequences[:, 1:].cpu()
            found = judged(images, asked, classifier, train[0])
            found["passes"] = float(done.denoiser_passes.double().mean())
            rows.append({"kind": kind, "options": sampler, **found})
            print(row_of(f"{kind}, {name}", found), flush=True)
            if number == 0 and kind == "written":
                first = images.view(CLASSES, -1, PIXELS)[:, :SHOWN].reshape(-1, PIXELS)
                picture(first, SHOWN).save(folder / "classes.png")
    figures["samplers"] = rows
    draw_inpainting(model, held_out, samplers[0], options, folder / "inpainting.png")
    animate(model, samplers[0], options, folder / "passes.gif")
    (folder / "figures.json").write_text(figures_text(figures), encoding="utf-8")
    return figures


def read_images(dataset: str, split: str) -> tuple[Tensor, Tensor]:
    """Read pixels (M, 64) long and digits (M,) long.

    Raises:
        ValueError: for rows that are no images of digits.
    """
    rows = load_texts(dataset, None, split)
    what = "images, as scripts/prepare_digits.py writes them"
    check_columns(rows, dataset, ("pixels", "class"), what)
    classes = torch.tensor(rows["class"][:])[:, 0]
    return torch.tensor(rows["pixels"][:]), classes - LEVELS


def mask_of(model: MaskGitForMaskedLM) -> int:
    """Return the id of the mask."""
    return cast(int, model.config.mask_token_id)


def half_hidden(pixels: Tensor, mask: int) -> Tensor:
    """Return images with their lower half masked."""
    hidden = pixels.clone()
    hidden[:, PIXELS // 2 :] = mask
    return hidden


def write(
    model: MaskGitForMaskedLM, digits: Tensor, pixels: Tensor, sampler: dict[str, Any], seed: int
) -> Any:
    """Fill the masked pixels (M, 64) of images of digits (M,)."""
    return model.generate(
        torch.cat([LEVELS + digits[:, None], pixels], 1).to(model.device),
        seed=seed,
        num_return_sequences=1,
        return_dict_in_generate=True,
        **{"suppress_tokens": list(range(LEVELS, LEVELS + CLASSES)), **sampler},
    )


def judged(
    pixels: Tensor, digits: Tensor, classifier: DigitClassifier, train: Tensor
) -> dict[str, float]:
    """Measure images that are to show digits."""
    right = (classifier(pixels) == digits).double()
    return {
        "images": len(pixels),
        "accuracy": float(right.mean()),
        "standard_error": float((right.var(correction=0) / len(right)).sqrt()),
        "distance": float(nearest_distance(pixels, train).mean()),
    }


def row_of(name: str, found: dict[str, float]) -> str:
    """Write figures as a row of the table."""
    passes = f"{found['passes']:.0f}" if "passes" in found else ""
    accuracy = f"{found['accuracy']:.3f} ± {found['standard_error']:.3f}"
    return f"| {name} | {passes} | {accuracy} | {found['distance']:.2f} |"


def draw_inpainting(
    model: MaskGitForMaskedLM,
    held_out: tuple[Tensor, Tensor],
    sampler: dict[str, Any],
    options: DigitArguments,
    path: Path,
) -> None:
    """Draw ten held-out digits, one of each: whole, half hidden, and restored."""
    pixels, digits = held_out
    chosen = torch.stack([(digits == digit).nonzero()[0, 0] for digit in range(CLASSES)])
    whole, asked = pixels[chosen], digits[chosen]
    halves = half_hidden(whole, mask_of(model))
    restored = [
        write(model, asked, halves, sampler, options.seed + copy).sequences[:, 1:].cpu()
        for copy in range(RESTORED)
    ]
    picture(torch.cat([whole, halves, *restored]), CLASSES).save(path)


def animate(
    model: MaskGitForMaskedLM, sampler: dict[str, Any], options: DigitArguments, path: Path
) -> None:
    """Write two of each digit, and show them pass by pass."""
    digits = torch.arange(CLASSES).repeat(2)
    empty = torch.full((len(digits), PIXELS), mask_of(model))
    done = write(model, digits, empty, {**sampler, "output_history": True}, options.seed)
    write_animation([empty, *(text[:, 1:].cpu() for text in done.history)], CLASSES, path)


if __name__ == "__main__":
    run_program(main)
