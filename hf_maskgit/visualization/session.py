"""What happens in a tab of the app, without the app: each event takes a session and returns one."""

import queue
import re
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from .animation import save_animation
from .buttons import ruler_as_buttons, safe, words_as_buttons
from .editing import EditedText, Editor
from .recording import Frame, Unmasking

OWN = "the model's own"  # sampler


class _LeftError(Exception):
    """Nobody waits for a text any more."""


def draw_molecule(smiles: str) -> str:
    """Draw a molecule by RDKit, as HTML; a sentence where there is none to draw."""
    try:
        from rdkit import Chem, RDLogger
        from rdkit.Chem.Draw import rdMolDraw2D
    except ImportError:
        return "<p>Molecules are drawn where RDKit is installed: hf_maskgit[molecules].</p>"
    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return f"<p>No molecule yet: RDKit cannot read {safe(smiles)}.</p>"
    drawer = rdMolDraw2D.MolDraw2DSVG(320, 240)
    drawer.DrawMolecule(molecule)
    drawer.FinishDrawing()
    picture = drawer.GetDrawingText().partition("?>")[2]
    return f'<div class="drawn" role="img" aria-label="{safe(smiles)}">{picture}</div>'


def residues_apart(text: str, tokenizer: Any) -> str:
    """Write residues apart, as they are pasted together, where a tokenizer reads single ones only.

    Args:
        text: letters, blanks and masks.
        tokenizer: that of AntiBERTy, say; ESM's needs nothing of this.
    """
    apart, together = (
        tokenizer(letters, add_special_tokens=False)["input_ids"] for letters in ("A C", "AC")
    )
    known = len(apart) == 2 and tokenizer.unk_token_id not in apart
    if not known or apart == together:
        return text
    kept = rf"{re.escape(tokenizer.mask_token)}|{{[^{{}}]*}}"
    return re.sub(rf"{kept}|[^\W\d_](?=[^\W\d_])", _apart, text)


def _apart(found: re.Match[str]) -> str:
    return found[0] + " " * (len(found[0]) == 1)


class Kind(NamedTuple):
    """What a tab shows.

    Attributes:
        title: of the tab.
        option: of the command line that names its model.
        example: a text with blanks.
        joined: tokens stand without spaces.
        view: writes a frame as buttons.
        draw: draws the finished text besides; None for nothing.
        spell: writes a text as the tokenizer reads it; None for as it is.
    """

    title: str
    option: str
    example: str
    joined: bool
    view: Callable[..., str]
    draw: Callable[[str], str] | None = None
    spell: Callable[[str, Any], str] | None = None


KINDS = (
    Kind(
        "Text",
        "model",
        "And the king {blank:1-4} his servants, and they {blank:3} the city.",
        False,
        words_as_buttons,
    ),
    Kind(
        "Sequence",
        "sequence_model",
        "EVQLVESGGGLVQPGGSLRLSCAAS{blank:8}WVRQAPGKGLEWVS",
        True,
        ruler_as_buttons,
        spell=residues_apart,
    ),
    Kind("Molecule", "molecule_model", "c1ccccc1{blank:6}", True, words_as_buttons, draw_molecule),
)


@dataclass(frozen=True)
class Session:
    """What one visitor has done.

    Attributes:
        edited: the text as it stands; None before the first.
        unmasking: how it was filled the last time; None while something is masked.
        number: the pass that is looked at.
        chosen: the place that is chosen.
        said: what the app says about it.
        failed: whether that says what went wrong.
    """

    edited: EditedText | None = None
    unmasking: Unmasking | None = None
    number: int = 0
    chosen: int | None = None
    said: str = "Write a text with blanks, such as {blank:3}, and fill it."
    failed: bool = False


