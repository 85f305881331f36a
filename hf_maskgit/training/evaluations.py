"""What an evaluation in between measures and lets the model write, and which model is the best."""

from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..evaluation.bound import NelboOutput
from ..evaluation.critic import CriticAuroc
from ..evaluation.texts import SampleText, TextWriter
from .arguments import TrainArguments
from .checkpoints import Progress
from .engines import engine_of
from .stopping import StopSignals
from .watching import evaluate_bound, evaluate_critic


class Evaluations:
    """Measure a model on held-out examples, and tell whether it is the best so far.

    Args:
        accelerator: knows the processes.
        model: as `accelerator` prepared it.
        tokenizer: its own.
        examples: held out; None measures nothing.
        options: how many passes and of what size, the seed, which part learns, and what is written.
        progress: remembers the best so far.
        max_unknown_share: see `Tolerance`, of the prompts.

    Attributes:
        bound: what the newest evaluation found; None before the first.
        auroc: how well the token critic judged there; None before the first, and where no critic
            learns.
        texts: what the model wrote then, from the same prompts every time.

    Raises:
        ValueError: for a prompt to which nothing can be written, and without examples where the
            best model is asked for.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        examples: Dataset | None,
        options: TrainArguments,
        progress: Progress,
        max_unknown_share: float | None = None,
    ) -> None:
        self.accelerator, self.model, self.tokenizer = accelerator, model, tokenizer
        self.examples, self.options, self.progress = examples, options, progress
        self.bound: NelboOutput | None = None
        self.auroc: CriticAuroc | None = None
        self.texts: list[SampleText] = []
        for name in ("patience", "load_best_model_at_end"):
            if getattr(options, name) and examples is None:
                raise ValueError(
                    f"`{name}` goes by the held-out texts, and there are none. Name `eval_split` "
                    "or `eval_dataset`, set `validation_fraction`, or leave it out."
                )
        self._writer: TextWriter | None = None
        if options.eval_texts:
            asked = options.eval_prompts or (), options.eval_texts, options.seed, max_unknown_share
            plain = accelerator.unwrap_model(model)
            with engine_of(accelerator).whole_weights(plain):  # it looks how long a text may be
                self._writer = TextWriter(plain, tokenizer, *asked)

    def measure(self, stop: StopSignals | None) -> bool:
        """Measure bound and critic, where there are examples, and let the model write.

        Args:
            stop: signals that end it; None heeds none.

        Returns:
            False where a signal came before the end, and nothing is known.
        """
        found: list[Any] = []
        texts: list[SampleText] = []
        examples, options = self.examples, self.options

        def work() -> None:
            plain = self.accelerator.unwrap_model(self.model)
            with engine_of(self.accelerator).whole_weights(plain):
                measure()

        def measure() -> None:
            if self._writer is not None:  # in every process: sharded weights need them all
                texts.extend(self._writer.write(self.accelerator.unwrap_model(self.model)))
            if examples is None:
                return
            common = self.accelerator, self.model, self.tokenizer, examples
            size, seed, samples = options.eval_batch_size, options.seed, options.eval_samples
            found.append(evaluate_bound(*common, batch_size=size, num_samples=samples, seed=seed))
            if self._critic_learns:
                found.append(evaluate_critic(*common, batch_size=size, seed=seed))

        if stop is None:
            work()
        elif not stop.finished(work, may_abandon=self.accelerator.num_processes == 1):
            return False
        self.texts = texts
        self.bound, self.auroc, *_ = *found, None, None
        return True

    def values(self) -> dict[str, float]:
        """Return what the newest evaluation found, by the names of the log; {} before the first."""
        if self.bound is None:
            return {}
        found = {
            "eval_nats_per_token": self.bound.nats_per_token,
            "eval_std_error": self.bound.nats_per_token_std_error,
        }
        if self.auroc is not None and self.auroc.num_pairs:
            found["eval_critic_auroc"] = self.auroc.auroc
        return found

    def note_best(self) -> bool:
        """Tell whether no evaluation before the newest was better, and remember it if so."""
        is_best = self._is_best()
        self.progress.since_best = 0 if is_best else self.progress.since_best + 1
        return is_best

    @property
    def patience_is_over(self) -> bool:
        """Whether the run is to end, because too many evaluations in a row were no better."""
        patience = self.options.patience
        return patience is not None and self.progress.since_best >= patience

    def _is_best(self) -> bool:
        found, progress = self.values(), self.progress
        if self.options.train == "critic":  # the bound stays as it is
            auroc = found.get("eval_critic_auroc", 0.0)
            if progress.best_auroc is not None and auroc <= progress.best_auroc:
                return False
            progress.best_auroc = auroc
            return True
        nats = found["eval_nats_per_token"]
        if progress.best_nats is not None and nats >= progress.best_nats:
            return False
        progress.best_nats = nats
        return True

    @property
    def _critic_learns(self) -> bool:
        model: MaskGitForMaskedLM = self.accelerator.unwrap_model(self.model)
        return model.has_token_critic and self.options.train != "denoiser"
