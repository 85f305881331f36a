"""Serve a generator over HTTP: OpenAI's completions, and infilling.

    python scripts/serve.py --model runs/verses --port 8000
    python -m hf_maskgit.serving --model runs/verses --port 8000      # the same

docs/serving.md says what is answered there.
"""

from hf_maskgit.serving.program import main
from hf_maskgit.training.recipes import run_program

if __name__ == "__main__":
    run_program(main)