class Tab:
    """What happens in a tab: each event takes a `Session` and returns the next one."""

    def __init__(self, kind: Kind, editor: Editor) -> None:
        self.kind, self.editor = kind, editor

    def run(
        self, session: Session, text: str, sampler: str, passes: float | None, seed: float | None
    ) -> Generator[Session]:
        """Read a text and fill it, a session per pass; whoever closes it, ends the filling."""
        session = Session(said="Reading.")
        try:
            if self.kind.spell is not None:
                text = self.kind.spell(text, self.editor.tokenizer)
            session = replace(session, edited=self.editor.read(text, int(seed or 0)))
        except (ValueError, TypeError) as error:
            yield failed(session, error)
            return
        yield from self.fill(session, sampler, passes, seed)

    def fill(
        self, session: Session, sampler: str, passes: float | None, seed: float | None
    ) -> Generator[Session]:
        """Fill what is masked, a session per pass, as they happen.

        Closing it, as Gradio does when a visitor leaves, ends the filling at its next pass.
        """
        if session.edited is None:
            yield failed(session, ValueError("There is no text yet; write one and fill it."))
            return
        options: dict[str, Any] = {} if sampler == OWN else {"preset": sampler}
        if passes:
            options["steps"] = int(passes)
        frames: queue.Queue[Any] = queue.Queue()
        left = threading.Event()

        def note(frame: Frame) -> None:
            if left.is_set():
                raise _LeftError
            frames.put(frame)

        def work() -> None:
            try:
                how = {"seed": int(seed or 0), "on_frame": note, **options}
                frames.put(self.editor.fill(session.edited, **how))  # type: ignore[arg-type]
            # Whatever it is, the visitor waits for a sentence.
            except Exception as error:
                frames.put(error)

        threading.Thread(target=work, daemon=True).start()
        try:
            yield from self._watched(session, frames)
        finally:
            left.set()

    def _watched(self, session: Session, frames: "queue.Queue[Any]") -> Generator[Session]:
        """Return a session per frame, and one for what stands at the end: a text, or an error."""
        seen: list[Frame] = []
        while True:
            found = frames.get()
            if isinstance(found, Exception):
                yield failed(session, found)
                return
            if found and isinstance(found[0], EditedText):
                edited, unmasking = found
                done, last = unmasking.summary, unmasking.num_passes
                yield Session(
                    edited, unmasking, last, None, f"{done}. Choose a token to change it."
                )
                return
            seen.append(found)
            watched = Unmasking(tuple(seen))
            said = f"Pass {watched.num_passes}."
            yield Session(session.edited, watched, watched.num_passes, None, said)

    def look(self, session: Session, number: float) -> Session:
        """Look at the text as it stood after another pass."""
        if session.unmasking is None:
            return session
        number = min(int(number), session.unmasking.num_passes)
        return replace(session, number=number, chosen=None)

    def choose(self, session: Session, place: int) -> tuple[Session, list[tuple[str, int]]]:
        """Choose a place; returns its alternatives too, as labels and ids."""
        if session.edited is None:
            return session, []
        try:
            found = self.editor.alternatives(session.edited, place)
        except ValueError as error:
            return failed(session, error), []
        said = f"Token {place + 1} is chosen; its alternatives are below."
        last = session.unmasking.num_passes if session.unmasking else 0
        choices = [(f"{text} ({likely:.1%})", token) for token, text, likely in found]
        return replace(session, number=last, chosen=place, said=said, failed=False), choices

    def edit(self, session: Session, what: str, *more: Any) -> Session:
        """Change the text at the chosen place by a method of `EditedText`."""
        if session.edited is None or session.chosen is None or None in more:
            return failed(session, ValueError("Choose a token of the text first."))
        try:
            edited = getattr(session.edited, what)(session.chosen, *more)
        except ValueError as error:
            return failed(session, error)
        masked = sum(cell.token is None for cell in edited.cells)
        said = f"Changed; {masked} masked, to be filled again." if masked else "Changed."
        chosen = min(session.chosen, len(edited.cells) - 1)
        return Session(edited, None, 0, chosen, said)

    def view(self, session: Session) -> str:
        """Write the text as buttons."""
        if session.edited is None:
            return ""
        unmasking = session.unmasking
        if unmasking is None:
            frame, passes = self.editor.frame(session.edited), 1
            passes += max((place.step for place in frame), default=0)
            return self.kind.view(frame, passes, session.chosen, 0)
        frame = unmasking.frames[session.number]
        # While it is filled nobody knows how many passes there will be.
        return self.kind.view(frame, unmasking.num_passes, session.chosen, session.number)

    def picture(self, session: Session) -> str:
        """Draw the finished text, where its kind is drawn."""
        if self.kind.draw is None or session.edited is None:
            return ""
        if any(cell.token is None for cell in session.edited.cells):
            return "<p>The molecule is drawn when all is filled.</p>"
        return self.kind.draw(self.editor.text(session.edited))

    def save(self, session: Session, suffix: str, folder: str | Path) -> str:
        """Save how the text came about as a file in a folder, and return its path.

        Raises:
            ValueError: when there is nothing to save.
        """
        if session.unmasking is None:
            raise ValueError("Fill the text first, and then save how it came about.")
        path = Path(folder, f"text{suffix}")
        save_animation(session.unmasking, path, session.unmasking.summary)
        return str(path)


def failed(session: Session, error: Exception) -> Session:
    """Say what went wrong, in its own sentence."""
    return replace(session, said=str(error), failed=True)


def told(session: Session) -> str:
    """Write what the app says as HTML, which a screen reader reads aloud."""
    role = "alert" if session.failed else "status"
    return f'<p class="said" role="{role}">{safe(session.said)}</p>'
