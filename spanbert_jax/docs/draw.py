"""Draws the images of the pages as SVG files.

  python -m spanbert_jax.docs.draw

The curve is drawn from loss.json, which says where its numbers come from.
"""
import html
import json
from collections.abc import Callable, Sequence

from spanbert_jax.docs import FOLDER

# Each image has a light background of its own, so that it can be read on light and on dark pages.
_PAPER, _INK, _MUTED = "#fbfcfe", "#1f2937", "#64748b"
_BLUE, _ORANGE, _GREEN, _GREY = "#dbeafe", "#ffedd5", "#dcfce7", "#eef2f6"
_LINES = {_BLUE: "#2563eb", _ORANGE: "#ea580c", _GREEN: "#16a34a", _GREY: "#94a3b8"}
_SANS = "Helvetica, Arial, sans-serif"
_MONO = "Menlo, Consolas, 'DejaVu Sans Mono', monospace"

# The packages, in the order of imports: a package imports from the rows below its own only. Those of one row are
# independent of each other.
PACKAGES = (
    (("commands", "one file per command of the command line"),),
    (("planning", "memory, time and cost of a run, from the compilers"),),
    (("pretraining", "corpus, masking, both heads"), ("finetuning", "tasks, sweeps")),
    (("inference", "fine-tuned models over files and texts; pipelines"),),
    (("training", "the engine: mesh, state, step, loop, optimizers"),),
    (("tasks", "one file per task; readers and metrics"),),
    (("interop", "weights in and out"),),
    (("corpus", "text to rows"), ("checkpoints", "save, verify"), ("generation", "search")),
    (("masking", "span masking on the device"), ("model", "encoder, heads, losses")),
    (("text", "tokenizers and sentence boundaries"),),
    (("cluster", "processes of a run: join, agree, stop, lock"),),
    (("common", "errors, settings, files, registries, console"),),
)


class Drawing:
    """An SVG image of a given size to which shapes are added."""

    def __init__(self, width: int, height: int, title: str):
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="{html.escape(_SANS)}">',
            f"<title>{html.escape(title)}</title>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{_MUTED}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="10" fill="{_PAPER}"/>']

    def text(self, x: float, y: float, text: str, size: int = 14, colour: str = _INK, anchor: str = "middle",
             mono: bool = False, bold: bool = False) -> None:
        """Adds a line of text whose baseline is at `y`."""
        font = f' font-family="{html.escape(_MONO)}"' if mono else ""
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
                           f"{font}{weight}>{html.escape(text)}</text>")

    def box(self, x: float, y: float, width: float, height: float, fill: str, lines: Sequence[str] = (),
            size: int = 14, mono: bool = False) -> None:
        """Adds a box; its first line is bold if there are several."""
        self._parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" '
                           f'stroke="{_LINES[fill]}" stroke-width="1.3"/>')
        step = size + 5
        top = y + height / 2 - step * (len(lines) - 1) / 2 + size * 0.35
        for number, line in enumerate(lines):
            self.text(x + width / 2, top + number * step, line, size if number == 0 else size - 1,
                      _INK if number == 0 else _MUTED, mono=mono, bold=number == 0 and len(lines) > 1)

    def arrow(self, *points: tuple[float, float], colour: str = _MUTED) -> None:
        """Adds a line through points with a head at its end."""
        self._line(points, colour, ' marker-end="url(#head)"')

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1.5,
             dashed: bool = False) -> None:
        """Adds a line through points."""
        self._line(points, colour, ' stroke-dasharray="5 4"' if dashed else "", width)

    def circle(self, x: float, y: float, radius: float, colour: str) -> None:
        """Adds a filled circle."""
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{colour}"/>')

    def svg(self) -> str:
        """The image as text."""
        return "\n".join([*self._parts, "</svg>"]) + "\n"

    def _line(self, points: Sequence[tuple[float, float]], colour: str, extra: str, width: float = 1.5) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{extra}/>')


def _cells(drawing: Drawing, x: float, y: float, words: Sequence[str], fills: Sequence[str], width: float = 76,
           height: float = 32) -> list[float]:
    """Draws a row of tokens; returns the middle of each."""
    for number, (word, fill) in enumerate(zip(words, fills)):
        drawing.box(x + number * (width + 4), y, width, height, fill, [word], size=13, mono=True)
    return [x + number * (width + 4) + width / 2 for number in range(len(words))]


