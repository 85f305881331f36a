"""The exact likelihood of short texts: that of writing them token by token in a random order.

A generator that reveals one token per pass at a place drawn uniformly (`order="random"`, or
`pace="first_hitting"`, both at temperature 1) writes a text by one of n! orders. The probability
that the text comes out, whatever the order, is

    p(x) = mean over the orders of  prod_i p(x_i | the tokens revealed before)

and the bound of `nelbo` is minus the mean of the *logarithms* of the same products: never below
-log p(x) (Jensen), and equal to it where all orders agree. Both are found without any order being
written out: with H the hidden set, A({}) = 1, and

    A(H) = mean over i in H of  p(x_i | H hidden) A(H without i),        p(x) = A(all)

takes one pass per non-empty subset, 2^n - 1 in all (Held and Karp's scheme).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.argument_checks import check_whole
from ..core.losses import cross_entropy
from ..core.text_bound import forbidden_ids, predict_masked
from .batches import EvaluatedGenerator, evaluating, looks_twice
from .bound import ONE_PASS, TWO_PASSES, Rows, check_measurable, rows_of

MOST_TOKENS = 16  # 65,535 passes of one text


@dataclass(frozen=True)
class ExactOutput:
    """What random-order generation makes of texts, without sampling error.

    Attributes:
        nats: (B,) float64, -log of the probability of each text, given its number of tokens.
        bound_nats: (B,) float64, the expectation of what `nelbo` estimates; at least `nats`.
        num_tokens: (B,) long, maskable tokens of each text.
        estimator: see `NelboOutput`.
    """

    nats: Tensor
    bound_nats: Tensor
    num_tokens: Tensor
    estimator: str


@torch.no_grad()
def exact_likelihood(
    model: EvaluatedGenerator,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    maskable: Tensor | None = None,
    *,
    batch_size: int = 64,
    most_tokens: int = MOST_TOKENS,
    self_condition: bool | None = None,
    token_type_ids: Tensor | None = None,
    max_unknown_share: float | None = None,
) -> ExactOutput:
    """Sum the likelihood of short texts over all orders of their tokens.

    Args:
        model: as for `nelbo`; it is evaluated in eval mode and left as it was.
        input_ids: (B, L) long, clean texts in their framing.
        attention_mask: (B, L), 1 at real tokens; None means all are real.
        maskable: (B, L) bool; False conditions on a token.
        batch_size: masked texts per pass.
        most_tokens: maskable tokens that a text may have; each doubles the passes.
        self_condition: see `nelbo`.
        token_type_ids: (B, L) long, where the encoder knows them.
        max_unknown_share: see `nelbo`.

    Raises:
        ValueError: for a text with more maskable tokens, and as `nelbo`.
        TypeError: as `nelbo`.
    """
    check_whole("batch_size", batch_size, least=1)
    check_whole("most_tokens", most_tokens, least=1)
    given = model, input_ids, attention_mask, maskable, token_type_ids
    with evaluating(model):
        check_measurable(*given, max_unknown_share=max_unknown_share)
        twice = looks_twice(model.config, self_condition)
        rows = rows_of(*given)
        num_tokens = rows.judged.sum(1)
        longest = int(num_tokens.max())
        if longest > most_tokens:
            raise ValueError(
                f"A text has {longest} maskable tokens: its exact likelihood takes 2^{longest} - 1 "
                f"passes, and `most_tokens` allows {most_tokens}. Estimate its bound with nelbo(), "
                "or raise `most_tokens`."
            )
        found = [
            sum_over_orders(_subset_nats(model, rows, i, batch_size, twice))
            for i in range(len(num_tokens))
        ]
    nats, bounds = torch.tensor(found, dtype=torch.float64).T
    return ExactOutput(nats, bounds, num_tokens.cpu(), TWO_PASSES if twice else ONE_PASS)


def _subset_nats(
    model: EvaluatedGenerator, rows: Rows, row: int, batch_size: int, twice: bool
) -> Tensor:
    """Return the cost of each token in nats by the hidden set, (2^n, n) float64.

    Bit i of a row's number says whether judged token i is hidden; 0 where it is not.
    """
    length = int(rows.attention_mask[row].sum())
    ids, real = rows.input_ids[row, :length], rows.attention_mask[row, :length]
    types = None if rows.token_type_ids is None else rows.token_type_ids[row, :length]
    where = rows.judged[row, :length].nonzero()[:, 0]
    n = len(where)
    subsets = torch.arange(2**n, device=ids.device)
    hidden = hidden_subsets(n).to(ids.device)
    nats = torch.zeros(2**n, n, dtype=torch.float64, device=ids.device)
    forbidden = forbidden_ids(model.config)
    for part in subsets[1:].split(batch_size):
        many = len(part)
        chosen = torch.zeros(many, length, dtype=torch.bool, device=ids.device)
        chosen[:, where] = hidden[part]
        logits = predict_masked(
            model,
            ids.expand(many, -1),
            real.expand(many, -1),
            chosen,
            twice,
            None if types is None else types.expand(many, -1),
        )
        cost = cross_entropy(logits, ids.expand(many, -1)[chosen], forbidden)
        block = torch.zeros(many, n, dtype=torch.float64, device=ids.device)
        block[hidden[part]] = cost.double()
        nats[part] = block
    return nats.cpu()


def hidden_subsets(num_tokens: int) -> Tensor:
    """Return all subsets of n tokens, (2^n, n) bool: bit i of a row's number is token i."""
    return (torch.arange(2**num_tokens)[:, None] >> torch.arange(num_tokens)) & 1 == 1


def sum_over_orders(nats: Tensor) -> tuple[float, float]:
    """Sum over the orders: minus the logarithm of the mean product, and the mean of the sums.

    Args:
        nats: (2^n, n) float64, the cost of each token by the hidden set, a row of
            `hidden_subsets`; 0 where it is not hidden.
    """
    n = nats.shape[1]
    subsets, bits = torch.arange(2**n), 2 ** torch.arange(n)
    hidden = hidden_subsets(n)
    sizes = hidden.sum(1)
    log_mean = torch.zeros(2**n, dtype=torch.float64)  # log A(H)
    mean_log = torch.zeros(2**n, dtype=torch.float64)
    for size in range(1, n + 1):
        here = subsets[sizes == size]
        tokens = hidden[here].nonzero()[:, 1].view(-1, size)  # of each of these sets
        fewer = here[:, None] - bits[tokens]
        own = -nats[here].gather(1, tokens)
        log_mean[here] = (own + log_mean[fewer]).logsumexp(1) - math.log(size)
        mean_log[here] = (own + mean_log[fewer]).mean(1)
    return -float(log_mean[-1]), -float(mean_log[-1])
