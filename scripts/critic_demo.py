"""What a token critic and self-conditioning are worth on verses, in a quarter of an hour.

    make demo                                  # first: the generator and the verses that are used
    python -m scripts.critic_demo
    python -m scripts.critic_demo --quick      # the same in little, too short to learn much

The generator that `make demo` left learns on, three times from the same weights and with the same
verses in the same order:

1. with a head on its own hidden states as its critic. How well it tells right from wrong is
   measured on held-out verses of which half of the tokens were filled in, within each verse and
   over the filled tokens alone (AUROC; 0.5 is chance).
2. as it is, and
3. with self-conditioning, for as many updates. Its bound on held-out verses is measured with two
   passes of each masked text, as it was trained, and with one.

Two cores are enough. The number of updates is fixed: a slow machine takes longer and comes to the
same numbers. They are also written to `critic_demo.json`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from accelerate.utils import set_seed
from datasets import Dataset, DatasetDict, load_from_disk
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import CriticAuroc, NelboOutput, critic_auroc, evaluate_nelbo
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.training.arguments import ModelArguments, TrainArguments
from hf_maskgit.training.building import load_model
from hf_maskgit.training.by_length import train_by_length
from hf_maskgit.training.mixed_precision import FORMATS_HELP, autocast
from hf_maskgit.training.recipes import option, parse_options, run_program

from .demo import examples_of
from .telling import quiet_libraries, say, section

RESULTS = "critic_demo.json"


@dataclass
class CriticDemoOptions:
    """What may be changed."""

    demo_dir: str = option("runs/demo", "Folder that `make demo` wrote.")
    output_dir: str = option("runs/critic_demo", "New folder for the models and the numbers.")
    seed: int = option(0, "Seed of training and measuring.")
    updates: int = option(300, "Updates of each of the three runs.")
    learning_rate: float = option(2e-4, "Highest learning rate.")
    critic_loss_weight: float = option(1.0, "Weight of the critic's loss beside the denoiser's.")
    held_out_verses: int = option(1024, "Verses to measure on.")
    quick: bool = option(False, "Few updates and few verses, to see that all works.")
    mixed_precision: Literal["auto", "bf16", "no"] = option("auto", FORMATS_HELP)

    def __post_init__(self) -> None:
        """Make it little where that is asked for."""
        if self.quick:
            self.updates, self.held_out_verses = 4, 16


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the three trainings; returns the numbers, as the JSON file holds them."""
    (options,) = parse_options((CriticDemoOptions,), argv, "Measure critic and self-conditioning.")
    tokenizer, verses = load_demo(Path(options.demo_dir))
    folder = new_folder(Path(options.output_dir))
    quiet_libraries()
    train = examples_of(verses["train"], tokenizer, 1000 if options.quick else None)
    held_out = examples_of(verses["validation"], tokenizer, options.held_out_verses)

    with section("1. A critic on the generator's own hidden states"):
        model = start(options, tokenizer, token_critic="self")
        before = auroc_of(model, tokenizer, held_out, options)
        model = learn(model, tokenizer, train, options, folder / "critic")
        after = auroc_of(model, tokenizer, held_out, options)
        say(
            f"AUROC within verses, of {after.num_tokens:,} filled tokens, "
            f"{after.num_wrong / after.num_tokens:.0%} of them wrong: {before.auroc:.3f} before "
            f"training, {after.auroc:.3f} after {options.updates} updates."
        )

    bounds = {}
    with section("2. The same number of updates without self-conditioning"):
        plain = start(options, tokenizer)
        bounds["before"] = bound_of(plain, tokenizer, held_out, options)
        plain = learn(plain, tokenizer, train, options, folder / "plain")
        bounds["plain"] = bound_of(plain, tokenizer, held_out, options)
        print_bounds(bounds)

    with section("3. And with it"):
        model = start(options, tokenizer, self_cond=True)
        model = learn(model, tokenizer, train, options, folder / "self_conditioned")
        for name, looks_first in (("one_pass", False), ("two_passes", True)):
            bounds[name] = bound_of(model, tokenizer, held_out, options, looks_first)
        print_bounds(bounds)
        gain, error = gain_of(bounds["plain"], bounds["two_passes"])
        say(f"Two passes against the plain model: {gain:+.4f} +- {error:.4f} nats per token.")

    results = {
        "options": asdict(options),
        "critic": {
            "auroc_before": before.auroc,
            "auroc_after": after.auroc,
            "before": asdict(before),
            "after": asdict(after),
        },
        "bounds": {
            name: {
                "estimator": bound.estimator,
                "nats_per_token": bound.nats_per_token,
                "std_error": bound.nats_per_token_std_error,
            }
            for name, bound in bounds.items()
        },
        "two_passes_minus_plain": {"nats_per_token": gain, "std_error_over_verses": error},
    }
    (folder / RESULTS).write_text(figures_text(results) + "\n", encoding="utf-8")
    return results


