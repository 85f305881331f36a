"""What is compared of training as a whole: the loop here, and transformers' `Trainer`.

A work is a run from a model and tokenised texts: it shuffles, masks, learns, and logs every few
updates. It is timed from the beginning of its second pass on over so many updates, and ended before
the next, so that nobody saves anything; how long it took to start is told beside. Both have the
same weights, the same texts, which are of many lengths, as many of them per update, the same
attention, fused AdamW, clipping and logging. `Trainer` has transformers' own collator, which hides
as many tokens on average, and the plain encoder, whose head and loss are at every position.

Letters: B batch, L length of the longest text.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..evaluation.benchmark_rounds import (
    Contestant,
    beginning_of,
    counted_passes,
    header_of,
    measure,
    number_of_works,
    synchronise,
)
from ..evaluation.benchmark_shapes import BERT, ENCODERS, Sizes, mask_token_id
from ..evaluation.progress import ProgressBar
from .arguments import TrainArguments
from .building import make_accelerator
from .loop import TrainingLoop

_LOG_EVERY, _MANY = 10, 1_000_000  # updates
_LEARNING_RATE, _HIDDEN = 1e-4, 0.5
_UPDATES_OF_TEXTS = 20  # then they come again
_MEDIAN_SHARE, _SIGMA, _SHORTEST = 0.2, 0.6, 4  # of the log-normal lengths; the median's is of L


class Cell(NamedTuple):
    """One shape of model and texts.

    Attributes:
        name: of the shape.
        sizes: of it; `length` is that of the longest text, `steps` the updates timed.
        works: of `WORKS`, the floor first.
        rounds: timed at most.
    """

    name: str
    sizes: Sizes
    works: tuple[str, ...]
    rounds: int | None = None


Run = Callable[[MaskGitForMaskedLM, PreTrainedTokenizerBase, Dataset, Sizes, str], Any]


def trainer_run(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    texts: Dataset,
    sizes: Sizes,
    folder: str,
    **changes: Any,
) -> None:
    """Train the encoder alone as its owner would, with `Trainer` and transformers' collator."""
    options = TrainingArguments(
        output_dir=folder,
        max_steps=_MANY,
        per_device_train_batch_size=sizes.batch_size,
        learning_rate=_LEARNING_RATE,
        logging_steps=_LOG_EVERY,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_drop_last=True,
        use_cpu=model.device.type == "cpu",
        **changes,
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=_HIDDEN)
    trainer = Trainer(model.denoiser, options, data_collator=collator, train_dataset=texts)
    trainer.remove_callback(PrinterCallback)  # its lines would stand between ours
    trainer.train()


def our_run(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    texts: Dataset,
    sizes: Sizes,
    folder: str,
    **changes: Any,
) -> None:
    """Train as `scripts/train.py` does."""
    options = TrainArguments(
        output_dir=folder,
        max_steps=_MANY,
        per_device_batch_size=sizes.batch_size,
        learning_rate=_LEARNING_RATE,
        log_every=_LOG_EVERY,
        eval_every=_MANY,
        checkpoint_every=_MANY,
        use_cpu=model.device.type == "cpu",
        **changes,
    )
    TrainingLoop(make_accelerator(options), model, tokenizer, texts, None, options).run()


GROUPED = ", grouped by length"
FLOOR, OURS, AVERAGED = "Trainer", "loop", "loop, averages"
WORKS: dict[str, Run] = {
    FLOOR: trainer_run,
    OURS: our_run,
    AVERAGED: partial(our_run, ema_decay=0.999),
    FLOOR + GROUPED: partial(trainer_run, train_sampling_strategy="group_by_length"),
    OURS + GROUPED: partial(our_run, group_by_length=True),
}
ALL = tuple(WORKS)
_BASE = replace(BERT, batch_size=32, length=128)
_SMALL = Sizes("bert", 2, 64, 2, 128, 1_000, batch_size=32, length=64, steps=60)
CELLS = (
    Cell("training loop", replace(_BASE, steps=6), ALL, rounds=3),
    Cell("training loop, small", _SMALL, ALL),
)
QUICK_CELLS = (Cell("training loop, small", replace(_SMALL, steps=15), ALL[:2]),)


