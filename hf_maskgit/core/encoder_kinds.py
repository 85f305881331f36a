"""What the library knows of single kinds of encoder: what each needs, and which cannot work.

Everything else treats all encoders alike. Each entry was found by running that type; the tests run
every type that transformers has, so that a new one with needs of its own is noticed.
"""

import re
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Why a type cannot work at all, as the end of a sentence about it.
REFUSED = {
    "mra": (
        "attends only through a CUDA kernel of its own, in whose absence transformers puts zeros "
        "in the place of attention without a word"
    ),
    "perceiver": (
        "pads every text to one fixed length itself and has logits for that length alone"
    ),
    "reformer": (
        "trains on texts of one fixed length alone and hashes tokens with new random numbers in "
        "every pass"
    ),
}

# Why padding would change what a type says about the real tokens.
PADDING_LEAKS = {
    "convbert": "its convolutions read the neighbouring padding",
    "fnet": "its Fourier transform mixes all positions and takes no mask",
    "funnel": "its pooling merges real tokens with padding",
    "nystromformer": "its convolution reads the neighbouring padding",
    "yoso": "its attention counts padding among the tokens",
}

# Parameters that predict no token, by type; "" stands for all types. Without a gradient, they would
# stop training on several processes at its second update.
UNUSED_PARAMETERS = {
    "": r"\.pooler\.",
    "esm": r"\.contact_head\.",
    "flaubert": r"\.lang_embeddings\.",
    "longformer": r"\.(query|key|value)_global\.",
    "luke": r"entity|\.(w2e|e2w|e2e)_query\.",
    "modernvbert": r"\.(vision_model|connector)\.",
    "neomme": r"\.patch_embeddings?\.",
    "ultravbert": r"\.(vision_model|connector)\.",
    "xlm": r"\.lang_embeddings\.",
}


def _setting(config: PreTrainedConfig, name: str) -> Any:
    return getattr(config, name, None)


# Settings with which a type that works otherwise cannot fill masks.
_BAD_SETTINGS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (
        lambda c: bool(_setting(c, "is_decoder") or _setting(c, "causal")),
        "The encoder is set up as a decoder, where a token sees only those before it. Set "
        "text_config.is_decoder=False (text_config.causal=False for XLM).",
    ),
    (
        lambda c: bool(_setting(c, "token_dropout")),
        "The encoder scales its embeddings by the share of masks (token_dropout=True), which is "
        "undefined for a fully masked text. Set text_config.token_dropout=False; "
        "MaskGitForMaskedLM.from_encoder() does it for a pretrained model without changing what "
        "it knows.",
    ),
    (
        lambda c: _setting(c, "attention_type") == "block_sparse",
        "BigBird's sparse attention lets a prediction depend on the texts beside it, and the first "
        "short text switches it off. Set text_config.attention_type='original_full'; "
        "MaskGitForMaskedLM.from_encoder() does it for a pretrained model.",
    ),
    (
        lambda c: bool(_setting(c, "languages")) and _setting(c, "default_language") is None,
        "The encoder has an adapter for each language and no language is chosen. Set "
        "text_config.default_language, or pass default_language= to "
        "MaskGitForMaskedLM.from_encoder(), to one of text_config.languages.",
    ),
    (
        lambda c: c.model_type == "nystromformer" and c.num_landmarks != c.segment_means_seq_len,
        "Nystromformer takes texts of one length alone unless text_config.num_landmarks equals "
        "text_config.segment_means_seq_len.",
    ),
    (
        lambda c: c.model_type == "flaubert" and c.pre_norm,
        "FlauBERT with text_config.pre_norm=True does not run in transformers 5.23, whose layers "
        "no longer fit its own cache; use one with pre_norm=False.",
    ),
    (
        lambda c: c.model_type == "yoso" and not c.use_expectation,
        "YOSO hashes tokens with new random numbers in every pass, in a CUDA kernel of its own, "
        "unless text_config.use_expectation=True.",
    ),
)


def refusal(config: PreTrainedConfig) -> str | None:
    """Say in one sentence why this encoder cannot be a denoiser; None if it can.

    Args:
        config: the encoder's own configuration.
    """
    kind = config.model_type
    if config.is_encoder_decoder:
        return f"{kind!r} is an encoder-decoder; masks can only be filled by an encoder."
    if kind in REFUSED:
        return f"{kind!r} cannot be used: it {REFUSED[kind]}."
    if kind not in CONFIG_MAPPING or type(config) is not CONFIG_MAPPING[kind]:
        return (
            f"The encoder's {type(config).__name__} is not what transformers knows as {kind!r}, so "
            "a saved generator could not be loaded again. Register the encoder's classes under a "
            "model type of their own, with AutoConfig.register() and "
            "AutoModelForMaskedLM.register()."
        )
    return None


def check_encoder(config: PreTrainedConfig) -> None:
    """Refuse an encoder that cannot be a denoiser, and settings with which it cannot.

    Args:
        config: the encoder's own configuration.

    Raises:
        ValueError: saying why, and what to set instead.
    """
    fault = refusal(config) or next(
        (sentence for applies, sentence in _BAD_SETTINGS if applies(config)), None
    )
    if fault:
        raise ValueError(fault)


