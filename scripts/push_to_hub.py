"""Push a trained generator to the Hub, after checking that it works elsewhere.

    python scripts/push_to_hub.py runs/verses --repo_id me/verses --dry_run    # look first
    python scripts/push_to_hub.py runs/verses --repo_id me/verses --private
    python scripts/push_to_hub.py runs/verses --repo_id me/verses --branch v2 --with_code

Model, tokenizer, decoding options and model card are saved anew, loaded in a fresh process and
asked for the same logits and the same seeded sample, bit for bit. Only then anything is sent:
weights first, then one commit with all files. Checkpoints, logs and options of the run stay here.

A push needs a token with write access: `hf auth login`, or the environment variable HF_TOKEN.
"""

import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hf_maskgit.hub.push import Push, check_access, check_name, stage, upload
from hf_maskgit.training.recipes import option, parse_options, required, run_program


@dataclass
class PushArguments:
    """What is pushed, and where to."""

    repo_id: str = required("Name on the Hub, 'owner/name'; 'name' alone is one of your own.")
    model: str | None = option(
        None, "Folder of the generator; it may also stand first, without '--model'."
    )
    private: bool = option(
        False, "Make the repository private; one that is public already is refused."
    )
    branch: str | None = option(None, "Branch to push to, made if missing. Default: main.")
    with_code: bool = option(
        False, "Send the code along: loads without hf_maskgit, trust_remote_code=True."
    )
    commit_message: str = option(Push.commit_message, "Of the one commit.")
    dry_run: bool = option(False, "Save and check only; needs no token and no network.")

    def __post_init__(self) -> None:
        """Check that there is something to push."""
        if self.model is None:
            raise ValueError("Name the folder of the generator to push, first or with '--model'.")


def main(argv: Sequence[str] | None = None) -> None:
    """Save, check, send."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        if any(word.partition("=")[0] == "--model" for word in words):
            raise ValueError(
                "The generator is named twice, first and with '--model'; name it once."
            )
        words = ["--model", *words]
    (options,) = parse_options((PushArguments,), words, "Push a generator to the Hub.")
    logging.basicConfig(format="%(message)s")
    push_as(options)


def push_as(options: PushArguments) -> None:
    """Do what the options ask for, and say what was done.

    Raises:
        HubError: when it cannot be done.
    """
    check_name(options.repo_id)
    repo_id = options.repo_id if options.dry_run else check_access(options.repo_id)
    push = Push(
        folder=Path(str(options.model)),
        repo_id=repo_id,
        private=True if options.private else None,
        branch=options.branch,
        with_code=options.with_code,
        commit_message=options.commit_message,
    )
    with tempfile.TemporaryDirectory() as staged:
        files = stage(push, Path(staged))
        print("Loaded in a fresh process: same logits, same seeded sample, bit for bit.")
        for path in files:
            print(f"  {path.relative_to(staged)}  {path.stat().st_size:,} bytes")
        if options.dry_run:
            print(f"Nothing was sent. Without --dry_run this goes to {repo_id}.")
        else:
            print(f"Pushed to {upload(push, Path(staged))}")


if __name__ == "__main__":
    run_program(main)
