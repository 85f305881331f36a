"""Export a generator to ONNX: one pass as a graph, checked against the model, for onnxruntime.

    python scripts/export_onnx.py --model runs/verses --output_dir runs/verses-onnx
    python scripts/export_onnx.py --model runs/verses --output_dir runs/verses-onnx \
        --text "In the [MASK] God" "And it"

The folder holds the graph, the configuration, the options of decoding and the tokenizer;
`hf_maskgit.integrations.onnx.OnnxGenerator` generates from it without the model's weights in torch.
With --text both write, greedily, and what differs ends the program.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_maskgit.hub.loading import load_generator
from hf_maskgit.integrations.onnx import GRAPH, OnnxGenerator, check_installed, export_onnx
from hf_maskgit.rows.writer import RowWriter
from hf_maskgit.training.recipes import option, parse_options, required, run_program


@dataclass
class ExportArguments:
    """What is exported, and where to."""

    model: str = required("Generator, or an encoder as it is: a folder or a name on the Hub.")
    output_dir: str = required("Folder for the graph and what belongs to it.")
    text: list[str] | None = option(
        None, "Texts to continue or to fill with both, to see that they write the same."
    )
    max_new_tokens: int | None = option(
        None, "Tokens to add to each text; default: the model's own, 0 to a masked text."
    )

    def __post_init__(self) -> None:
        """Refuse to write over the model."""
        model, output = Path(self.model), Path(self.output_dir)
        if model.is_dir() and output.is_dir() and model.samefile(output):
            raise ValueError(
                f"`output_dir` {self.output_dir!r} is the folder of the model itself, whose "
                "configuration and tokenizer would be replaced; name another."
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Export, compare, and say what was written."""
    (options,) = parse_options((ExportArguments,), argv, "Export a generator to ONNX.")
    check_installed()  # before the model is loaded
    model, tokenizer = load_generator(options.model, dtype="float32")
    difference = export_onnx(model, tokenizer, options.output_dir)
    path = Path(options.output_dir) / GRAPH
    print(f"{path}: {path.stat().st_size:,} bytes, logits within {difference:.1g} of the model's.")
    exported = OnnxGenerator.from_pretrained(options.output_dir)
    for text in options.text or []:
        told = {"max_new_tokens": options.max_new_tokens}
        expected, found = (greedy(each, tokenizer, text, told) for each in (model, exported))
        if found != expected:
            raise ValueError(f"The graph writes {found!r} where the model writes {expected!r}.")
        print(found)


def greedy(model: Any, tokenizer: PreTrainedTokenizerBase, text: str, told: dict[str, Any]) -> str:
    """Write what is likeliest after or in a text.

    Args:
        model: or what generates in its place.
        tokenizer: its own.
        text: to continue or to fill.
        told: further options; None leaves one out.
    """
    options = {name: value for name, value in told.items() if value is not None}
    # A graph has no attention cache, with which a model that writes in blocks writes other texts.
    exactly = {"do_sample": False, "use_cache": False}
    writer = RowWriter(model, tokenizer, {**options, **exactly})
    length_of = writer.lengths(1)
    return writer.write([text], [0], None if length_of is None else [length_of(0)])[0]


if __name__ == "__main__":
    run_program(main)
