"""The training loop: updates, evaluations and checkpoints, resumable to the bit.

A run is a fixed sequence of updates. What an update sees depends on (seed, epoch, example) for its
masks, on (seed, epoch) for the order of the examples and on torch's global generator for dropout,
self-conditioning and what a critic is shown, and on nothing else: not on evaluations in between, on
the number of loader workers or on whether the run was killed and resumed.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, skip_first_batches
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..evaluation.bound import NelboOutput
from ..evaluation.critic import CriticAuroc
from .arguments import TrainArguments
from .building import make_accelerator
from .checkpoints import BEST_FOLDER, LOG_NAME, Progress, save_checkpoint
from .collator import DataCollatorForMaskGit
from .examples import batches_of_one_length
from .updates import (
    examples_per_update,
    freeze_left_out,
    make_optimizer,
    take_update,
    total_updates,
    updates_per_epoch,
)
from .watching import Window, evaluate_bound, evaluate_critic

# A checkpoint restores these with the order of the data and the optimizer, whatever is asked for.
_FIXED_OPTIONS = (
    "seed",
    "learning_rate",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
)


def kept_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Leave torch's global generators as they were: dropout must not notice what happens inside."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def update_batches(
    loader: DataLoader[Any],
    collator: DataCollatorForMaskGit,
    progress: Progress,
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    """Yield batches for ever, from where `progress` stands.

    Whoever takes them advances `progress`. Starting a loader draws from torch's global generator,
    and a resumed run starts one loader more than an uninterrupted one; so that state is put back.
    """
    while True:
        collator.set_epoch(progress.epoch)
        loader.set_epoch(progress.epoch)  # type: ignore[attr-defined]  # Accelerate's loaders have it
        batches = iter(skip_first_batches(loader, progress.updates_in_epoch))
        with kept_random_state(device):
            first = next(batches)
        yield from chain([first], batches)


class TrainingLoop:
    """Train a model on prepared examples.

    Args:
        accelerator: from `make_accelerator`.
        model: in float32; prepared here.
        tokenizer: the one the model was made with.
        train_examples: columns `input_ids` and `example_id`.
        eval_examples: the same, or None for no evaluation.
        options: how to train.
        num_workers: processes that prepare batches.

    Attributes:
        progress: where the run stands.
        bound: what the newest evaluation found on `eval_examples`; None before the first.
        auroc: how well the token critic judged there; None before the first, and where no critic
            learns.

    Raises:
        ValueError: when the examples do not fill one update.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: MaskGitForMaskedLM,
        tokenizer: PreTrainedTokenizerBase,
        train_examples: Dataset,
        eval_examples: Dataset | None,
        options: TrainArguments,
        num_workers: int = 0,
    ) -> None:
        self.accelerator, self.tokenizer, self.options = accelerator, tokenizer, options
        self.eval_examples = eval_examples
        self.bound: NelboOutput | None = None
        self.auroc: CriticAuroc | None = None
        freeze_left_out(model, options.train)  # before the optimizer looks for what learns
        update_size = examples_per_update(
            accelerator.num_processes,
            options.gradient_accumulation_steps,
            options.per_device_batch_size,
        )
        self.epoch_updates = updates_per_epoch(len(train_examples), update_size)
        self.num_updates = total_updates(
            options.num_train_epochs, self.epoch_updates, options.max_steps
        )
        self.progress = Progress(
            {
                "num_processes": accelerator.num_processes,
                "examples_per_update": update_size,
                "training_examples": len(train_examples),
                **{name: getattr(options, name) for name in _FIXED_OPTIONS},
            }
        )
        self.collator = DataCollatorForMaskGit.from_config(
            model.config,
            tokenizer,
            choice=options.choice,
            seed=options.seed,
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
        )
        loader: DataLoader[Any] = DataLoader(
            train_examples,  # type: ignore[arg-type]  # a map-style data set all the same
            # one process's share of a whole update: its times are stratified together, and it is
            # cut into micro-batches only after that
            batch_size=update_size // accelerator.num_processes,
            shuffle=True,
            drop_last=True,  # a short update would be a step of another size
            collate_fn=self.collator,
            num_workers=num_workers,
        )
        if options.gradient_checkpointing:
            model.activation_checkpointing_enable()
        optimizer, scheduler = make_optimizer(model, options, self.num_updates)
        self.model, self.optimizer, self.loader, self.scheduler = accelerator.prepare(
            model, optimizer, loader, scheduler
        )
        accelerator.register_for_checkpointing(self.progress)

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint; later lines of the log are forgotten.

        Raises:
            ValueError: when the run that wrote it trained other weights.
        """
        try:
            self.accelerator.load_state(str(checkpoint))
        except ValueError as error:
            # torch has no error class of its own for an optimizer of other weights
            if "parameter group" not in str(error):
                raise
            raise ValueError(
                f"The checkpoint {checkpoint.name!r} was written by a run that trained other "
                "weights; use the same `train`, which names the part that learns, or start a new "
                "run from its model."
            ) from error
        # A run that was killed has logged updates that are now taken again.
        log = self._log_file
        if self.accelerator.is_main_process and log.exists():
            lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= self.progress.step]
            log.write_text("".join(kept), encoding="utf-8")

    def run(self) -> Progress:
        """Take the updates that are left; log, evaluate and save at their times and at the end."""
        options, progress = self.options, self.progress
        batches = update_batches(self.loader, self.collator, progress, self.accelerator.device)
        window = Window()
        self.model.train()
        with tqdm(
            desc="Training",
            total=self.num_updates,
            initial=progress.step,
            unit="update",
            disable=not self.accelerator.is_main_process,
        ) as bar:
            while progress.step < self.num_updates:
                started = time.perf_counter()
                update = take_update(
                    self.accelerator,
                    self.model,
                    self.optimizer,
                    next(batches),
                    options.per_device_batch_size,
                    options.max_grad_norm,
                    options.train,
                )
                self.scheduler.step()
                progress.advance(self.epoch_updates)
                window.add(update, time.perf_counter() - started)
                bar.update()
                if self._due(options.log_every):
                    bar.set_postfix(self._log_training(window))
                    window = Window()
                if self._due(options.eval_every):
                    self._evaluate()
                if self._due(options.checkpoint_every):
                    self._save_checkpoint()
        if self.bound is None:  # resumed where nothing was left to do
            self._evaluate()
        return progress

    def save_model(self, folder: Path) -> None:
        """Write model and tokenizer for `from_pretrained`; every process must call this."""
        weights = self.accelerator.get_state_dict(
            self.model
        )  # of which each process may hold a part
        if self.accelerator.is_main_process:
            self.accelerator.unwrap_model(self.model).save_pretrained(folder, state_dict=weights)
            self.tokenizer.save_pretrained(folder)
        self.accelerator.wait_for_everyone()

    def _save_checkpoint(self) -> None:
        options = self.options
        save_checkpoint(
            self.accelerator, options.output_dir, self.progress.step, options.keep_checkpoints
        )

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.num_updates

    def _log_training(self, window: Window) -> dict[str, float]:
        values = {
            **{
                name: float(self.accelerator.reduce(total, "sum")) / window.num_updates
                for name, total in window.losses.items()
            },
            "learning_rate": self.scheduler.get_last_lr()[0],
            "tokens_per_second": float(window.num_tokens) / window.seconds,
        }
        self._log(values)
        return values

    def _evaluate(self) -> None:
        if self.eval_examples is None:
            return
        self.bound = evaluate_bound(
            self.accelerator,
            self.model,
            self.tokenizer,
            self.eval_examples,
            batch_size=self.options.eval_batch_size,
            num_samples=self.options.eval_samples,
            seed=self.options.seed,
        )
        nats = self.bound.nats_per_token
        found = {
            "eval_nats_per_token": nats,
            "eval_std_error": self.bound.nats_per_token_std_error,
        }
        if self._critic_learns:
            self.auroc = evaluate_critic(
                self.accelerator,
                self.model,
                self.tokenizer,
                self.eval_examples,
                batch_size=self.options.eval_batch_size,
                seed=self.options.seed,
            )
            if self.auroc.num_pairs:
                found["eval_critic_auroc"] = self.auroc.auroc
        self._log(found)
        if self._is_best(nats, found.get("eval_critic_auroc", 0.0)):
            self.save_model(Path(self.options.output_dir) / BEST_FOLDER)

    def _is_best(self, nats: float, auroc: float) -> bool:
        """Tell whether no evaluation was better, and remember this one if so."""
        progress = self.progress
        if self.options.train == "critic":  # the bound stays as it is
            if progress.best_auroc is not None and auroc <= progress.best_auroc:
                return False
            progress.best_auroc = auroc
            return True
        if progress.best_nats is not None and nats >= progress.best_nats:
            return False
        progress.best_nats = nats
        return True

    @property
    def _critic_learns(self) -> bool:
        model = self.accelerator.unwrap_model(self.model)
        return model.has_token_critic and self.options.train != "denoiser"

    @property
    def _log_file(self) -> Path:
        return Path(self.options.output_dir) / LOG_NAME

    def _log(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise RuntimeError(
                    f"The {name} is {value} after update {self.progress.step}. Lower "
                    "`learning_rate`, lengthen the warm-up, or use bf16 instead of fp16, and go on "
                    "from the last checkpoint."
                )
        self.accelerator.log(values, step=self.progress.step)
        if self.accelerator.is_main_process:
            with self._log_file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"step": self.progress.step, **values}) + "\n")


def train_by_length(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    examples: Dataset,
    options: TrainArguments,
    model_folder: Path,
) -> None:
    """Train one process on batches of one length each, without evaluation, and save the model.

    It takes the examples in the same batches in every epoch: for short runs on a slow machine,
    where half of the work would be padding.

    Args:
        model: in float32.
        tokenizer: the one the model was made with.
        examples: columns `input_ids` and `example_id`.
        options: how to train; `output_dir` is made.
        model_folder: where model and tokenizer go.
    """
    Path(options.output_dir).mkdir()
    loop = TrainingLoop(make_accelerator(options), model, tokenizer, examples, None, options)
    batches = batches_of_one_length(examples, options.per_device_batch_size, options.seed)
    loader = DataLoader(examples, batch_sampler=batches, collate_fn=loop.collator)  # type: ignore
    loop.loader = loop.accelerator.prepare(loader)
    loop.run()
    loop.save_model(model_folder)
