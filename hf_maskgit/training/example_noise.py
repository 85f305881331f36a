"""What is drawn for the examples of a batch, from a key of each.

An example has as many draws as it has tokens, so that padding, which its neighbours decide, shifts
none of them: alone and in a batch it gets the same masks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.noise import keyed_generator
from .document_rows import DocumentRows
from .strata import ranks

_PER_POSITION = 3  # choice, kind of corruption, random token
_COINS = 2  # of corruption: kept tokens, random tokens


class ExampleNoise(NamedTuple):
    """The noise of a batch, all float64 in [0, 1) but `places`.

    Attributes:
        stratum, offset: (B,) which of the strata of an update an example gets, and where in it.
        coins: (D, 2) whether tokens of a document are kept, and replaced at random.
        places: (D,) long, a document's rank among those of its example.
        uniforms: (B, L, 3), 0 at padding.
    """

    stratum: Tensor
    offset: Tensor
    coins: Tensor
    places: Tensor
    uniforms: Tensor


def example_noise(
    features: Sequence[dict[str, Any]], documents: DocumentRows, real: Tensor, seed: int, epoch: int
) -> ExampleNoise:
    """Draw the noise of a batch.

    Args:
        features: the examples; one with an `example_id` has the key (seed, epoch, example id), one
            without it draws from torch's global generator.
        documents: of the batch.
        real: (B, L) bool, true at tokens.
        seed: of the run.
        epoch: the pass over the data.
    """
    scalars, coins, places, of_tokens = [], [], [], []
    counts = torch.bincount(documents.row, minlength=len(features)).tolist()
    lengths = real.sum(1).tolist()
    for feature, count, num_tokens in zip(features, counts, lengths, strict=True):
        generator = None
        if "example_id" in feature:
            generator = keyed_generator(seed, epoch, int(feature["example_id"]))
        # The draws of further documents stand behind those of an example that is one text.
        more = count + _COINS * (count - 1) if count > 1 else 0
        sizes = [2, _COINS, _PER_POSITION * num_tokens, more]
        drawn = torch.rand(sum(sizes), generator=generator, dtype=torch.float64).split(sizes)
        scalars.append(drawn[0])
        of_tokens.append(drawn[2])
        places.append(ranks(drawn[3][:count]) if more else torch.zeros(count, dtype=torch.long))
        coins += [drawn[1], drawn[3][count:]] if more else [drawn[1]]
    stratum, offset = torch.stack(scalars).unbind(1)
    uniforms = torch.zeros(*real.shape, _PER_POSITION, dtype=torch.float64)
    uniforms[real] = torch.cat(of_tokens).view(-1, _PER_POSITION)
    return ExampleNoise(
        stratum, offset, torch.cat(coins).view(-1, _COINS), torch.cat(places), uniforms
    )