def make_tokenizer(sizes: Sizes) -> PreTrainedTokenizerBase:
    """Make a tokenizer of words that knows all ids of an encoder."""
    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": mask_token_id(sizes)}
    names = {number: name for name, number in special.items()}
    words = {names.get(i, f"w{i}"): i for i in range(sizes.vocab_size)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="[UNK]")),
        **{f"{name.strip('[]').lower()}_token": name for name in special},
    )


def make_texts(sizes: Sizes) -> Dataset:
    """Make framed texts of random words; the logarithms of their lengths are normal, as sentences'.

    Returns:
        Columns `input_ids` and `example_id`.
    """
    generator = torch.Generator().manual_seed(0)
    count = _UPDATES_OF_TEXTS * sizes.batch_size
    drawn = torch.randn(count, generator=generator).mul(_SIGMA).exp()
    lengths = (drawn * _MEDIAN_SHARE * sizes.length).long().clamp(_SHORTEST, sizes.length)
    mask_id = mask_token_id(sizes)
    rows = []
    for length in lengths.tolist():
        words = torch.randint(4, sizes.vocab_size - 1, (length - 2,), generator=generator)
        words += words >= mask_id  # any word but the mask
        rows.append([2, *words.tolist(), 3])
    return Dataset.from_dict({"input_ids": rows, "example_id": list(range(count))})


def measure_cell(cell: Cell, rounds: int, device: torch.device) -> dict[str, Any]:
    """Measure the runs of a cell in turn.

    Args:
        cell: its shape and works.
        rounds: timed.
        device: where.

    Returns:
        Sizes and timings, as JSON takes them.

    Raises:
        RuntimeError: for a run that did not learn, or made another number of passes.
    """
    rounds = min(rounds, cell.rounds or rounds)
    with tempfile.TemporaryDirectory() as folder:
        contestants = contestants_of(cell, device, Path(folder))
        with ProgressBar(cell.name, number_of_works(contestants, rounds), "run") as told:
            timings = measure(contestants, rounds, device, counts_bytes=False, told=told)
    return {**header_of(cell), "works": [t.as_dict() for t in timings]}


def contestants_of(cell: Cell, device: torch.device, folder: Path) -> list[Contestant]:
    """Build the model of a cell, and each work on a copy of it."""
    sizes = cell.sizes
    torch.manual_seed(0)
    tokenizer, texts = make_tokenizer(sizes), make_texts(sizes)
    encoder = AutoModelForMaskedLM.from_config(ENCODERS[sizes.encoder](sizes))
    model: Any = MaskGitForMaskedLM.from_encoder(encoder, tokenizer=tokenizer)
    model.to(device)
    return [
        _contestant(name, copy.deepcopy(model), tokenizer, texts, sizes, folder / str(number))
        for number, name in enumerate(cell.works)
    ]


def _contestant(
    name: str,
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    texts: Dataset,
    sizes: Sizes,
    folder: Path,
) -> Contestant:
    folder.mkdir()
    encoder = model.denoiser.base_model
    run = partial(WORKS[name], model, tokenizer, texts, sizes, str(folder))

    def check() -> Mapping[str, float]:
        began = time.perf_counter()
        beginning_of(run, encoder, 0)()
        start = time.perf_counter() - began
        learned = next(model.get_input_embeddings().parameters())
        before = learned.detach().clone()
        with counted_passes(encoder, sizes.steps) as shapes:
            run()
        moved = not torch.equal(learned, before)
        if len(shapes) != sizes.steps or not moved:
            raise RuntimeError(
                f"{name!r} was to learn in {sizes.steps} passes; it made {len(shapes)}, and its "
                f"weights have{'' if moved else ' not'} moved."
            )
        rows = sum(rows for rows, _ in shapes)
        positions = sum(rows * length for rows, length in shapes)
        return {
            "passes": len(shapes),
            "rows": rows,
            "positions": positions,
            "seconds to the first pass": start,
        }

    def seconds() -> float:
        times: list[float] = []

        def note(*_: Any) -> None:
            if len(times) in (1, sizes.steps + 1):  # or the host would wait for each
                synchronise(model.device)
            times.append(time.perf_counter())

        handle = encoder.register_forward_pre_hook(note)
        try:
            with counted_passes(encoder, sizes.steps + 1):
                run()
        finally:
            handle.remove()
        return times[-1] - times[1]

    return Contestant(name, run, FLOOR, check, seconds=seconds)
