"""Formulas as SVG, drawn by matplotlib when the site is built: no script, no network, no fonts of the reader."""

from functools import cache
from html import escape

import numpy as np
from docutils import nodes
from matplotlib import rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

SIZE = 10.0  # points a letter; 1 em is this many units of a drawing
LETTERS = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}  # matplotlib's codes of the commands of a path
POINTS = {"M": 1, "L": 1, "Q": 2, "C": 3, "Z": 1}


@cache
def svg(formula: str) -> str:
    """Returns a drawing in the color of the text, on its base line.

    Raises:
        ValueError: matplotlib's mathtext does not have a command of the formula.
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
    """Returns the `d` of an SVG path from points (N,2) and matplotlib's codes of them."""
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
