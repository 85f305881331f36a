"""`python -m hf_maskgit.serving` serves a generator."""

from ..training.recipes import run_program
from .program import main

if __name__ == "__main__":
    run_program(main)
