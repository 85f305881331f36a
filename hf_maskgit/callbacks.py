"""What `transformers.Trainer` needs to be told about masked diffusion."""

from .training.collator import SetEpochCallback

__all__ = ["SetEpochCallback"]
