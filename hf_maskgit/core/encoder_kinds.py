"""What the library knows of single kinds of encoder: what each needs, and which cannot work.

Everything else treats all encoders alike. Each entry was found by running that type; the tests run
every type that transformers has, so that a new one with needs of its own is noticed.
"""

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

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

# Types whose attention takes a mask of pairs of tokens, so that documents of a row can be kept
# apart; and those that want one for each of two kinds of layer.
SEPARATES_DOCUMENTS = frozenset(
    "albert bert big_bird camembert data2vec-text distilbert electra ernie esmc eurobert gte ibert "
    "jina_embeddings_v3 megatron-bert mpnet nomic_bert rembert roberta roberta-prelayernorm "
    "roc_bert roformer squeezebert xlm-roberta xlm-roberta-xl xmod".split()
)
SEPARATES_IN_WINDOWS = frozenset({"modernbert"})

# Types whose attention goes through the interface of transformers, and whose other parts treat each
# token by itself (MobileBERT's embeddings read the neighbours): a pass can compute a few positions.
CACHES_ATTENTION = frozenset(
    "albert bert camembert data2vec-text distilbert electra ernie esm esmc eurobert gte "
    "jina_embeddings_v3 layoutlm modernbert modernvbert neomme nomic_bert roberta "
    "roberta-prelayernorm roc_bert ultrabert ultravbert xlm-roberta xlm-roberta-xl xmod".split()
)

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
    _freeze_second_bias(encoder)


def max_positions(denoiser: PreTrainedModel) -> int | None:
    """Return the longest text in tokens that the encoder takes; None when it sets no limit."""
    limits = [getattr(denoiser.config.get_text_config(), "max_position_embeddings", None)]
    table = _position_embeddings(denoiser)
    if table is not None:
        limits.append(len(cast(Tensor, table.weight)) - first_position(denoiser))
    return min((limit for limit in limits if limit is not None), default=None)


def first_position(denoiser: PreTrainedModel) -> int:
    """Return the position of a text's first token: 0, but for RoBERTa and its kin.

    These count positions from behind the padding id.
    """
    table = _position_embeddings(denoiser)
    padding = None if table is None else cast(int | None, table.padding_idx)
    return 0 if padding is None else padding + 1


def _position_embeddings(denoiser: PreTrainedModel) -> nn.Module | None:
    for name, module in denoiser.base_model.named_modules():
        if name.split(".")[-1] == "position_embeddings" and hasattr(module, "padding_idx"):
            return module
    return None


def min_positions(config: PreTrainedConfig) -> int:
    """Return the shortest text in tokens that the encoder takes.

    Args:
        config: the encoder's own configuration.
    """
    # Each block of Funnel after the first halves the text, which must leave two tokens of it.
    blocks = len(config.block_sizes) if config.model_type == "funnel" else 0
    return 2 ** (blocks - 1) + 1 if blocks > 1 else 1


def head_bias(denoiser: PreTrainedModel) -> nn.Parameter | None:
    """Return the bias that the LM head adds to the logits, (V,); None where it adds none.

    It is in the head's last layer, or beside it in the module that holds the layer (ESM), or in a
    head that has no layer for it (see `head_on_embeddings`).
    """
    layer: Any = denoiser.get_output_embeddings()
    owner: Any = head_on_embeddings(denoiser) or layer
    # BERT and its kin have a parameter of that name there too, which adds nothing by itself.
    if denoiser.config.model_type == "esm":
        owner = _holder(denoiser, layer)
    bias = getattr(owner, "bias", None)
    return bias if isinstance(bias, nn.Parameter) else None


def head_on_embeddings(denoiser: PreTrainedModel) -> nn.Module | None:
    """Return an LM head whose last layer is the token embeddings themselves; None for all others.

    DeBERTa with `legacy=False` is of this kind, and transformers 5.23 takes a hidden layer of its
    head for the last one: whoever resizes or fills that breaks the head.
    """
    head = getattr(getattr(denoiser, "lm_predictions", None), "lm_head", None)
    is_one = denoiser.config.model_type in ("deberta", "deberta-v2") and head is not None
    return head if is_one else None


