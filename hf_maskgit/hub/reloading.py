"""Whether a saved generator is the same one elsewhere: it is loaded and asked in a fresh process.

What a process still holds in memory (registered classes, imported modules, files in a cache) can
hide that something was not saved. A fresh process has none of it.

    python -m hf_maskgit.hub.reloading FOLDER answers.json      # with the package
    python -P hf_maskgit/hub/reloading.py FOLDER answers.json   # with the code in the folder alone
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase

_SAMPLE_TOKENS = 16  # enough to see a difference, few enough for a large model on a CPU
_SEED = 0

Answers = dict[str, Any]


def answers_of(model: Any, tokenizer: PreTrainedTokenizerBase) -> Answers:
    """Ask a generator what must not change when it is saved and loaded.

    Args:
        model: a `MaskGitForMaskedLM` in evaluation mode, from whatever module its class comes.
        tokenizer: its tokenizer.

    Returns:
        Plain values: a seeded sample (ids), the SHA-256 of the logits with every second of its
        tokens masked (every bit counts), the ids of the sample's text, and the options of decoding.
    """
    options = model.generation_config.to_dict()
    usual = options["max_new_tokens"]
    length = min(usual, _SAMPLE_TOKENS) if isinstance(usual, int) and usual else _SAMPLE_TOKENS
    # Of just so many tokens, however the model finds lengths by itself.
    asked = {"num_tokens": "fixed", "max_new_tokens": length, "seed": _SEED}
    one = {"num_return_sequences": 1, "return_dict_in_generate": False}
    sample = model.generate(tokenizer=tokenizer, **asked, **one)
    # A sample may end before its length; what stands behind its end is padding.
    real = sample != model.config.pad_token_id
    real[:, 0] = True  # also where the padding begins a text, too
    masked = sample.clone()
    masked[:, ::2] = model.config.mask_token_id
    with torch.no_grad():
        logits = model(input_ids=masked, attention_mask=real.long()).logits
    # bfloat16 has no counterpart in NumPy; float32 holds each of its values exactly.
    bits = logits.float().cpu().numpy().tobytes()
    return {
        "the seeded sample": sample.tolist(),
        "the logits": hashlib.sha256(bits).hexdigest(),
        "the tokens of a text": tokenizer(tokenizer.batch_decode(sample))["input_ids"],
        "the options of decoding": {
            name: value for name, value in options.items() if name != "transformers_version"
        },
    }


def answers_in_a_fresh_process(folder: str | Path, *, with_package: bool) -> Answers:
    """Load a saved generator in a new Python process and ask it there, on the CPU.

    Args:
        folder: holds model and tokenizer.
        with_package: False keeps this package out, so that the folder's own code must do.

    Raises:
        RuntimeError: when that process fails; its last words are in the message.
    """
    program = ["-m", __name__] if with_package else ["-P", __file__]
    with tempfile.TemporaryDirectory() as own:
        found = Path(own, "answers.json")
        # Nothing but the folder may help; and code that is only tried leaves no copy behind.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": own}
        if with_package:
            paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        done = subprocess.run(
            [sys.executable, *program, str(Path(folder).resolve()), str(found)],
            # Of an empty folder: Python imports from where it stands before all else, and a
            # stranger's folder, say, may hold a `json.py`.
            cwd=own,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            words = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise RuntimeError(f"{str(folder)!r} does not load in a fresh process: {words[0]}")
        answers: Answers = json.loads(found.read_text(encoding="utf-8"))
    return answers


def differences(one: Answers, other: Answers) -> list[str]:
    """Name what two generators answered differently."""
    # JSON knows no tuples: what went through it is compared with what goes through it.
    plain = json.loads(json.dumps(one)), json.loads(json.dumps(other))
    return [name for name in plain[0] if plain[0][name] != plain[1].get(name)]


def main(folder: str, answers_file: str) -> None:
    """Load what the folder holds and write its answers."""
    with_package = bool(__package__)
    if not with_package:
        sys.modules["hf_maskgit"] = None  # type: ignore[assignment]  # an import of it now fails
    # Code of the folder is ours, which was looked at before; a tokenizer brings none.
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=not with_package)
    Path(answers_file).write_text(json.dumps(answers_of(model, tokenizer)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
