"""Commands as the pages show them: which script each runs, and whether it understands them."""

import shlex
from pathlib import Path

from hf_maskgit.serving.program import ServeArguments
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.recipes import parse_options
from scripts.app import AppArguments
from scripts.cli import COMMANDS
from scripts.evaluate import EvaluateArguments
from scripts.evaluate_texts import TextArguments
from scripts.export_onnx import ExportArguments
from scripts.generate import GenerateArguments
from scripts.plot_run import PlotArguments
from scripts.push_to_hub import PushArguments
from scripts.score import ScoreArguments

OPTIONS = {
    "train": (ModelArguments, DataArguments, TrainArguments),
    "evaluate": (EvaluateArguments,),
    "evaluate_texts": (TextArguments,),
    "score": (ScoreArguments,),
    "generate": (GenerateArguments,),
    "serve": (ServeArguments,),
    "app": (AppArguments,),
    "export_onnx": (ExportArguments,),
    "plot_run": (PlotArguments,),
    "push_to_hub": (PushArguments,),
}


def commands_of(code: str) -> list[list[str]]:
    """The commands of a shell block, each split into words."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_by(words: list[str]) -> tuple[str, list[str]] | None:
    """The script that a command runs, by its name, and its words; None for another program.

    A checkout runs it as a file, an installed package as a module or by `hf-maskgit`.
    """
    if words[0] == "hf-maskgit":
        return COMMANDS[words[1]], words[2:]
    for i, word in enumerate(words):
        if word.startswith("scripts/") and word.endswith(".py"):
            return Path(word).stem, words[i + 1 :]
        if word.startswith("hf_maskgit.scripts."):
            return word.rpartition(".")[2], words[i + 1 :]
    return None


def check_understood(words: list[str], folder: Path) -> None:
    """Have a command's options parsed; one that the script does not have ends the test.

    Args:
        words: of a command that runs one of our scripts.
        folder: where a recipe is written; it stands for any, of a run that has not been made.
    """
    recipe = folder / "recipe.yaml"
    recipe.write_text("encoder: e\ndataset: d\noutput_dir: o\n", encoding="utf-8")
    script, options = run_by(words) or ("", [])
    options = [str(recipe) if word.endswith(".yaml") else word for word in options]
    options = [word for word in options if word != "--help"]  # which would end the test as well
    first = {"push_to_hub": "--model", "plot_run": "--runs"}.get(script)
    if first is not None:
        options = [first, *options]
    if script in OPTIONS:  # the others tell a story and have no options of this kind
        parse_options(OPTIONS[script], options)
