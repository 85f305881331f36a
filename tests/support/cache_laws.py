"""What must hold of the attention cache for every type of encoder; raises where it does not."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.core.attention_cache import Active, Store, caching, twin_of
from hf_maskgit.core.encoder_kinds import first_position
from tests.support.slow_cache import SlowCache


def padded(texts: list[Tensor], model: MaskGitForMaskedLM) -> tuple[Tensor, Tensor]:
    """Rows of unequal lengths (B, L) and which of their tokens are real."""
    text = pad_sequence(texts, True, model.config.pad_token_id)
    real = torch.arange(text.shape[1]) < torch.tensor([len(row) for row in texts])[:, None]
    return text, real


class Fast:
    """The twin of a model, asked for all active positions."""

    def __init__(self, model: MaskGitForMaskedLM, real: Tensor, types: Tensor | None) -> None:
        self.model, self.real, self.types = model, real, types
        self.twin, self.store = twin_of(model), Store(real, watches=True)

    def logits(self, rows: Tensor, text: Tensor, active: Tensor | None) -> Tensor:
        """Logits (N, V) at the active positions, or at all real ones in a full pass."""
        wanted = self.real[rows] if active is None else active
        inputs = {"input_ids": text, "attention_mask": self.real[rows].long()}
        if self.types is not None:
            inputs["token_type_ids"] = self.types[rows]
        some = None if active is None else Active.of(active)
        if some is not None:
            inputs = {name: some.pick(value) for name, value in inputs.items()}
            inputs["position_ids"] = some.index + first_position(self.model.denoiser)
            wanted = some.there
        with torch.no_grad(), caching(self.store, rows, some, Active.of(wanted)):
            return self.twin(**inputs, masked_positions=wanted).logits


def check_cache(model: MaskGitForMaskedLM, texts: list[Tensor]) -> None:
    """A full pass is one without a cache; a part of it is the whole; a stale one is the oracle.

    Args:
        model: in float64, so that no rounding hides anything.
        texts: of unequal lengths.
    """
    model = model.double()
    text, real = padded(texts, model)
    takes_types = "token_type_ids" in model._denoiser_arguments
    two_kinds = (
        takes_types and getattr(model.denoiser.config.get_text_config(), "type_vocab_size", 0) > 1
    )
    types = (torch.arange(text.shape[1]) > 4).long().expand_as(text) if two_kinds else None
    given = {} if types is None else {"token_type_ids": types}
    rows, generator = torch.arange(len(text)), torch.Generator().manual_seed(0)
    fast, slow = Fast(model, real, types), SlowCache(model, real, **given)

    def some(share: float = 0.5) -> Tensor:
        """A random part of each row, of unequal sizes."""
        return (torch.rand(text.shape, generator=generator) < share) & real

    # A full pass keeps, and changes nothing.
    plain = torch.no_grad()(model)(text, real.long(), masked_positions=real, **given).logits
    torch.testing.assert_close(fast.logits(rows, text, None), plain, rtol=0, atol=1e-12)
    slow.logits(rows, text, real, None)
    # Nothing has changed: a part gives what the whole gave, and so do all positions.
    for active in (real, some(), some(0.2)):
        active = active.clone()
        active[:, 1] = True  # every row has one
        same = fast.logits(rows, text, active)
        torch.testing.assert_close(same, plain[active[real]], rtol=0, atol=1e-9)
        assert float(fast.store.drift.max()) <= 1
    # Words change, of fewer rows each time: what is kept is stale, in the same way as the oracle's.
    differs = 0.0
    for step in range(3):
        these = rows[: len(rows) - step]
        changed = some(0.3)[these]
        words = torch.randint(5, 30, text[these].shape, generator=generator)
        text[these] = torch.where(changed, words, text[these])
        active = changed | some(0.2)[these]
        active[:, 2] = True
        found = fast.logits(these, text[these], active)
        expected = slow.logits(these, text[these], active, active)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        fresh = {name: value[these] for name, value in given.items()}
        whole = torch.no_grad()(model)(
            text[these], real[these].long(), masked_positions=active, **fresh
        )
        differs = max(differs, float((found - whole.logits).abs().max()))
    assert differs > 1e-3, "what is kept plays no part"


def caches(model: MaskGitForMaskedLM, texts: list[Tensor]) -> bool:
    """Whether the laws hold, tried out."""
    try:
        check_cache(model, texts)
    except (AssertionError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False
    return True
