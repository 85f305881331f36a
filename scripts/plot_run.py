"""Draw the curves of a training run, or of several beside each other, from their logs.

    python scripts/plot_run.py runs/verses                     # runs/verses/curves.png
    python scripts/plot_run.py runs/one runs/two --output_file both.svg

Loss, held-out bound with two standard errors on either side, learning rate and tokens per second
by update. A run that goes on, was stopped or was resumed is drawn as far as its log tells. It needs
matplotlib: pip install 'hf_maskgit[plots]'.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hf_maskgit.training.curves import draw_curves
from hf_maskgit.training.output_files import check_picture
from hf_maskgit.training.recipes import option, parse_options, run_program
from hf_maskgit.training.run_log import CURVES_NAME


@dataclass
class PlotArguments:
    """Which runs are drawn, and where to."""

    runs: list[str] | None = option(
        None, "Output folders of runs; they may also stand first, without '--runs'."
    )
    output_file: str | None = option(
        None, f"The picture. Default: {CURVES_NAME} in the folder of the only run."
    )

    def __post_init__(self) -> None:
        """Check that there is something to draw, and that the picture will have a place."""
        if not self.runs:
            raise ValueError("Name the output folder of a run, first or with '--runs'.")
        if len(self.runs) > 1 and self.output_file is None:
            raise ValueError("Several runs make one picture: say where with --output_file.")
        check_picture(self.output_file)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, and say where the picture is."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words = ["--runs", *words]
    (options,) = parse_options((PlotArguments,), words, "Draw the curves of training runs.")
    runs = {name: Path(name) for name in options.runs}
    if len({folder.resolve().name for folder in runs.values()}) == len(runs):
        runs = {folder.resolve().name: folder for folder in runs.values()}
    path = Path(options.output_file or Path(options.runs[0]) / CURVES_NAME)
    print(draw_curves(runs, path))


if __name__ == "__main__":
    run_program(main)
