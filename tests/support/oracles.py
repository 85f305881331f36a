"""Slow, obvious answers to check the library by, on problems small enough to write out.

Nothing here imports the library: an oracle that shares its code shares its mistakes.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

PAD, UNK, CLS, SEP, MASK = range(5)
FIRST_WORD = 5  # ids of ordinary tokens start here
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

Text = Sequence[int]


class TableDenoiser(torch.nn.Module):
    """A denoiser whose every conditional stands in a table.

    `table[n]` has shape (V + 1,) * n + (n, V), float64: for a text of n tokens whose hidden ones
    are written V and whose visible ones 0..V-1, the log-probability of each token at each position.
    Ids are FIRST_WORD + token. The columns of special ids carry a large finite logit, so that a
    caller who forgets to forbid them is found out.
    """

    def __init__(self, table: dict[int, np.ndarray], framed: bool = False) -> None:
        super().__init__()
        self.table = table
        self.num_tokens = next(iter(table.values())).shape[-1]
        self.framed = framed
        self.calls = 0
        self.device = torch.device("cpu")
        self.config = SimpleNamespace(
            mask_token_id=MASK,
            pad_token_id=PAD,
            bos_token_id=CLS,
            eos_token_id=SEP,
            unk_token_id=UNK,
            prefix_ids=[CLS] if framed else [],
            suffix_ids=[SEP] if framed else [],
            special_token_ids=list(range(FIRST_WORD)),
            forbidden_token_ids=list(range(FIRST_WORD)),
            num_token_ids=FIRST_WORD + self.num_tokens,
        )

    @classmethod
    def inconsistent(
        cls, num_tokens: int = 3, lengths: Iterable[int] = (4,), seed: int = 0, framed: bool = False
    ) -> "TableDenoiser":
        """Arbitrary conditionals, which belong to no joint law: what a trained network has."""
        rng = np.random.default_rng(seed)
        table = {}
        for n in lengths:
            logits = 1.5 * rng.normal(size=(num_tokens + 1,) * n + (n, num_tokens))
            table[n] = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return cls(table, framed)

    @classmethod
    def consistent(cls, joint: np.ndarray) -> "TableDenoiser":
        """The exact conditionals of a joint law, an array of shape (V,) * n that sums to 1."""
        n, num_tokens = joint.ndim, joint.shape[0]
        table = np.empty((num_tokens + 1,) * n + (n, num_tokens))
        for state in itertools.product(range(num_tokens + 1), repeat=n):
            seen = tuple(slice(None) if s == num_tokens else slice(s, s + 1) for s in state)
            part = joint[seen]
            for i in range(n):
                marginal = part.sum(tuple(j for j in range(n) if j != i))
                known = np.full(num_tokens, 0.0)
                known[state[i] % num_tokens] = 1.0
                law = marginal / part.sum() if state[i] == num_tokens else known
                table[state][i] = np.log(np.maximum(law, 1e-300))
        return cls({n: table})

    @classmethod
    def context_free(
        cls, probabilities: Sequence[float], lengths: Iterable[int], framed: bool = False
    ) -> "TableDenoiser":
        """The same law at every position, whatever is visible."""
        law = np.log(np.asarray(probabilities, dtype=float))
        return cls({n: np.tile(law, (len(law) + 1,) * n + (n, 1)) for n in lengths}, framed)

    def log_prob(self, text: Text, position: int, hidden: frozenset[int]) -> float:
        """Log-probability of the true token of `text` (tokens 0..V-1) at a hidden position."""
        state = tuple(self.num_tokens if i in hidden else token for i, token in enumerate(text))
        return float(self.table[len(text)][state][position, text[position]])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
        **_: Tensor,
    ) -> SimpleNamespace:
        """Look up the logits: (B, L, 5 + V), or (N, 5 + V) at `masked_positions`."""
        self.calls += 1
        body = torch.ones_like(input_ids) if attention_mask is None else attention_mask.clone()
        body = body.bool()
        if self.framed:
            for row in body:
                where = row.nonzero().squeeze(-1)
                row[where[0]] = row[where[-1]] = False
        tokens = torch.where(input_ids == MASK, self.num_tokens, input_ids - FIRST_WORD)
        logits = torch.full(
            (*input_ids.shape, FIRST_WORD + self.num_tokens), 9.0, dtype=torch.float64
        )
        lengths = body.sum(1)
        for n in lengths.unique().tolist():
            here = body & (lengths == n)[:, None]
            states = tokens[here].view(-1, n).numpy()
            assert (states >= 0).all(), "the denoiser is shown a special token as part of the text"
            found = torch.from_numpy(self.table[n][tuple(states.T)])  # (rows, n, V)
            logits[..., FIRST_WORD:][here] = found.reshape(-1, self.num_tokens)
        return SimpleNamespace(
            logits=logits if masked_positions is None else logits[masked_positions]
        )


def chain_rules(
    denoiser: TableDenoiser, text: Text, free: Iterable[int] | None = None
) -> list[float]:
    """Log-likelihood of a text by the chain rule in every order of its positions (24 for length 4).

    Args:
        denoiser: gives the conditionals.
        text: tokens 0..V-1.
        free: positions to be generated; the others are given. None means all.
    """
    found = []
    for order in itertools.permutations(range(len(text)) if free is None else free):
        hidden = set(order)
        total = 0.0
        for position in order:
            total += denoiser.log_prob(text, position, frozenset(hidden))
            hidden.remove(position)
        found.append(total)
    return found


def bound(denoiser: TableDenoiser, text: Text, free: Iterable[int] | None = None) -> float:
    """The NELBO in nats: minus the mean over the orders."""
    return -float(np.mean(chain_rules(denoiser, text, free)))


def negative_log_likelihood(denoiser: TableDenoiser, text: Text) -> float:
    """The true one in nats, of generation in a random order: a mean of probabilities."""
    return -math.log(np.mean(np.exp(chain_rules(denoiser, text))))


def masked_loss(denoiser: TableDenoiser, text: Text, hidden: Iterable[int]) -> float:
    """Unweighted cross-entropy in nats, summed over the hidden positions."""
    together = frozenset(hidden)
    return -sum(denoiser.log_prob(text, position, together) for position in together)


def all_texts(num_tokens: int, length: int) -> list[tuple[int, ...]]:
    """Every text of that length."""
    return list(itertools.product(range(num_tokens), repeat=length))


def word_piece_tokenizer(
    words: Sequence[str], padding_side: str = "right", **roles: str | None
) -> PreTrainedTokenizerFast:
    """A BERT-like tokenizer: `[CLS] ... [SEP]`, word pieces, ids of `words` from FIRST_WORD on.

    Args:
        words: the vocabulary behind the five special tokens.
        padding_side: "left" or "right".
        **roles: e.g. mask_token=None for a tokenizer without one.
    """
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *words])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    names = {f"{name[1:-1].lower()}_token": name for name in SPECIALS} | roles
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        padding_side=padding_side,
        **{role: name for role, name in names.items() if name},
    )


@torch.no_grad()
def mean_over_orders(model: Any, text: Tensor, places: Sequence[int]) -> float:
    """log p of the tokens at some places of a text (1, L): the mean over all orders."""
    products = []
    for order in itertools.permutations(places):
        row, log_p = text.clone(), 0.0
        row[0, list(places)] = model.config.mask_token_id
        for place in order:
            logits = model(input_ids=row).logits[0, place].double()
            logits[model.config.forbidden_token_ids] = -torch.inf
            log_p += float(logits.log_softmax(-1)[text[0, place]])
            row[0, place] = text[0, place]
        products.append(log_p)
    return math.log(sum(map(math.exp, products)) / len(products))