def load_demo(folder: Path) -> tuple[PreTrainedTokenizerBase, DatasetDict]:
    """Take up what `make demo` left, its split included: its model must not have seen the verses.

    Raises:
        ValueError: when it is not there.
    """
    for part in ("model", "verses"):
        if not (folder / part).is_dir():
            raise ValueError(
                f"{str(folder)!r} holds no folder {part!r}; run `make demo` first, or name the "
                "folder that it wrote with --demo_dir."
            )
    verses = load_from_disk(str(folder / "verses"))
    assert isinstance(verses, DatasetDict)
    return AutoTokenizer.from_pretrained(folder / "model"), verses


def new_folder(folder: Path) -> Path:
    """Make the folder for the results.

    Raises:
        ValueError: when it holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"The folder {str(folder)!r} is not empty; remove it, or name another one with "
            "--output_dir."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def start(
    options: CriticDemoOptions, tokenizer: PreTrainedTokenizerBase, **parts: Any
) -> MaskGitForMaskedLM:
    """Load the generator with the parts it is to have."""
    set_seed(options.seed)
    if parts.get("token_critic"):
        parts["critic_loss_weight"] = options.critic_loss_weight
    path = str(Path(options.demo_dir) / "model")
    model = load_model(ModelArguments(encoder=path, **parts), tokenizer)
    # On a CPU and at this length the fused attention takes ten times as long backward.
    model.set_attn_implementation("eager")
    return model


def learn(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    options: CriticDemoOptions,
    folder: Path,
) -> MaskGitForMaskedLM:
    """Train with the library's own loop; what was saved is returned, to be measured."""
    training = TrainArguments(
        output_dir=str(folder),
        seed=options.seed,
        max_steps=options.updates,
        per_device_batch_size=32,
        learning_rate=options.learning_rate,
        warmup_steps=0.05,
        mixed_precision=options.mixed_precision,
        checkpoint_every=options.updates,
    )
    set_seed(options.seed)
    train_by_length(model, tokenizer, train, training, folder / "model")
    return MaskGitForMaskedLM.from_pretrained(folder / "model", attn_implementation="eager")


def auroc_of(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Any,
    options: CriticDemoOptions,
) -> CriticAuroc:
    """Measure the critic in the number format of training."""
    with autocast(options.mixed_precision, model.device):
        return critic_auroc(model, held_out, tokenizer, seed=options.seed)


def bound_of(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Any,
    options: CriticDemoOptions,
    self_condition: bool | None = None,
) -> NelboOutput:
    """Estimate the bound, with the same masks every time, in the number format of training."""
    with autocast(options.mixed_precision, model.device):
        return evaluate_nelbo(
            model,
            held_out,
            tokenizer,
            num_samples=4,
            seed=options.seed,
            self_condition=self_condition,
        )


def gain_of(first: NelboOutput, second: NelboOutput) -> tuple[float, float]:
    """Return second minus first in nats per token, and its standard error over the verses.

    The masks are the same, so that much of the chance in each falls out.
    """
    difference, num_tokens = second.nats - first.nats, first.num_tokens.sum()
    error = difference.std() * len(difference) ** 0.5
    return float(difference.sum() / num_tokens), float(error / num_tokens)


def print_bounds(bounds: dict[str, NelboOutput]) -> None:
    """Print the bounds so far, in nats per held-out token."""
    for name, bound in bounds.items():
        print(
            f"{name:12} {bound.nats_per_token:8.4f} +- {bound.nats_per_token_std_error:.4f}   "
            f"({bound.estimator})"
        )


if __name__ == "__main__":
    run_program(main)
