"""ONNX: the denoiser's pass as a graph, and `generate` over onnxruntime.

    export_onnx(model, tokenizer, "runs/verses-onnx")
    generator = OnnxGenerator.from_pretrained("runs/verses-onnx")
    generator.generate(**tokenizer("In the beginning", return_tensors="pt"), max_new_tokens=24)

What is exported is one pass, tokens to logits; the sampler stays what it is, as it asks any
callable for logits. Letters: B rows, L length, V vocabulary, N masked positions.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..core.configuration_maskgit import MaskGitConfig
from ..core.encoder_kinds import PADDING_LEAKS
from ..core.extras import needs
from ..core.generation_config_maskgit import MaskGitGenerationConfig
from ..core.generation_maskgit import MaskGitGenerationMixin
from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..core.noise import keyed_generator
from ..core.sampler_orders import ORDERS

GRAPH = "model.onnx"
TOLERANCE = 1e-4  # greatest difference of a logit between the graph and the model, float32
_OPSET = 18  # the first that torch's exporter builds on
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_LONGEST_CHECKED = 64  # tokens
_WHAT, _EXTRA = "A graph of ONNX needs {package}", "onnx"


class _Pass(nn.Module):
    """A pass of a denoiser, as a function of tensors in their order."""

    def __init__(self, denoiser: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.denoiser, self._names = denoiser, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits (B, L, V) of (B, L) long ids, mask and types."""
        return self.denoiser(**dict(zip(self._names, inputs, strict=True)), return_dict=True).logits


def check_installed() -> None:
    """Raise an ImportError where what writes and compares graphs is not installed."""
    with needs(_WHAT, _EXTRA):
        import onnxruntime  # noqa: F401  # by which the graph is compared
        import onnxscript  # noqa: F401  # what torch's exporter asks for


def check_exportable(model: MaskGitForMaskedLM) -> None:
    """Refuse a model of which a pass is no function of the tokens alone, or that stores more.

    Raises:
        ValueError: saying why.
    """
    kind = model.denoiser.config.model_type
    if model.config.self_cond:
        raise ValueError(
            "The model has self-conditioning, so that a pass reads the states of the pass before; "
            "a graph of tokens to logits cannot say that. Train one without --self_cond."
        )
    if kind in PADDING_LEAKS:
        raise ValueError(
            f"An encoder of type {kind!r} confuses padding with text ({PADDING_LEAKS[kind]}), and "
            "runs without padding here; a graph of padded rows would write other texts."
        )
    options = model.resolve_options(None, None, {})
    if ORDERS[options.order].asks_critic:  # it is the order that asks, also where remasking does
        raise ValueError(
            f"The model stores order={options.order!r} and remask={options.remask!r}, which ask "
            "its token critic, and a graph has none. Store other options first, such as "
            "model.generation_config = MaskGitGenerationConfig.preset('fast'), and save it."
        )
    if model.dtype != torch.float32:
        raise ValueError(
            f"The model is in {str(model.dtype).removeprefix('torch.')}; load it with "
            'dtype="float32" to export it.'
        )


def export_onnx(
    model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase, folder: str | Path
) -> float:
    """Write the denoiser's pass as a graph, with configuration, options of decoding and tokenizer.

    Args:
        model: in eval mode, float32, on the CPU.
        tokenizer: its own.
        folder: made where it is missing.

    Returns:
        The greatest difference of a logit between the graph and the model, at several shapes.

    Raises:
        ImportError: where the extra is not installed.
        ValueError: for a model that cannot be exported, or a graph whose logits differ by more than
            `TOLERANCE`; the graph is then removed.
    """
    check_exportable(model)
    check_installed()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in _INPUTS if name in model._denoiser_arguments]
    batch = torch.export.Dim("batch", min=1)
    length = torch.export.Dim("length", min=2, max=model.max_positions)
    with warnings.catch_warnings():  # of torch's own, about how it traces
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            _Pass(model.denoiser, names).eval(),
            tuple(_rows(model, 2, 8)[name] for name in names),
            dynamo=True,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes={"inputs": tuple({0: batch, 1: length} for _ in names)},
            opset_version=_OPSET,
            verbose=False,
        )
    most = model.max_positions
    program.model.metadata_props["max_positions"] = "" if most is None else str(most)
    program.save(str(folder / GRAPH))
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = greatest_difference(model, OnnxGenerator.from_pretrained(folder))
    if not found <= TOLERANCE:
        (folder / GRAPH).unlink()
        raise ValueError(
            f"The graph's logits differ from the model's by up to {found:.2g}, more than "
            f"{TOLERANCE:g}; it was removed. An encoder of type "
            f"{model.denoiser.config.model_type!r} cannot be exported by this release of torch."
        )
    return found


