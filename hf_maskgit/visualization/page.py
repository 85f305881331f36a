"""A text that comes about as an HTML page of its own: step, play, and ask every token."""

import base64
import hashlib
import html
import json
from typing import Any

from ..hub.visible import visible
from .layout import DARK, LEGEND, LIGHT, Theme, columns_of, share_of
from .recording import Unmasking, letters_of, said_of

_STYLE = """
:root { color-scheme: light dark; }
body { background: var(--paper); color: var(--ink); margin: 0 auto; max-width: 60rem; padding: 1rem;
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.1rem; margin: 0 0 .75rem; overflow-wrap: anywhere; }
#text { font: 1.05rem/2.2 ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace;
  min-height: 5rem; overflow-wrap: anywhere; }
#text span { border-radius: .25rem; padding: .2rem .15rem; border: 2px solid transparent;
  display: inline-block; line-height: 1.4; }
#text span.masked { background: var(--hidden); color: transparent; }
#text span.new { border-color: var(--bar); }
#text span:focus-visible, button:focus-visible, input:focus-visible {
  outline: 3px solid var(--ink); outline-offset: 1px; }
#said { color: var(--faint); min-height: 3rem; margin: .5rem 0; }
#controls { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
button { font: inherit; padding: .4rem .8rem; min-width: 2.75rem; min-height: 2.75rem; }
#step { flex: 1 1 12rem; }
"""

_SCRIPT = """
'use strict';
const told = JSON.parse(document.getElementById('told').textContent);
const text = document.getElementById('text'), said = document.getElementById('said');
const step = document.getElementById('step'), count = document.getElementById('count');
const play = document.getElementById('play');
let number = 0, timer = null;

function token(place, index) {
  const span = document.createElement('span');
  const name = place.text === null ? 'Mask' : `\\u201c${place.text}\\u201d`;
  span.textContent = place.text === null ? '\\u00b7\\u00b7' : place.text;
  span.style.minWidth = `${told.places[index].letters}ch`;
  span.tabIndex = 0;
  span.title = place.said;
  span.setAttribute('aria-label', `${name}: ${place.said}`);
  if (place.text === null) {
    span.className = 'masked';
  } else if (place.step >= 0) {
    span.style.setProperty('--bar', `var(--b${place.step})`);
    const sure = place.probability === null ? 0 : 100 * place.probability;
    span.style.background =
      `linear-gradient(var(--b${place.step}), var(--b${place.step})) left bottom / ${sure}% 3px ` +
      `no-repeat, var(--p${place.step})`;
    if (place.step === number - 1) span.className = 'new';
  }
  const tell = () => { said.textContent = `${name}: ${place.said}`; };
  for (const kind of ['mouseenter', 'focus', 'click']) span.addEventListener(kind, tell);
  return span;
}

function show(wanted) {
  number = Math.max(0, Math.min(told.frames.length - 1, wanted));
  text.replaceChildren();
  told.frames[number].forEach((place, index) => {
    if (index && !told.places[index].joined) text.append(' ');
    text.append(token(place, index));
  });
  step.value = number;
  count.textContent = `${number} of ${told.frames.length - 1} passes`;
}

function stop() { clearInterval(timer); timer = null; play.textContent = 'Play'; }

function start() {
  if (number === told.frames.length - 1) show(0);
  play.textContent = 'Pause';
  timer = setInterval(() => {
    show(number + 1);
    if (number === told.frames.length - 1) stop();
  }, 1000 * told.seconds);
}

step.max = told.frames.length - 1;
document.getElementById('before').onclick = () => { stop(); show(number - 1); };
document.getElementById('after').onclick = () => { stop(); show(number + 1); };
play.onclick = () => timer === null ? start() : stop();
step.oninput = () => { stop(); show(Number(step.value)); };
document.addEventListener('keydown', event => {
  if (event.target === step) return;
  if (event.key === 'ArrowLeft') { stop(); show(number - 1); }
  if (event.key === 'ArrowRight') { stop(); show(number + 1); }
});
show(0);
if (!matchMedia('(prefers-reduced-motion: reduce)').matches) start();
else show(told.frames.length - 1);
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src '{digest}'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<div id="text"><noscript>{finished}</noscript></div>
<div id="controls">
<button id="before" aria-label="One pass back">&#9664;</button>
<button id="play">Play</button>
<button id="after" aria-label="One pass on">&#9654;</button>
<input id="step" type="range" min="0" value="0" aria-label="Pass">
<span id="count" role="status"></span>
</div>
<p id="said" aria-live="polite">{legend}. Point at a token, or tab to it, to ask about it.</p>
<script type="application/json" id="told">{told}</script>
<script>{script}</script>
</body>
</html>
"""


def page_of(unmasking: Unmasking, title: str = "", *, seconds_per_pass: float = 0.7) -> str:
    """Write an HTML page that asks nothing of the network and runs its own script alone.

    It has buttons and a slider for the passes, works from the keyboard and on a phone, follows the
    reader's light or dark system, and stands still for who asked for that. Tokens get into it as
    text and nothing else; its Content-Security-Policy allows the one script by its digest.

    Args:
        unmasking: the text.
        title: stands above it, and in the title bar.
        seconds_per_pass: of playing.
    """
    script = hashlib.sha256(_SCRIPT.encode()).digest()
    return _PAGE.format(
        digest=f"sha256-{base64.b64encode(script).decode()}",
        title=html.escape(visible(title or "A text comes about")),
        style="\n".join([_STYLE, *_colours(unmasking)]),
        finished=html.escape(unmasking.text),
        legend=html.escape(LEGEND.capitalize()),
        told=_json(
            {
                "seconds": seconds_per_pass,
                "places": _places(unmasking),
                "frames": _frames(unmasking),
            }
        ),
        script=_SCRIPT,
    )


def _places(unmasking: Unmasking) -> list[dict[str, Any]]:
    """Tell what holds of a place in every frame, so that no word moves: its room, and its space."""
    return [
        {
            "joined": shown[-1].joined,
            "letters": max(columns_of(letters_of(place.text or "")) for place in shown),
        }
        for shown in zip(*unmasking.frames, strict=True)
    ]


def _frames(unmasking: Unmasking) -> list[list[dict[str, Any]]]:
    return [
        [
            {
                "text": None if place.text is None else letters_of(place.text),
                "step": place.step,
                "probability": place.probability,
                "said": said_of(place, unmasking.num_passes),
            }
            for place in frame
        ]
        for frame in unmasking.frames
    ]


def _json(value: Any) -> str:
    """Write JSON that ends no script and begins no comment, whatever its strings hold."""
    written = json.dumps(value)  # ASCII: also the line ends of JavaScript are escaped
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _colours(unmasking: Unmasking) -> list[str]:
    def of(theme: Theme) -> str:
        fixed = f"--paper: {theme.paper}; --ink: {theme.ink}; --faint: {theme.faint}; "
        shares = [share_of(step, unmasking.num_passes) for step in range(unmasking.num_passes)]
        ramp = [
            f"--p{step}: {theme.behind(share)}; --b{step}: {theme.bar_of(share)};"
            for step, share in enumerate(shares)
        ]
        return f":root {{ {fixed}--hidden: {theme.hidden}; {' '.join(ramp)} }}"

    return [of(LIGHT), f"@media (prefers-color-scheme: dark) {{ {of(DARK)} }}"]
