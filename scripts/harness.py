"""Run the lm-evaluation-harness on a generator: its own command line, with our model type.

    hf-maskgit lm_eval --model hf_maskgit --model_args pretrained=runs/verses,num_samples=64 \
        --tasks blimp --batch_size 64 --output_path runs/verses/tasks
    python scripts/harness.py ls tasks
    python scripts/harness.py --help

Every other option is the harness's: pip install 'hf_maskgit[lm_eval]' brings it. What its model
type measures, and what else stands behind `--model_args`, says docs/likelihood.md.
"""

import sys

from hf_maskgit.integrations.lm_eval import register
from hf_maskgit.training.recipes import run_program


def main() -> None:
    """Register the model type, and read this process's command line as the harness does."""
    register()
    from lm_eval.__main__ import cli_evaluate

    sys.argv[0] = "lm-eval"
    cli_evaluate()


if __name__ == "__main__":
    run_program(main)