def adapt_to_generation(denoiser: PreTrainedModel, mask_token_id: int) -> None:
    """Change settings with which a pretrained encoder cannot fill masks, without changing it else.

    Args:
        denoiser: changed in place.
        mask_token_id: id of its mask token.
    """
    if getattr(denoiser.config, "token_dropout", False):
        _switch_off_token_dropout(denoiser, mask_token_id)
    if getattr(denoiser.config, "attention_type", None) == "block_sparse":
        logger.warning(
            "%s attends in full from now on, at a cost that grows with the square of the length: "
            "with sparse attention a text's prediction would depend on the texts beside it.",
            type(denoiser).__name__,
        )
        # Both: the configuration is what is saved, the modules are what runs.
        denoiser.config.attention_type = "original_full"
        cast(Any, denoiser.base_model).set_attention_type("original_full")


def repair_dtype(denoiser: PreTrainedModel) -> None:
    """Give every weight the dtype the encoder was asked for.

    DeBERTa makes two biases of each layer in float32 whatever it is told (transformers 5.23), and
    then cannot compute.

    Args:
        denoiser: changed in place.
    """
    if denoiser.config.model_type == "deberta":
        for name, parameter in denoiser.named_parameters():
            if name.endswith(("q_bias", "v_bias")):
                parameter.data = parameter.data.to(denoiser.dtype)


def freeze_unused_parameters(encoder: PreTrainedModel) -> None:
    """Switch the gradient off for what takes no part in predicting a token of a text.

    Args:
        encoder: with or without its LM head, changed in place.
    """
    for name, parameter in encoder.named_parameters():
        # The dot lets the patterns match a part that stands first in the name, too.
        if is_unused(encoder, f".{name}"):
            parameter.requires_grad_(False)


def max_positions(denoiser: PreTrainedModel) -> int | None:
    """Return the longest text in tokens that the encoder takes; None when it sets no limit."""
    limits = [getattr(denoiser.config.get_text_config(), "max_position_embeddings", None)]
    for name, module in denoiser.base_model.named_modules():
        if name.split(".")[-1] == "position_embeddings" and hasattr(module, "padding_idx"):
            # RoBERTa and its kin count positions from behind the padding id.
            offset = 0 if module.padding_idx is None else cast(int, module.padding_idx) + 1
            limits.append(len(cast(Tensor, module.weight)) - offset)
            break
    return min((limit for limit in limits if limit is not None), default=None)


def min_positions(config: PreTrainedConfig) -> int:
    """Return the shortest text in tokens that the encoder takes.

    Args:
        config: the encoder's own configuration.
    """
    # Each block of Funnel after the first halves the text, which must leave two tokens of it.
    blocks = len(config.block_sizes) if config.model_type == "funnel" else 0
    return 2 ** (blocks - 1) + 1 if blocks > 1 else 1


def fit_head_bias(denoiser: PreTrainedModel) -> None:
    """Give a bias that stands beside the LM head's last layer the length of a resized vocabulary.

    transformers resizes the layer and the bias in it. ESM keeps its bias outside.

    Args:
        denoiser: changed in place; new tokens get a bias of 0.
    """
    # The bias, if there is one, belongs to the module that holds the layer.
    layer = denoiser.get_output_embeddings()
    owner: Any = next((m for m in denoiser.modules() if layer in m.children()), None)
    bias = getattr(owner, "bias", None)
    size = denoiser.config.get_text_config().vocab_size
    if isinstance(bias, nn.Parameter) and len(bias) != size:
        fitted = bias.new_zeros(size)
        kept = min(size, len(bias))
        fitted[:kept] = bias.detach()[:kept]
        owner.bias = nn.Parameter(fitted, requires_grad=bias.requires_grad)


def is_unused(denoiser: PreTrainedModel, name: str) -> bool:
    """Tell whether a parameter takes no part in predicting a token.

    Args:
        denoiser: the encoder.
        name: of the parameter, with a dot or another part of its path before it.
    """
    patterns = (UNUSED_PARAMETERS.get(kind) for kind in ("", denoiser.config.model_type))
    return any(pattern and re.search(pattern, name) for pattern in patterns)


def beside(denoiser: PreTrainedModel, module: Any) -> Any:
    """Put a new part where the denoiser is, in its number format."""
    return module.to(device=denoiser.device, dtype=denoiser.dtype)


def hidden_size(encoder: PreTrainedConfig) -> int:
    """Return the width of an encoder's last hidden state."""
    text: Any = encoder.get_text_config()
    return int(text.hidden_size)


def _switch_off_token_dropout(denoiser: PreTrainedModel, mask_token_id: int) -> None:
    """Keep ESM's view of the mask without its scaling by the share of masks in the text.

    With `token_dropout` ESM embeds the mask as zero and divides by the share of visible tokens,
    which has no value for a fully masked text. At the mask rate of its pretraining the scale is 1;
    so the mask's embedding becomes zero and the scaling is switched off.
    """
    # Modules read the setting when they were built; the configuration alone reaches none of them.
    denoiser.config.token_dropout = False
    module: Any
    for module in denoiser.modules():
        if hasattr(module, "token_dropout"):
            module.token_dropout = False
    embeddings = cast(nn.Embedding, denoiser.get_input_embeddings())
    with torch.no_grad():
        embeddings.weight[mask_token_id] = 0.0