def pretraining() -> str:
    """From text to rows, to masked rows, to both heads."""
    drawing = Drawing(900, 470, "Text becomes rows, rows are masked, and two heads predict the masked tokens")
    tokens = ["[CLS]", "The", "old", "light", "##house", "stood", "by", "the", "sea", "[SEP]"]
    masked, span = [*tokens], range(2, 5)
    masked[2:5] = ["[MASK]"] * 3
    plain = [_GREY] * len(tokens)
    drawing.text(450, 36, "“The old lighthouse stood by the sea ...”", 16)
    drawing.arrow((450, 48), (450, 82))
    drawing.text(464, 70, "prepare, once: sentences, wordpieces, rows", 13, _MUTED, "start")
    middles = _cells(drawing, 52, 88, tokens, [_BLUE if at in span else fill for at, fill in enumerate(plain)])
    drawing.arrow((450, 126), (450, 160))
    drawing.text(464, 148, "mask spans of words: a function of (seed, step, row)", 13, _MUTED, "start")
    _cells(drawing, 52, 166, masked, [_ORANGE if at in span else fill for at, fill in enumerate(plain)])
    drawing.arrow((450, 204), (450, 224))
    drawing.box(52, 228, 796, 42, _GREY, ["encoder"], 15)
    for at in span:
        drawing.arrow((middles[at], 270), (middles[at], 318))
    drawing.arrow((middles[1], 270), (middles[1], 296), (620, 296), (620, 318))
    drawing.arrow((middles[5], 270), (middles[5], 284), (680, 284), (680, 318))
    drawing.box(170, 322, 300, 58, _ORANGE, ["masked-token head", "from each masked position's own state"])
    drawing.box(520, 322, 328, 58, _GREEN, ["boundary head", "from “The”, “stood” and the place in the span"])
    for x in (320, 684):
        drawing.arrow((x, 380), (x, 404))
        drawing.text(x, 422, "old  light  ##house", 13, mono=True)
    drawing.text(450, 452, "loss = masked-token loss + boundary loss, over the masked positions only", 14, _MUTED)
    return drawing.svg()


def boundary() -> str:
    """The span boundary objective for one span."""
    drawing = Drawing(900, 380, "The boundary objective predicts each token of a span from the tokens next to the span")
    tokens = ["The", "[MASK]", "[MASK]", "[MASK]", "stood", "by", "the", "sea"]
    fills = [_GREEN, _ORANGE, _ORANGE, _ORANGE, _GREEN, _GREY, _GREY, _GREY]
    middles = _cells(drawing, 40, 296, tokens, fills, width=98)
    drawing.text(middles[0], 350, "left boundary", 13, _MUTED)
    drawing.text(middles[2], 350, "span: old light ##house", 13, _MUTED)
    drawing.text(middles[4], 350, "right boundary", 13, _MUTED)
    drawing.box(40, 234, 812, 36, _GREY, ["encoder"], 14)
    for middle in middles:
        drawing.line([(middle, 296), (middle, 270)], _MUTED)
    drawing.box(200, 120, 500, 60, _GREEN, ["boundary head: [left; right; place] → 2 layers → vocabulary",
                                            "GELU and layer norm after each; output tied to the token embedding"], 14)
    drawing.arrow((middles[0], 234), (middles[0], 210), (300, 210), (300, 183))
    drawing.arrow((middles[4], 234), (middles[4], 210), (450, 210), (450, 183))
    drawing.text(290, 204, "hidden state", 12, _MUTED, "end")
    drawing.text(442, 204, "hidden state", 12, _MUTED, "end")
    drawing.arrow((650, 210), (650, 183))
    drawing.text(660, 205, "place 0, 1 or 2 (embedding)", 12, _MUTED, "start")
    for number, (x, word) in enumerate(zip((300, 450, 600), ("old", "light", "##house"))):
        drawing.arrow((x, 120), (x, 88))
        drawing.text(x, 74, word, 15, mono=True)
        drawing.text(x, 48, f"place {number}", 12, _MUTED)
    drawing.text(450, 24, "each token of the span, predicted without looking at its own position", 14, _MUTED)
    return drawing.svg()


def packages() -> str:
    """The packages in the order of imports."""
    height = 46
    drawing = Drawing(760, 72 + height * len(PACKAGES), "The packages: each imports from those below it only")
    drawing.text(380, 30, "a package imports from the rows below its own only", 14, _MUTED)
    fills = dict(commands=_BLUE, planning=_BLUE, pretraining=_ORANGE, finetuning=_ORANGE, training=_GREEN)
    for number, row in enumerate(PACKAGES):
        width = (700 - 12 * (len(row) - 1)) / len(row)
        for column, (name, what) in enumerate(row):
            x, y = 30 + column * (width + 12), 46 + number * height
            drawing.box(x, y, width, height - 8, fills.get(name, _GREY))
            drawing.text(x + 14, y + 24, name, 14, anchor="start", bold=True, mono=True)
            drawing.text(x + width - 14, y + 24, what, 13, _MUTED, "end")
    return drawing.svg()


