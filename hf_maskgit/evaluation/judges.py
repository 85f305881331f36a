"""Other models' word on texts: how likely a causal LM finds them, and MAUVE.

Perplexity alone is no quality: the same likely word again and again has the best one. It is never
given here without the entropy of the text's tokens, and the two together are one point of the
frontier over the temperature (arXiv 2604.02718).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from ..core.extras import needs
from .text_variety import unit_entropy

FEWEST_FOR_MAUVE = 50  # five of its clusters; its authors advise some thousands of texts


@dataclass(frozen=True)
class Judgement:
    """What a causal LM finds of texts.

    Attributes:
        perplexity: e to the nats per token over all texts.
        std_error: of the nats per token, over texts; nan for one text.
        token_entropy: entropy in nats of the frequencies of a text's tokens, mean over texts.
        nats_per_character: nats of all texts over their characters: comparable between judges.
        num_tokens: that were judged; a text's first token counts where the judge has a token that
            begins a text.
        num_texts: that were judged; texts without a token to judge are left out.
    """

    perplexity: float
    std_error: float
    token_entropy: float
    nats_per_character: float
    num_tokens: int
    num_texts: int


class CausalJudge:
    """A causal LM that says how likely texts are.

    Args:
        name: of a causal LM with its tokenizer: a folder or a name on the Hub.
        device: where it runs.
        batch_size: texts judged together.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu", batch_size: int = 16) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModelForCausalLM.from_pretrained(name)
        self.model = model.to(device).eval()
        self._device, self._batch_size = device, batch_size
        limits = self.model.config.get_text_config()
        self._most: int | None = getattr(limits, "max_position_embeddings", None)

    @torch.no_grad()
    def judge(self, texts: Sequence[str]) -> Judgement:
        """Measure perplexity and entropy of texts.

        Raises:
            ValueError: for a text that is longer than the judge takes, or none with a token.
        """
        begin = self.tokenizer.bos_token_id
        start = [] if begin is None else [begin]
        plain = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        rows = [(text, [*start, *ids]) for text, ids in zip(texts, plain, strict=True)]
        rows = [(text, ids) for text, ids in rows if len(ids) > 1]
        if not rows:
            raise ValueError("No text has a token that the judge could find likely or not.")
        longest = max(len(ids) for _, ids in rows)
        if self._most is not None and longest > self._most:
            raise ValueError(
                f"A text has {longest} of the judge's tokens, and it takes {self._most}; write "
                "shorter texts, or take another judge."
            )
        nats = torch.cat(list(self._nats([ids for _, ids in rows])))
        counts = torch.tensor([len(ids) - 1 for _, ids in rows], dtype=torch.float64)
        mean = float(nats.sum() / counts.sum())
        # of a ratio of sums over independent texts
        spread = (nats - mean * counts).var() if len(rows) > 1 else torch.tensor(math.nan)
        return Judgement(
            perplexity=math.exp(mean),
            std_error=float((spread * len(rows)).sqrt() / counts.sum()),
            token_entropy=sum(unit_entropy(ids[len(start) :]) for _, ids in rows) / len(rows),
            nats_per_character=float(nats.sum()) / sum(len(text) for text, _ in rows),
            num_tokens=int(counts.sum()),
            num_texts=len(rows),
        )

    def _nats(self, rows: Sequence[list[int]]) -> Iterator[Tensor]:
        """Yield -log p of texts, batch by batch; padding stands behind, where nothing sees it."""
        for first in range(0, len(rows), self._batch_size):
            ids, real = _padded(rows[first : first + self._batch_size])
            logits = self.model(
                input_ids=ids.to(self._device), attention_mask=real.to(self._device)
            ).logits
            nats = F.cross_entropy(
                logits[:, :-1].float().flatten(0, 1).cpu(), ids[:, 1:].flatten(), reduction="none"
            )
            yield (nats.double().view(len(ids), -1) * real[:, 1:]).sum(1)


class Featuriser:
    """Turns texts into vectors: the mean of an encoder's last hidden states over a text's tokens.

    Args:
        name: of any model with hidden states, and its tokenizer: a folder or a name on the Hub.
        device: where it runs.
        batch_size: texts read together.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu", batch_size: int = 64) -> None:
        self.name = name
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModel.from_pretrained(name)
        self.model = model.to(device).eval()
        self._device, self._batch_size = device, batch_size

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector per text, (len(texts), hidden size); tokens that frame it count."""
        found = []
        for first in range(0, len(texts), self._batch_size):
            batch = self.tokenizer(
                list(texts[first : first + self._batch_size]),
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(self._device)
            states = self.model(**batch).last_hidden_state.float()
            real = batch["attention_mask"][..., None]
            found.append(((states * real).sum(1) / real.sum(1).clamp(min=1)).cpu())
        return torch.cat(found).numpy()


def mauve_function() -> Any:
    """Return what computes MAUVE.

    Raises:
        ImportError: where the package is not installed.
    """
    what, licence = "MAUVE is computed by its authors' package mauve-text", "the GPL, version 3"
    with needs(what, "mauve", f" (its licence is {licence})"):
        from mauve import compute_mauve
    return compute_mauve


def mauve(
    written: NDArray[np.float32], real: NDArray[np.float32], seed: int = 25
) -> dict[str, float]:
    """Compute MAUVE (arXiv 2102.01454) by its authors' package, between features of texts.

    Values of other featurisers, or of other numbers of texts, are not comparable: state both.

    Args:
        written: (N, D) features of written texts, at least 50.
        real: (M, D) of real texts, at least 50; best as many.
        seed: of its clustering.

    Returns:
        `mauve` in (0, 1], high where the two are alike, its variant `mauve_star` for few texts,
        and the `clusters`.

    Raises:
        ValueError: for too few texts.
        ImportError: where the package is not installed.
    """
    fewest = min(len(written), len(real))
    if fewest < FEWEST_FOR_MAUVE:
        raise ValueError(
            f"MAUVE clusters texts by ten and needs {FEWEST_FOR_MAUVE} on either side, got "
            f"{len(written)} written and {len(real)} real ones."
        )
    found = mauve_function()(p_features=written, q_features=real, seed=seed)
    return {
        "mauve": float(found.mauve),
        "mauve_star": float(found.mauve_star),
        "clusters": int(found.num_buckets),
    }


def _padded(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Return ids (B, L) with any id behind a shorter text, and 1 at real tokens."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, real
