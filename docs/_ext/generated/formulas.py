"""Formulas as SVG, drawn by matplotlib when the site is built; pages require no scripts, network access or fonts."""

from functools import cache
from html import escape

import numpy as np
from docutils import nodes
from matplotlib import rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

SIZE = 10.0  # font size in points; 1 em equals this number of drawing units
LETTERS = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}  # SVG path commands, keyed by matplotlib's path codes
POINTS = {"M": 1, "L": 1, "Q": 2, "C": 3, "Z": 1}


@cache
def svg(formula: str) -> str:
    """Returns an SVG drawing in the color of the text, aligned with the baseline of the text.

    Raises:
        ValueError: The formula contains a command that matplotlib's mathtext does not support.
    """
    text = "$" + " ".join(formula.split()) + "$"
    font = FontProperties(size=SIZE)
    with rc_context({"mathtext.fontset": "cm"}):
        width, height, descent = text_to_path.get_text_width_height_descent(text, font, ismath=True)
        vertices, codes = text_to_path.get_text_path(font, text, ismath=True)
    scale = SIZE / text_to_path.FONT_SCALE
    d = outline(np.asarray(vertices) * [scale, -scale], [int(code) for code in codes])
    pad = 0.6
    box = f"{-pad:.2f} {descent - height - pad:.2f} {width + 2 * pad:.2f} {height + 2 * pad:.2f}"
    em = f"width:{(width + 2 * pad) / SIZE:.3f}em;vertical-align:{-(descent + pad) / SIZE:.3f}em"
    label = escape(formula, quote=True)
    return (
        f'<svg class="formula" role="img" aria-label="{label}" style="{em}" viewBox="{box}">'
        f'<title>{label}</title><path fill="currentColor" d="{d}"/></svg>'
    )


def outline(vertices: np.ndarray, codes: list[int]) -> str:
    """Returns the `d` attribute of an SVG path, built from points (N,2) and their matplotlib codes."""
    parts: list[str] = []
    n = 0
    while n < len(codes):
        letter = LETTERS[codes[n]]
        count = POINTS[letter]
        points = " ".join(f"{x:.2f} {y:.2f}" for x, y in vertices[n : n + count])
        parts.append(letter if letter == "Z" else letter + points)
        n += count
    return "".join(parts)


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(svg(node.astext()))
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    large = node.astext().replace(r"\frac", r"\dfrac")
    self.body.append(f'<div class="formula-block">{svg(large)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Registers the renderer under the name `svg`."""
    app.add_html_math_renderer("svg", (_inline, None), (_block, None))