def resume() -> str:
    """A run that is killed and continues, and the same run without interruption."""
    drawing = Drawing(900, 300,
                      "Stop and resume: the resumed run continues bit for bit from the newest valid checkpoint")

    def at(step: int) -> float:
        return 150 + step * 1.15

    def run(y: float, first: int, last: int, name: str, saves: Sequence[int]) -> None:
        drawing.text(134, y + 5, name, 14, anchor="end")
        drawing.arrow((at(first), y), (at(last) + (18 if last in saves else 0), y), colour=_INK)
        for step in saves:
            drawing.circle(at(step), y, 6, _LINES[_GREEN])

    run(70, 0, 260, "first start", (100, 200))
    drawing.text(at(260) + 12, 76, "✕ kill -9 at step 260", 15, _LINES[_ORANGE], "start", bold=True)
    run(140, 200, 600, "same command", (300, 400, 500, 600))
    drawing.line([(at(200), 78), (at(200), 132)], _LINES[_GREEN], dashed=True)
    drawing.text(at(200) + 10, 108, "newest valid checkpoint: parameters, optimizer, step", 13, _MUTED, "start")
    run(220, 0, 600, "never stopped", (100, 200, 300, 400, 500, 600))
    drawing.line([(at(600), 148), (at(600), 212)], _LINES[_GREEN], dashed=True)
    drawing.text(at(600) - 10, 186, "equal, bit for bit, on the same devices", 13, _MUTED, "end")
    for step in range(0, 601, 100):
        drawing.text(at(step), 252, str(step), 12, _MUTED)
    drawing.text(at(300), 280, "step; the data order and the masks are functions of seed and step", 13, _MUTED)
    return drawing.svg()


def loss() -> str:
    """Curves of a quickstart run: training loss of both heads, and the held-out masked-token loss."""
    numbers = json.loads((FOLDER / "loss.json").read_text(encoding="utf-8"))
    curves = (("masked-token head, training", numbers["train"]["masked_loss"], _LINES[_ORANGE], False),
              ("boundary head, training", numbers["train"]["boundary_loss"], _LINES[_GREEN], False),
              ("masked-token head, held out", numbers["evaluation"]["masked_loss"], _LINES[_BLUE], True))
    last = max(step for _, points, *_ in curves for step, _ in points)
    low, high = 6.0, 8.4
    drawing = Drawing(760, 400, "Training loss and held-out loss of a quickstart run")

    def at(step: float, value: float) -> tuple[float, float]:
        return 70 + 640 * step / last, 330 - 280 * (min(value, high) - low) / (high - low)

    for tick in (6.0, 6.5, 7.0, 7.5, 8.0):
        drawing.line([at(0, tick), at(last, tick)], "#e2e8f0", 1)
        drawing.text(62, at(0, tick)[1] + 4, f"{tick:.1f}", 12, _MUTED, "end")
    unigram = numbers["unigram_loss"]
    drawing.line([at(0, unigram), at(last, unigram)], _MUTED, dashed=True)
    drawing.text(710, at(0, unigram)[1] - 8, f"guess by token frequency, {unigram:.2f}", 12, _MUTED, "end")
    for step in range(0, last + 1, 100):
        drawing.text(at(step, low)[0], 350, str(step), 12, _MUTED)
    drawing.text(390, 374, "step", 13, _MUTED)
    drawing.text(70, 30, "nats per masked token", 13, _MUTED, "start")
    for number, (name, points, colour, marked) in enumerate(curves):
        line = [at(step, value) for step, value in points]
        drawing.line(line, colour, 2)
        for x, y in line if marked else ():
            drawing.circle(x, y, 4, colour)
        drawing.line([(470, 52 + 22 * number), (500, 52 + 22 * number)], colour, 2)
        drawing.text(510, 57 + 22 * number, name, 13, anchor="start")
    return drawing.svg()


IMAGES: dict[str, Callable[[], str]] = {
    "pretraining": pretraining, "boundary": boundary, "packages": packages, "resume": resume, "loss": loss}


def main() -> None:
    """Writes every image."""
    (FOLDER / "images").mkdir(exist_ok=True)
    for name, draw in IMAGES.items():
        (FOLDER / "images" / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
