"""The training loop: updates, evaluations and checkpoints, resumable to the bit.

A run is a fixed sequence of updates. What an update sees depends on (seed, epoch, example) for its
masks, on (seed, epoch) for the order of the examples and on torch's global generator for dropout,
self-conditioning and what a critic is shown, and on nothing else: not on evaluations in between, on
the number of loader workers or on whether the run was killed and resumed. Of these only the last,
a generator per process, knows how many processes share an update.
"""

import logging
import signal
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..evaluation.bound import NelboOutput
from ..evaluation.progress import ProgressBar
from .adapters import add_adapters
from .arguments import TrainArguments
from .averages import WeightAverages
from .batching import batches_of, collator_of
from .checkpoints import BEST_FOLDER, Progress, read_progress, save_checkpoint
from .compiling import compile_in_place
from .engines import engine_of
from .evaluations import Evaluations
from .finiteness import NotFiniteError
from .freezing import freeze_left_out, freeze_named
from .lengths import note_length_of, warn_of_unknown_lengths
from .optimizer import make_optimizer, set_schedule
from .run_facts import Facts, check_something_is_left, facts_of, what_changed
from .run_files import FolderGoneError, told_if_it_fails
from .run_log import RunLog
from .run_state import RunState
from .saving import load_finished, save_finished
from .skipping import left_out
from .stopping import StopSignals
from .streams import StreamedExamples
from .time_samplers import remember
from .updates import (
    Update,
    examples_per_update,
    take_update,
    total_updates,
    updates_per_epoch,
)
from .watching import Window
from .weighting import weigher_of

logger = logging.getLogger(__name__)


