"""The command `hf-maskgit`: train, evaluate, generate, serve and more, where it is installed.

    hf-maskgit train --encoder answerdotai/ModernBERT-base --dataset verses.txt --output_dir runs/v
    hf-maskgit evaluate --model runs/v --dataset held_out.txt
    hf-maskgit score --model runs/v --text "In the beginning" --std_error 0.5
    hf-maskgit lm_eval --model hf_maskgit --model_args pretrained=runs/v --tasks my_task
    hf-maskgit generate --model runs/v --text "In the beginning" --max_new_tokens 24
    hf-maskgit serve --model runs/v --port 8000
    hf-maskgit app --model runs/v                             # fill blanks by clicking
    hf-maskgit export --model runs/v --output_dir runs/v-onnx
    hf-maskgit plot runs/v                                    # its curves, also while it goes on
    hf-maskgit push runs/v --repo_id me/verses --dry_run
    hf-maskgit train --help                                   # the options of one command

Each is the script of that name, which a checkout runs as a file: `python scripts/train.py`. On
several devices the launcher starts it: `accelerate launch -m hf_maskgit.scripts.train`.
"""

import ast
import difflib
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import hf_maskgit

NAME = "hf-maskgit"
# Each command, and the script beside this file that it runs.
COMMANDS = {
    "train": "train",
    "evaluate": "evaluate",
    "score": "score",
    "lm_eval": "harness",
    "generate": "generate",
    "serve": "serve",
    "app": "app",
    "export": "export_onnx",
    "plot": "plot_run",
    "push": "push_to_hub",
}


def main() -> None:
    """Run the command that stands first on the command line with the words behind it."""
    command, *words = sys.argv[1:] or [""]
    if command in ("-h", "--help"):
        print(overview())
    elif command == "--version":
        print(f"{NAME} {hf_maskgit.__version__}")
    elif command in COMMANDS:
        from hf_maskgit.training.recipes import run_program

        # what a script reads is its own command line, and its usage names the program so
        sys.argv = [f"{NAME} {command}", *words]
        run_program(script_of(command).main)
    else:
        refuse(command)


def script_of(command: str) -> Any:
    """Import the script of a command: not before it is asked for, which saves seconds."""
    return import_module(f".{COMMANDS[command]}", __package__)


def overview() -> str:
    """Say what there is, in the first line of each script, none of which is imported for it."""
    sources = {name: Path(__file__).with_name(f"{script}.py") for name, script in COMMANDS.items()}
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in sources.items()}
    told = [(name, str(ast.get_docstring(tree)).partition("\n")[0]) for name, tree in trees.items()]
    lines = [f"  {name:<9} {sentence}" for name, sentence in told]
    return "\n".join(
        [
            f"usage: {NAME} command [recipe.yaml] [--option value ...]",
            "",
            *lines,
            "",
            f"{NAME} command --help lists the options of one; {NAME} --version says which this is.",
        ]
    )


def refuse(command: str) -> NoReturn:
    """End the program with a sentence about a command that is none, and exit code 2."""
    wrong = f"There is no command {command!r}." if command else "Name a command."
    close = difflib.get_close_matches(command, COMMANDS, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    sys.stderr.write(f"{NAME}: error: {wrong}{meant} Commands: {', '.join(COMMANDS)}.\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
