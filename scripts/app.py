"""An app to click on: fill blanks, watch every pass, ask a token for its alternatives, write anew.

    python scripts/app.py --model runs/demo/model
    python scripts/app.py --model runs/demo/model --sequence_model runs/proteins \
        --molecule_model runs/molecules/training/best

One tab per kind of model. It listens on this machine alone. In a Space, whose other files are in
docs/space, it takes the names of models from the variables MODEL, SEQUENCE_MODEL and
MOLECULE_MODEL. It needs Gradio: pip install 'hf_maskgit[app]'.
"""

import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from hf_maskgit import InfillingPipeline
from hf_maskgit.core.extras import needs
from hf_maskgit.core.sampler_presets import PRESETS
from hf_maskgit.hub.loading import load_generator
from hf_maskgit.serving.program import listen
from hf_maskgit.training.recipes import option, parse_options, run_program
from hf_maskgit.visualization.animation import FORMATS
from hf_maskgit.visualization.buttons import STYLE
from hf_maskgit.visualization.editing import Editor
from hf_maskgit.visualization.session import KINDS, OWN, Kind, Session, Tab, failed, told

_CLICK = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-place]');
  if (button) trigger('select', {place: Number(button.dataset.place)});
});
"""
_LOOKED, _KEPT = 600, 3600  # seconds: from look to look for old files, and how old they become


@dataclass
class AppArguments:
    """Which models have a tab, and where the app listens."""

    model: str | None = option(
        None, "Generator of texts: a folder or a name on the Hub. A Space names it in MODEL."
    )
    sequence_model: str | None = option(None, "Generator of sequences, residue by residue.")
    molecule_model: str | None = option(None, "Generator of molecules in SMILES.")
    port: int = option(7860, "Where it listens.")

    def __post_init__(self) -> None:
        """Take what a Space says, and check that there is a model."""
        self.model = self.model or os.environ.get("MODEL")
        self.sequence_model = self.sequence_model or os.environ.get("SEQUENCE_MODEL")
        self.molecule_model = self.molecule_model or os.environ.get("MOLECULE_MODEL")
        if not (self.model or self.sequence_model or self.molecule_model):
            raise ValueError(
                "Name a model with --model, --sequence_model or --molecule_model; each has a tab."
            )


class Page:
    """One tab on the page: its components, and which event calls what of `Tab`.

    Args:
        tab: what happens.
        gradio: the package.
    """

    def __init__(self, tab: Tab, gradio: Any) -> None:
        self.tab, self._gr = tab, gradio
        name = tab.kind.option
        self.session = gradio.State(Session())
        self.text = gradio.Textbox(
            tab.kind.example, label="Text with blanks", elem_id=f"{name}_text"
        )
        with gradio.Row():
            samplers = [OWN, *PRESETS]
            self.sampler = gradio.Dropdown(samplers, value=OWN, label="Sampler", min_width=140)
            self.passes = gradio.Number(0, label="Passes (0: its own)", precision=0, min_width=100)
            self.seed = gradio.Number(0, label="Seed", precision=0, min_width=100)
        self.run = gradio.Button("Fill the blanks", variant="primary", elem_id=f"{name}_run")
        self.said = gradio.HTML(told(Session()), elem_id=f"{name}_said")
        self.view = gradio.HTML("", elem_id=f"{name}_view", js_on_load=_CLICK)
        self.picture = gradio.HTML("", visible=tab.kind.draw is not None)
        self.number = gradio.Slider(
            0, 1, value=0, step=1, label="Look at pass", elem_id=f"{name}_number", interactive=True
        )
        self.others = gradio.Radio([], label="Alternatives", elem_id=f"{name}_others")
        with gradio.Row():
            self.edits = {
                what: gradio.Button(label, min_width=120, elem_id=f"{name}_{what}")
                for what, label in (
                    ("choose", "Take it"),
                    ("mask", "Mask it"),
                    ("lengthen", "Longer"),
                    ("shorten", "Shorter"),
                )
            }
            self.again = gradio.Button("Fill again", min_width=120, elem_id=f"{name}_again")
        with gradio.Row():
            self.suffix = gradio.Radio(list(FORMATS), value=".html", label="Animation")
            self.save = gradio.Button("Save the animation", elem_id=f"{name}_save")
            self.file = gradio.File(label="The animation", interactive=False, height=100)

    def connect(self) -> None:
        """Say what each event does."""
        how = [self.sampler, self.passes, self.seed]
        shown = [self.session, self.view, self.said, self.picture, self.number, self.others]
        run = [self.session, self.text, *how]
        self.run.click(self._run, run, shown)
        self.text.submit(self._run, run, shown)
        self.again.click(self._fill, [self.session, *how], shown)
        self.number.input(self._look, [self.session, self.number], [self.session, self.view])
        self.view.select(self._choose(), [self.session], shown)
        for what, button in self.edits.items():
            more = [self.others] if what == "choose" else []
            button.click(self._edit(what), [self.session, *more], shown)
        self.save.click(
            self._save, [self.session, self.suffix], [self.session, self.said, self.file]
        )

    def _shown(self, session: Session, choices: Sequence[tuple[str, int]] = ()) -> list[Any]:
        """Return what `connect` calls `shown`."""
        gr, tab = self._gr, self.tab
        last = session.unmasking.num_passes if session.unmasking else 1
        number = gr.Slider(0, max(last, 1), value=session.number)
        others = gr.Radio(list(choices), value=None)
        return [session, tab.view(session), told(session), tab.picture(session), number, others]

    def _run(self, session: Session, *asked: Any) -> Iterator[list[Any]]:
        yield from self._passes(self.tab.run(session, *asked))

    def _fill(self, session: Session, *asked: Any) -> Iterator[list[Any]]:
        yield from self._passes(self.tab.fill(session, *asked))

    def _passes(self, sessions: Generator[Session]) -> Iterator[list[Any]]:
        with closing(sessions):  # which ends the work of a visitor who has left
            yield from map(self._shown, sessions)

    def _look(self, session: Session, number: float) -> tuple[Session, str]:
        session = self.tab.look(session, number)
        return session, self.tab.view(session)

    def _choose(self) -> Any:
        def choose(session: Session, event: Any) -> list[Any]:
            return self._shown(*self.tab.choose(session, int(event.place)))

        choose.__annotations__["event"] = self._gr.EventData  # by which Gradio knows what it is
        return choose

    def _edit(self, what: str) -> Any:
        def edit(session: Session, *more: Any) -> list[Any]:
            return self._shown(self.tab.edit(session, what, *more))

        return edit

    def _save(self, session: Session, suffix: str) -> tuple[Session, str, str | None]:
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = self.tab.save(session, suffix, folder)
                # Gradio's own copy alone stays, as long as `_KEPT` says
                return session, told(session), self.file.move_resource_to_block_cache(path)
        except (ValueError, ImportError) as error:
            session = failed(session, error)
            return session, told(session), None


def page_of(tabs: Sequence[Tab]) -> Any:
    """Build the page, a tab per model.

    Raises:
        ImportError: when Gradio is not installed.
    """
    gradio = _gradio()
    with gradio.Blocks(title="Fill the blanks", delete_cache=(_LOOKED, _KEPT)) as page:
        gradio.Markdown("# Fill the blanks")
        for tab in tabs:
            with gradio.Tab(tab.kind.title):
                Page(tab, gradio).connect()
    return page


def _gradio() -> Any:
    with needs("The app needs the package Gradio", "app"):
        import gradio
    return gradio


def tab_of(kind: Kind, name: str) -> Tab:
    """Load a model and make its tab."""
    model, tokenizer = load_generator(name)
    filler = InfillingPipeline(model=model, tokenizer=tokenizer)
    return Tab(kind, Editor(filler, kind.joined))


def main(argv: Sequence[str] | None = None) -> None:
    """Load the models and serve the app."""
    (options,) = parse_options((AppArguments,), argv, "Fill blanks by clicking.")
    _gradio()  # before a model is loaded
    listen("127.0.0.1", options.port).close()
    named = {kind: getattr(options, kind.option) for kind in KINDS}
    page = page_of([tab_of(kind, name) for kind, name in named.items() if name])
    page.queue().launch(server_port=options.port, css=STYLE)


if __name__ == "__main__":
    run_program(main)