@torch.no_grad()
def greatest_difference(model: MaskGitForMaskedLM, generator: "OnnxGenerator") -> float:
    """Compare the logits of a graph with a model's, at rows of several shapes, padded and not.

    Returns:
        The greatest difference at a token that is no padding.
    """
    most = min(model.max_positions or _LONGEST_CHECKED, _LONGEST_CHECKED)
    greatest = 0.0
    for num_rows, length in ((1, 2), (1, most), (3, most // 2)):
        rows = _rows(model, num_rows, length)
        everywhere = rows["attention_mask"].bool()
        own = {name: rows[name] for name in _INPUTS if name in generator.inputs}
        expected = model(**own, masked_positions=everywhere).logits
        found = generator(**rows, masked_positions=everywhere).logits
        greatest = max(greatest, float((expected - found).abs().max()))
    return greatest


def _rows(model: MaskGitForMaskedLM, num_rows: int, length: int) -> dict[str, Tensor]:
    """Draw rows of words, the last with padding where it is long enough."""
    config = model.config
    draws = keyed_generator(num_rows, length)
    vocab_size = config.get_text_config().vocab_size
    ids = torch.randint(vocab_size, (num_rows, length), generator=draws)
    padding = config.get_text_config().pad_token_id
    # positions of some encoders are counted from what is no padding
    ids[ids == (-1 if padding is None else padding)] = config.mask_token_id or 0
    real = torch.ones_like(ids)
    if num_rows > 1:
        real[-1, length // 2 :] = 0
        ids[real == 0] = padding or 0
    return {"input_ids": ids, "attention_mask": real, "token_type_ids": torch.zeros_like(ids)}


class OnnxGenerator(MaskGitGenerationMixin):
    """Generates by a graph: `generate` with all its options, but for those that ask other parts.

    There is no token critic, and no attention cache: every pass reads the whole text.

    Args:
        session: an `onnxruntime.InferenceSession` of what `export_onnx` wrote.
        config: of the model.
        generation_config: options stored with it.
    """

    def __init__(
        self, session: Any, config: MaskGitConfig, generation_config: MaskGitGenerationConfig
    ) -> None:
        self._session = session
        self.config, self.generation_config = config, generation_config
        self.device = torch.device("cpu")
        self.inputs = [put.name for put in session.get_inputs()]
        told = session.get_modelmeta().custom_metadata_map.get("max_positions")
        self._max_positions = int(told) if told else None

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, providers: Sequence[str] | None = None
    ) -> "OnnxGenerator":
        """Open what `export_onnx` wrote.

        Args:
            folder: of the graph.
            providers: of onnxruntime, in their order; None takes all that it has.

        Raises:
            ImportError: where the extra is not installed.
            ValueError: for a folder without a graph.
        """
        with needs(_WHAT, _EXTRA):
            import onnxruntime
        graph = Path(folder) / GRAPH
        if not graph.is_file():
            raise ValueError(
                f"There is no graph {str(graph)!r}; make one with scripts/export_onnx.py."
            )
        providers = list(providers or onnxruntime.get_available_providers())
        session = onnxruntime.InferenceSession(graph, providers=providers)
        config = MaskGitConfig.from_pretrained(folder)
        options: Any = MaskGitGenerationConfig.from_pretrained(folder)
        return cls(session, config, options)

    @property
    def max_positions(self) -> int | None:
        """Longest framed text in tokens that the graph takes; None when it sets no limit."""
        return self._max_positions

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        masked_positions: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Any:
        """Predict at the chosen positions.

        Args:
            input_ids: (B, L) long.
            attention_mask: (B, L), 1 at real tokens.
            masked_positions: (B, L) bool.
            token_type_ids: (B, L) long; None is 0 everywhere.

        Returns:
            Something whose `logits` are (N, V) float32.
        """
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": torch.zeros_like(input_ids)
            if token_type_ids is None
            else token_type_ids,
        }
        arrays = {name: given[name].long().numpy() for name in self.inputs}
        (logits,) = self._session.run(["logits"], arrays)
        return SimpleNamespace(logits=torch.from_numpy(logits)[masked_positions])