class TrainingLoop:
    """Train a model on prepared examples.

    Args:
        accelerator: from `make_accelerator`.
        model: in float32; prepared here.
        tokenizer: the one the model was made with.
        train_examples: columns `input_ids` and `example_id`, or a stream.
        eval_examples: a data set of these, or None for no evaluation.
        options: how to train.
        num_workers: processes that prepare batches.
        facts: what else shapes the run and must be the same when it is resumed, by name.
        max_unknown_share: see `Tolerance`, of the prompts of `eval_prompts`.

    Attributes:
        progress: where the run stands.
        averages: of the weights, which are measured and published in their place; None without
            `ema_decay`.
        stop: signals that end `run` after an update, with a checkpoint; None heeds none.
        evaluations: what is measured in between, on `eval_examples`.
        log: where its numbers go.

    Raises:
        ValueError: when the examples do not fill one update.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: MaskGitForMaskedLM,
        tokenizer: PreTrainedTokenizerBase,
        train_examples: Dataset | StreamedExamples,
        eval_examples: Dataset | None,
        options: TrainArguments,
        num_workers: int = 0,
        facts: Facts | None = None,
        max_unknown_share: float | None = None,
    ) -> None:
        self.accelerator, self.tokenizer, self.options = accelerator, tokenizer, options
        engine = engine_of(accelerator)
        self.stop: StopSignals | None = None
        self._window = Window()
        self.log = RunLog(accelerator, Path(options.output_dir))
        freeze_left_out(model, options.train)  # before the optimizer looks for what learns
        if options.lora_r:
            add_adapters(model, options, options.seed)
        freeze_named(model, options.freeze or ())
        update_size = examples_per_update(
            accelerator.num_processes,
            options.gradient_accumulation_steps,
            options.per_device_batch_size,
        )
        self.epoch_updates = updates_per_epoch(train_examples.num_rows, update_size)
        self.num_updates = total_updates(
            options.num_train_epochs, self.epoch_updates, options.max_steps
        )
        shaped_by = facts_of(
            accelerator,
            model.config,
            tokenizer,
            train_examples,
            eval_examples,
            options,
            self.num_updates,
            update_size,
        )
        note_length_of(model.config, train_examples, options.train != "critic")
        warn_of_unknown_lengths(model.config, model.generation_config)
        self._weigher = weigher_of(model.config, options.loss_weighting, options.clip_weights)
        self.progress = Progress({**shaped_by, **(facts or {})})
        self.collator = collator_of(model.config, tokenizer, options)
        self.batches = batches_of(
            train_examples, self.collator, accelerator, options, update_size, num_workers
        )
        if options.gradient_checkpointing:
            model.activation_checkpointing_enable()
        engine.shard(accelerator, model)
        optimizer, scheduler = make_optimizer(model, options, self.num_updates)
        self.model, self.optimizer, self.scheduler = engine.prepare(
            accelerator, model, optimizer, scheduler, options
        )
        plain = self._compiled(accelerator.unwrap_model(self.model))
        self.averages = WeightAverages(plain, options.ema_decay) if options.ema_decay else None
        self._state = RunState(accelerator, self.model, self.optimizer, self.averages)
        measured = eval_examples, options, self.progress, max_unknown_share
        self.evaluations = Evaluations(accelerator, self.model, tokenizer, *measured)

    def _compiled(self, model: MaskGitForMaskedLM) -> MaskGitForMaskedLM:
        if self.options.torch_compile:
            backend = self.options.torch_compile_backend or "inductor"
            compile_in_place(model, backend, self.accelerator.device)
        return model

    def resume(self, checkpoint: Path) -> None:
        """Go on from a whole checkpoint; later lines of the log are forgotten.

        Raises:
            ValueError: when the run that wrote it was another one, all differences named, or
                trained other weights, and for changes where no update is left.
        """
        allowed = self.options.allow_changes or ()
        changed = self.progress.load_state_dict(read_progress(checkpoint), allowed)
        check_something_is_left(changed, self.progress.step, self.num_updates)
        key = (self.options.seed, self.progress.step) if "num_processes" in changed else None
        sums = self._state.read(checkpoint, new_streams=key, new_optimizer="optim" in changed)
        self._window.load_state_dict(sums, self.accelerator.device)
        self.batches.read(checkpoint)
        set_schedule(self.scheduler, self.progress.step)
        if changed:
            logger.warning("Going on from %s with %s", checkpoint.name, what_changed(changed))
        self.log.cut_after(self.progress.step, self.progress.evaluation_due)

    def run(self) -> Progress:
        """Take the updates that are left; log, evaluate and save at their times and at the end.

        Raises:
            KeyboardInterrupt: when a signal asked to stop; a checkpoint was written.
            NotFiniteError: when a loss, a gradient or a weight is nan or infinite.
            FolderGoneError: when `output_dir` was removed; a checkpoint was written there anew.
            RuntimeError: when something cannot be written.
        """
        try:
            return self._run()
        except FolderGoneError as error:
            if self.accelerator.is_main_process:
                with told_if_it_fails(Path(self.options.output_dir), "Nothing could be saved."):
                    Path(self.options.output_dir).mkdir(parents=True, exist_ok=True)
            self._save_checkpoint()
            raise FolderGoneError(
                f"{error} What it has learned is saved there anew, in checkpoint-"
                f"{self.progress.step}, and all else is lost. Go on with the same options and "
                "--resume_from_checkpoint latest"
            ) from error

    def _run(self) -> Progress:
        options, progress = self.options, self.progress
        batches = self.batches.from_where_it_stands(progress)
        self.model.train()
        if progress.evaluation_due:  # a stop came in between
            self._evaluate()
        shown = self.accelerator.is_main_process
        with ProgressBar(
            "Training", self.num_updates, "update", done=progress.step, shown=shown
        ) as told:
            while progress.step < self.num_updates and not self.evaluations.patience_is_over:
                started = time.perf_counter()
                update = self.take_update(next(batches))
                self._note_measured(update)
                self._note_weights(update)
                self.scheduler.step()
                progress.advance(self.epoch_updates)
                self._window.add(update, time.perf_counter() - started)
                told.update()
                if self._due(options.log_every):
                    told.tell({**self._log_training(self._window), **self.evaluations.values()})
                    self._window = Window()
                progress.evaluation_due = self._due(options.eval_every)
                stopped = self._asked_to_stop()
                if progress.evaluation_due and not stopped:
                    self._evaluate()
                    stopped = self._asked_to_stop()
                ended = self.evaluations.patience_is_over
                if self._due(options.checkpoint_every) or stopped or ended:
                    self._save_checkpoint()
                if stopped:
                    raise KeyboardInterrupt
        self._end()
        return progress

    def _end(self) -> None:
        """Tell why the run ends early, where it does, and take the best model if that is asked."""
        if self.progress.step < self.num_updates:
            logger.info(
                "The run ends after update %d of %d: %d evaluations in a row were no better than "
                "the best.",
                self.progress.step,
                self.num_updates,
                self.progress.since_best,
            )
        if self.options.load_best_model_at_end and self.progress.since_best:
            folder = Path(self.options.output_dir) / BEST_FOLDER
            load_finished(self.accelerator, self.model, folder)
            if self.averages is not None:
                self.averages.begin_anew()
            self.evaluations.bound = None
        if self.bound is None:  # nothing was left to do, or of another model; the log knows it
            with self.published_weights():
                self.evaluations.measure(self.stop)

    def save_model(self, folder: Path) -> None:
        """Write model and tokenizer for `from_pretrained`, see `save_finished`."""
        with self.published_weights():
            save_finished(self.accelerator, self.model, self.tokenizer, folder)

    def published_weights(self) -> AbstractContextManager[None]:
        """Let the model have the weights that are measured and published, until the end of it."""
        return nullcontext() if self.averages is None else self.averages.in_place_of_weights()

    @property
    def bound(self) -> NelboOutput | None:
        """What the newest evaluation found on the held-out examples; None before the first."""
        return self.evaluations.bound

    def take_update(self, batch: dict[str, Tensor]) -> Update:
        """Take one update, see `updates.take_update`; where the run stands is not changed.

        Args:
            batch: this process's share, from `batches`.

        Raises:
            NotFiniteError: where it has no numbers, unless it is left out, which `progress` counts.
        """
        progress = self.progress
        try:
            update = take_update(
                self.accelerator,
                self.model,
                self.optimizer,
                batch,
                self.options.per_device_batch_size,
                self.options.max_grad_norm,
                self.options.train,
                self.batches.time_sampler.measure,
                self._weigher,
            )
        except NotFiniteError as error:
            return left_out(error, progress, self.options.on_nonfinite)
        progress.skipped_in_a_row = 0
        return update

    def _note_measured(self, update: Update) -> None:
        if update.measured is not None:
            measured = self.accelerator.reduce(update.measured, "sum")
            self.progress.time_moments = remember(self.progress.time_moments, measured)

    def _note_weights(self, update: Update) -> None:
        stepped = not (update.skipped or self.optimizer.step_was_skipped)  # as fp16 may
        if self.averages is not None and stepped:
            self.averages.update()

    def _asked_to_stop(self) -> bool:
        """Tell whether a signal came; processes agree, because each takes part in every update."""
        if self.stop is None:
            return False
        asked = self.stop.received is not None
        if self.accelerator.num_processes > 1:
            flag = torch.tensor(float(asked), device=self.accelerator.device)
            asked = bool(self.accelerator.reduce(flag, "sum"))
            if asked and self.stop.received is None:
                self.stop.received = int(signal.SIGTERM)
        return asked

    def _write_state(self, folder: Path) -> None:
        self._state.write(folder, self._window.state_dict())
        self.batches.write(folder)

    def _save_checkpoint(self) -> None:
        options = self.options
        save_checkpoint(
            self.accelerator,
            options.output_dir,
            self.progress,
            options.keep_checkpoints,
            self._write_state,
        )

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.num_updates

    def _log_training(self, window: Window) -> dict[str, float]:
        skipped = {"skipped_updates": window.num_skipped} if window.num_skipped else {}
        if not window.num_updates:  # all were left out
            self._log({**skipped, "learning_rate": max(self.scheduler.get_last_lr())})
            return {}
        values = {
            **{
                name: float(self.accelerator.reduce(total, "sum")) / window.num_updates
                for name, total in window.losses.items()
            },
            "learning_rate": max(self.scheduler.get_last_lr()),
            "tokens_per_second": float(window.num_tokens) / window.seconds,
        }
        self._log(
            {**values, **skipped, "tokens": int(window.num_tokens), "seconds": window.seconds}
        )
        return values

    def _evaluate(self) -> None:
        evaluations = self.evaluations
        with self.published_weights():
            if not evaluations.measure(self.stop):
                return  # a signal came; the evaluation is still due
        self.progress.evaluation_due = False
        if evaluations.texts:
            self.log.tell_texts(self.progress.step, evaluations.texts)
        found = evaluations.values()
        if not found:
            return
        self._log(found)
        if evaluations.note_best():
            self.save_model(Path(self.options.output_dir) / BEST_FOLDER)

    def _log(self, values: dict[str, float]) -> None:
        self.log.tell(self.progress.step, values)