def resize(
    denoiser: PreTrainedModel,
    new_num_tokens: int | None,
    multiple: int | None = None,
    mean_resizing: bool = True,
) -> nn.Embedding:
    """Resize an encoder's token embeddings, and all of its LM head with them.

    Args:
        denoiser: changed in place; with or without a head.
        new_num_tokens: rows wanted; None leaves them.
        multiple: what the number of rows is rounded up to a multiple of.
        mean_resizing: draw new rows around the mean of the old ones.

    Raises:
        ValueError: where the encoder cannot leave out the mean.
    """
    known = inspect.signature(denoiser.resize_token_embeddings).parameters
    options: dict[str, Any] = {}
    if multiple is not None and "pad_to_multiple_of" in known:
        options["pad_to_multiple_of"] = multiple
    elif multiple is not None and new_num_tokens is not None:  # MobileBERT's own does not round
        new_num_tokens += -new_num_tokens % multiple
    if not mean_resizing:
        if "mean_resizing" not in known:
            raise ValueError(
                f"{type(denoiser).__name__} resizes its embeddings in a way of its own and has no "
                "option `mean_resizing`; leave it out."
            )
        options["mean_resizing"] = False
    with _hidden_output_embeddings(denoiser):
        embeddings: nn.Embedding = denoiser.resize_token_embeddings(new_num_tokens, **options)
    fit_head_bias(denoiser)
    return embeddings


@contextlib.contextmanager
def _hidden_output_embeddings(denoiser: PreTrainedModel) -> Iterator[None]:
    """Keep transformers from resizing a layer that is not the head's last one."""
    if head_on_embeddings(denoiser) is None:
        yield
        return
    # An attribute of the object goes before the method of its class.
    denoiser.get_output_embeddings = lambda: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del denoiser.get_output_embeddings


def fit_head_bias(denoiser: PreTrainedModel) -> None:
    """Give a bias that stands beside the LM head's last layer the length of a resized vocabulary.

    transformers resizes the layer and the bias in it. ESM keeps its bias outside, and so does a
    head without a layer. BERT and its kin have one in the layer and one outside, which are one
    parameter when the head is tied; when it is not, only that in the layer is used. But resizing
    makes one of the two in either case, and a checkpoint, which stores what is shared once, would
    then lose the one that is used.

    Args:
        denoiser: changed in place; new tokens get a bias of 0.
    """
    layer: Any = denoiser.get_output_embeddings()
    owner: Any = head_on_embeddings(denoiser) or _holder(denoiser, layer)
    bias = getattr(owner, "bias", None)
    text = denoiser.config.get_text_config()
    if not isinstance(bias, nn.Parameter):
        return
    if len(bias) != text.vocab_size:
        fitted = bias.new_zeros(text.vocab_size)
        kept = min(text.vocab_size, len(bias))
        fitted[:kept] = bias.detach()[:kept]
        owner.bias = nn.Parameter(fitted, requires_grad=bias.requires_grad)
    elif layer is not None and bias is layer.bias and not text.tie_word_embeddings:
        owner.bias = nn.Parameter(bias.detach().clone())
    _freeze_second_bias(denoiser)


def _freeze_second_bias(encoder: PreTrainedModel) -> None:
    """Switch the gradient off for a bias beside an untied layer that has its own; it adds nothing.

    Processes that train together would wait for its gradient.
    """
    layer: Any = None if head_on_embeddings(encoder) else encoder.get_output_embeddings()
    bias, second = getattr(layer, "bias", None), getattr(_holder(encoder, layer), "bias", None)
    untied = not getattr(encoder.config.get_text_config(), "tie_word_embeddings", True)
    if untied and bias is not None and isinstance(second, nn.Parameter) and second is not bias:
        second.requires_grad_(False)


def _holder(denoiser: PreTrainedModel, layer: nn.Module | None) -> nn.Module | None:
    """Return the module that holds a layer of the head; None for no layer."""
    return next((m for m in denoiser.modules() if any(c is layer for c in m.children())), None)


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
