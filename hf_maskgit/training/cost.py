"""What training costs in memory, operations and time: the formulas, from sizes alone.

N parameters of which T learn, on D devices. Bytes per device:

    weights 4 N   gradients 4 T   AdamW 8 T   averages 4 T   each divided by D where it is sharded

(4 T of Muon; 12 T of AdamW where ZeRO-2 learns on a copy of its part of the weights)

and activations beside them, which grow with the tokens of a forward pass. Operations per token of
an update (forward once, backward twice as much; Kaplan et al., arXiv 2001.08361, appendix C, with
the attention of length L over both directions):

    6 (body + share head) + 12 layers hidden L

where `share` is how many of the tokens are hidden: the head runs nowhere else. Looking a token up
in a table is no operation. With gradient checkpointing the forward pass is taken twice.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from ..core.modeling_maskgit import MaskGitForMaskedLM

FLOAT32, HALF = 4, 2  # bytes of a number
MASKED_SHARE = 0.5  # of the tokens are hidden on average, whatever the schedule, see `Masking`
# Bytes per token and layer that a transformer layer keeps for its backward pass in 16 bits, by the
# hidden size, without a matrix of attention (Korthikanti et al., arXiv 2205.05198, equation 2).
_KEPT_PER_LAYER = 34
# A logit in 16 bits, its log-probability in float32, and the gradient of that.
_BYTES_OF_LOGIT = HALF + FLOAT32 + FLOAT32

# Which parts of `Memory` each way of using several devices divides among them.
SHARDED: dict[str, Collection[str]] = {
    "DDP": (),
    "ZeRO-2": ("gradients", "optimizer"),
    "ZeRO-3": ("weights", "gradients", "optimizer", "averages"),
    "FSDP2": ("weights", "gradients", "optimizer", "averages"),
}


# Ways that keep a copy of the weights beside the optimizer's averages, to learn on.
_WITH_COPY = ("ZeRO-2",)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights: in float32.
        gradients: of those that learn.
        optimizer: what it remembers, and the weights once more with ZeRO-2.
        averages: of the weights, with `ema_decay`.
        activations: what the forward pass keeps for the backward pass.
    """

    weights: int
    gradients: int
    optimizer: int
    averages: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """All of them together."""
        return sum(getattr(self, field.name) for field in fields(self))


def memory_of(
    parameters: int,
    trained: int,
    *,
    remembered: int,
    averages: bool = False,
    activations: int = 0,
    devices: int = 1,
    how: str = "DDP",
) -> Memory:
    """Count what a device holds.

    Args:
        parameters: of the model, tied ones once.
        trained: those that learn.
        remembered: numbers of the optimizer, a row of `optimizers.OPTIMIZERS` says how many.
        averages: whether averages of the weights are kept.
        activations: bytes on each device.
        devices: that train together.
        how: a row of `SHARDED`.
    """
    whole = {
        "weights": FLOAT32 * parameters,
        "gradients": FLOAT32 * trained,
        "optimizer": FLOAT32 * (remembered + (how in _WITH_COPY) * trained),
        "averages": FLOAT32 * trained * averages,
    }
    parts = {name: devices if name in SHARDED[how] else 1 for name in whole}
    return Memory(
        **{name: -(-size // parts[name]) for name, size in whole.items()}, activations=activations
    )


def activation_bytes(size: "ModelSize", tokens: int, *, checkpointing: bool = False) -> int:
    """Estimate what a forward pass in 16 bits keeps for its backward pass.

    Args:
        size: of the model.
        tokens: of the pass on one device, padding included.
        checkpointing: keep the input of every layer alone, and one layer at a time.
    """
    layer = _KEPT_PER_LAYER * size.hidden * tokens
    inputs = HALF * size.hidden * size.layers * tokens
    kept = inputs + layer if checkpointing else layer * size.layers
    return kept + int(_BYTES_OF_LOGIT * size.vocabulary * MASKED_SHARE * tokens)


@dataclass(frozen=True)
class ModelSize:
    """What of a model the formulas know.

    Attributes:
        parameters: all, tied ones once.
        body: those that work on every token, in matrices: all but embeddings and head.
        head: those that work on hidden tokens alone, a tied matrix of the vocabulary included.
        layers: of the encoder.
        hidden: its width.
        vocabulary: rows of its tables.
    """

    parameters: int
    body: int
    head: int
    layers: int
    hidden: int
    vocabulary: int

    @classmethod
    def of_encoder(cls, layers: int, hidden: int, vocabulary: int) -> "ModelSize":
        """Count those of a plain encoder of the BERT family, whose head is tied to its embeddings.

        Args:
            layers: each with 4 hidden^2 parameters of attention and 8 of its two other matrices.
            hidden: width.
            vocabulary: tokens.
        """
        body, table = 12 * layers * hidden**2, vocabulary * hidden
        head = table + hidden**2
        return cls(body + head, body, head, layers, hidden, vocabulary)


def size_of(model: MaskGitForMaskedLM) -> ModelSize:
    """Read the size of a generator off its modules.

    Body and head are matrices: biases and norms work next to nothing. Of a critic the parameters
    alone count, and weights that an encoder runs several times (ALBERT) count once.
    """
    denoiser: Any = model.denoiser
    config: Any = model.config.get_text_config()
    encoder = {id(p): p.numel() for p in denoiser.base_model.parameters() if p.ndim > 1}
    tables = {
        id(module.weight): module.weight.numel()
        for module in denoiser.base_model.modules()
        if isinstance(module, nn.Embedding)
    }
    matrices = (p for p in denoiser.parameters() if p.ndim > 1)
    head = {id(p): p.numel() for p in matrices if id(p) not in encoder}
    last = denoiser.get_output_embeddings()
    if last is not None:
        head[id(last.weight)] = last.weight.numel()
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        body=sum(size for key, size in encoder.items() if key not in tables),
        head=sum(head.values()),
        layers=int(getattr(config, "num_hidden_layers", 0)),
        hidden=int(getattr(config, "hidden_size", 0)),
        vocabulary=int(config.vocab_size),
    )


def operations_per_token(size: ModelSize, length: int, *, checkpointing: bool = False) -> float:
    """Count the floating-point operations of an update per token, see the module.

    Args:
        size: of the model.
        length: tokens of a text, over which attention goes.
        checkpointing: whether the forward pass is taken twice.
    """
    forward = 2 * (size.body + MASKED_SHARE * size.head) + 4 * size.layers * size.hidden * length
    return forward * (4 if checkpointing else 3)


def tokens_per_second(
    size: ModelSize,
    length: int,
    peak: float,
    utilisation: float,
    *,
    checkpointing: bool = False,
) -> float:
    """Compute the throughput of one device; this is an assumption and no measurement.

    Args:
        size: of the model.
        length: tokens of a text.
        peak: operations per second that the device is sold with, in the format of the run.
        utilisation: the share of them that training comes to, in (0, 1].
        checkpointing: whether the forward pass is taken twice.
    """
    return peak * utilisation / operations_per_token(size, length, checkpointing=checkpointing)


def seconds_for(num_tokens: float, per_second: float, devices: int = 1) -> float:
    """Return how long devices take for a number of tokens, each at `per_second` of them."""
    return num_tokens / (per_second * devices)
