"""Ways to learn texts beside each other: the same blocks of tokens, one shape, one optimizer.

- `ours`: an encoder trained by the defaults, its loss weighed as the bound of MDLM (arXiv
  2406.07524) weighs it;
- `unweighted ours`: the same, every hidden token weighing alike;
- `causal`: GPT-2's shape with as many layers, heads and channels. Its likelihood is exact, so
  that nothing but the order of writing and the bound stand between the two;
- `wrapper` and `weighted wrapper`: the same encoder inside x-transformers'
  `NonAutoregressiveWrapper`, without and with its weight of the loss, as the package has them.

Blocks are packed and unframed, all of one length, because the wrapper takes no others. What an
encoder has learned is measured by `nelbo`, whoever taught it.

Letters: B blocks, L tokens of a block.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    EsmConfig,
    EsmForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..evaluation.benchmark_peers import wrapper_of_x_transformers
from ..evaluation.bound import NelboOutput, evaluate_nelbo
from .collator import DataCollatorForMaskGit
from .framing import pack_bodies

_SPECIALS = {"pad_token": "[PAD]", "mask_token": "[MASK]", "eos_token": "[END]"}
# On a CPU and at these lengths the fused attention takes ten times as long backward.
_ATTENTION: dict[str, Any] = {"attn_implementation": "eager"}


@dataclass(frozen=True)
class Shape:
    """Sizes that all ways have in common.

    Attributes:
        length: tokens of a block.
        hidden_size: channels; the layers between have four times as many.
        num_layers: of them.
        num_heads: of the attention.
    """

    length: int
    hidden_size: int
    num_layers: int
    num_heads: int


@dataclass(frozen=True)
class Measure:
    """How held-out blocks are measured: maskings per block, blocks per pass, seed of the masks."""

    num_samples: int
    batch_size: int
    seed: int


class Learner(Protocol):
    """One way to learn."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    def loss(self, blocks: Tensor) -> Tensor:
        """Return the loss of blocks (B, L) long, one number to go backward from."""

    def nats(self, blocks: Tensor, measure: Measure) -> NelboOutput:
        """Measure -log p of held-out blocks (B, L), or a bound on it."""


class Ours:
    """An encoder taught by this library.

    Args:
        shape: of the encoder.
        tokenizer: its own.
        options: further ones of the model's configuration, about its noise and its loss.
    """

    def __init__(self, shape: Shape, tokenizer: PreTrainedTokenizerBase, **options: Any) -> None:
        self.tokenizer, self.network = tokenizer, encoder_of(shape, tokenizer, **options)
        self._collate = DataCollatorForMaskGit.from_config(self.network.config, tokenizer)

    def loss(self, blocks: Tensor) -> Tensor:
        """Mask, predict, and weigh as the configuration says."""
        batch = self._collate([{"input_ids": block.tolist()} for block in blocks])
        loss: Tensor = self.network(**batch).loss
        return loss

    def nats(self, blocks: Tensor, measure: Measure) -> NelboOutput:
        """Estimate the bound."""
        texts = [{"input_ids": block} for block in blocks.tolist()]
        how: dict[str, Any] = vars(measure)
        return evaluate_nelbo(self.network, texts, self.tokenizer, progress=False, **how)


class Wrapper(Ours):
    """The same encoder taught by x-transformers.

    Args:
        shape: of the encoder.
        tokenizer: its own.
        weighted: whether the wrapper weighs its loss.

    Raises:
        ImportError: when x-transformers is not installed.
    """

    def __init__(
        self, shape: Shape, tokenizer: PreTrainedTokenizerBase, weighted: bool = False
    ) -> None:
        super().__init__(shape, tokenizer)
        self._wrapper = wrapper_of_x_transformers(
            self.network, shape.length, 18, use_simple_mdlm_loss_weight=weighted
        )

    def loss(self, blocks: Tensor) -> Tensor:
        """Let the wrapper mask and weigh."""
        loss: Tensor = self._wrapper(blocks).loss
        return loss


