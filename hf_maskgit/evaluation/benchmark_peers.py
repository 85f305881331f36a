"""Other ways to fill masks with the same encoder: the floor, and the samplers of other projects.

Each fills a text that is all masks with the weights of one `MaskGitForMaskedLM`, at temperature 1
and without filters unless it says otherwise, in `steps` passes of the encoder:

- the bare encoder, without LM head: what nobody can go below who takes as many full passes;
- the same with the head's matrix product at every position that is still masked: what nobody can go
  below who, besides, asks for the logits of all masks;
- a loop in LLaDA's way (arXiv 2502.09992): the head at every position, Gumbel noise in
  float64 over all of (B, L, V), the surest positions of each row by a loop over the rows;
- `NonAutoregressiveWrapper` of the package x-transformers, with its own `generate`.

None of them can emit the mask, as ours cannot; so whatever they return has none left.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..core.chunked_head import rows_at_a_time, run_head
from ..core.extras import needs
from ..core.modeling_maskgit import MaskGitForMaskedLM


@torch.no_grad()
def encoder_passes(model: MaskGitForMaskedLM, masked: Tensor, steps: int) -> Tensor:
    """Make `steps` passes of the encoder without its LM head over (B, L), and return the text."""
    encoder = model.denoiser.base_model
    for _ in range(steps):
        encoder(input_ids=masked)
    return masked


@torch.no_grad()
def encoder_and_head_passes(model: MaskGitForMaskedLM, masked: Tensor, steps: int) -> Tensor:
    """Do as `encoder_passes`, and run the LM head where equally many masks per pass are left."""
    encoder, rows = model.denoiser.base_model, rows_at_a_time(model.denoiser)
    width = masked.shape[1]
    for step in range(steps):
        left = width * (steps - step) // steps
        states = encoder(input_ids=masked)[0][:, :left]
        for part in states.flatten(0, 1).split(rows):
            run_head(model.denoiser, part)
    return masked


@torch.no_grad()
def llada_style(model: MaskGitForMaskedLM, masked: Tensor, steps: int) -> Tensor:
    """Fill (B, L) in LLaDA's way, equally many tokens per pass.

    Args:
        model: its denoiser predicts.
        masked: (B, L) long, all masks.
        steps: passes.
    """
    mask_id = model.config.mask_token_id
    text = masked.clone()
    width = text.shape[1]
    counts = [width * (step + 1) // steps - width * step // steps for step in range(steps)]
    for count in counts:
        logits = model.denoiser(input_ids=text).logits  # (B, L, V)
        logits[..., mask_id] = -torch.inf
        uniform = torch.rand(logits.shape, dtype=torch.float64, device=text.device)
        # e^logit / Exponential(1): its largest entry is a draw of the softmax
        drawn = (logits.double().exp() / -uniform.log()).argmax(-1)
        probability = logits.double().softmax(-1).gather(-1, drawn[..., None]).squeeze(-1)
        confidence = probability.masked_fill(text != mask_id, -torch.inf)
        for row in range(len(text)):
            chosen = confidence[row].topk(count).indices
            text[row, chosen] = drawn[row, chosen]
    return text


class _AsItsNetwork(nn.Module):
    """Our encoder with its LM head, as that wrapper calls a network."""

    output_is_log_prob = False

    def __init__(self, model: MaskGitForMaskedLM, length: int) -> None:
        super().__init__()
        config: Any = model.denoiser.config
        self.denoiser, self.mask_id = model.denoiser, model.config.mask_token_id
        self.emb_dim, self.num_tokens, self.max_seq_len = (
            *(config.hidden_size, config.vocab_size),
            length,
        )

    def forward(self, text: Tensor, **asked: Any) -> Tensor | tuple[Tensor, None]:
        """Return logits (B, L, V), and no states: they are read with self-conditioning alone."""
        logits = self.denoiser(input_ids=text).logits
        logits[..., self.mask_id] = -torch.inf
        return (logits, None) if asked.get("return_logits_and_embeddings") else logits


def wrapper_of_x_transformers(
    model: MaskGitForMaskedLM, length: int, steps: int, **options: Any
) -> Any:
    """Put that package's `NonAutoregressiveWrapper` around an encoder of ours.

    Args:
        model: its denoiser predicts.
        length: of the texts, in tokens; it takes one only.
        steps: passes.
        **options: further ones of the wrapper.

    Raises:
        ImportError: when x-transformers is not installed.
    """
    check_x_transformers()
    from x_transformers.nonautoregressive_wrapper import NonAutoregressiveWrapper

    network = _AsItsNetwork(model, length)
    wrapper = NonAutoregressiveWrapper(
        network, mask_id=network.mask_id, steps=steps, schedule="linear", **options
    )
    # It goes back to its own mode behind `generate`, and so would the encoder that all share.
    return wrapper.eval()


def check_x_transformers() -> None:
    """Refuse a comparison with a package that is not there.

    Raises:
        ImportError: saying how to install it.
    """
    what = "One of the peers is the package x-transformers"
    with needs(what, "benchmark", ", or leave its rows out with --no_peers"):
        import x_transformers  # noqa: F401