class Causal:
    """GPT-2's shape, which writes from left to right.

    Args:
        shape: of the network.
        tokenizer: whose ids it writes; its end stands before the first token.
    """

    def __init__(self, shape: Shape, tokenizer: PreTrainedTokenizerBase) -> None:
        sizes: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=shape.length,
            n_embd=shape.hidden_size,
            n_layer=shape.num_layers,
            n_head=shape.num_heads,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **_ATTENTION,
            **sizes,
        )
        self.network = GPT2LMHeadModel(config)
        self._begin = tokenizer.eos_token_id

    def loss(self, blocks: Tensor) -> Tensor:
        """Return the mean cost of a token in nats."""
        return self._costs(blocks).mean()

    @torch.no_grad()
    def nats(self, blocks: Tensor, measure: Measure) -> NelboOutput:
        """Sum the costs of all tokens; every pair of maskings would find the same."""
        found = [self._costs(some).double().sum(1) for some in blocks.split(measure.batch_size)]
        nats = torch.cat(found).cpu()
        return NelboOutput(
            nats,
            torch.zeros_like(nats),
            torch.full_like(nats, blocks.shape[1], dtype=torch.long),
            "exact",
            nats[:, None].expand(-1, measure.num_samples // 2),
        )

    def _costs(self, blocks: Tensor) -> Tensor:
        """Return -log p of each token given those before it, (B, L)."""
        begin = torch.full_like(blocks[:, :1], self._begin)
        logits = self.network(input_ids=torch.cat([begin, blocks[:, :-1]], 1)).logits
        return functional.cross_entropy(logits.transpose(1, 2), blocks, reduction="none")


LEARNERS: Mapping[str, Callable[[Shape, PreTrainedTokenizerBase], Learner]] = {
    "ours": Ours,
    "unweighted ours": partial(Ours, use_simple_mdlm_loss_weight=False),
    "causal": Causal,
    "wrapper": Wrapper,
    "weighted wrapper": lambda shape, tokenizer: Wrapper(shape, tokenizer, weighted=True),
}


def encoder_of(
    shape: Shape, tokenizer: PreTrainedTokenizerBase, **options: Any
) -> MaskGitForMaskedLM:
    """Make a new encoder of ESM-2's kind, a generator of unframed texts.

    `options` are further ones of its configuration.

    Its attention knows how far apart two tokens are (rotary), and its norms stand before the
    layers. BERT's kind, which has neither, learns nothing but the frequencies of tokens for a
    thousand updates and more (docs/recipes.md), and would measure that alone.
    """
    sizes: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = EsmConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        intermediate_size=4 * shape.hidden_size,
        max_position_embeddings=shape.length,
        pad_token_id=tokenizer.pad_token_id,
        mask_token_id=tokenizer.mask_token_id,
        position_embedding_type="rotary",
        token_dropout=False,  # it rescales by the share of masks, for another task
        emb_layer_norm_before=False,
        **_ATTENTION,
        **sizes,
    )
    encoder = EsmForMaskedLM(config)
    return MaskGitForMaskedLM.from_encoder(encoder, tokenizer=tokenizer, **options)


def tokenizer_of(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Learn a tokenizer of bytes and their most frequent pairs (BPE), without framing.

    Args:
        texts: that it learns from.
        vocab_size: ids, at least those of all bytes and of the special tokens.

    Raises:
        ValueError: for fewer.
    """
    least = 256 + len(_SPECIALS)
    if vocab_size < least:
        raise ValueError(
            f"`vocab_size` must be at least {least}, all bytes and {len(_SPECIALS)} special "
            f"tokens, got {vocab_size}."
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_SPECIALS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **_SPECIALS)


def blocks_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int) -> Tensor:
    """Join texts, each closed by the end of text, and cut them into blocks, (B, L) long.

    What is left at the end fills no block, and is dropped.

    Raises:
        ValueError: for texts that fill none.
    """
    bodies = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    blocks = pack_bodies(bodies, length, tokenizer.eos_token_id)
    whole = [block for block in blocks if len(block) == length]
    if not whole:
        raise ValueError(
            f"{len(texts)} texts of {sum(map(len, bodies))} tokens fill no block of {length}; "
            "give more texts or shorter blocks."
        )
    return torch.tensor(whole)
