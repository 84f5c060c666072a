"""Learning curves of a decoder that is initialized from its encoder, and of one that is initialized randomly.

  SPANBERT_DATA=../shared/data python -m tests.benchmarks.compare_starts --config configs/translation.py:small=true \\
      --workdir runs/starts --config.train.duration="1 epochs"

Trains the config once for each initialization, evaluates ten times, and prints the perplexity of the dev targets by
step; WORKDIR/curves.svg has the curves. If it is stopped, the same command continues.
"""
from __future__ import annotations

import argparse
import pathlib

import rich.console
import rich.table

from spanbert_jax.commands.config_files import load_config
from spanbert_jax.commands.train import parse
from spanbert_jax.finetuning.config import as_finetuning_config
from spanbert_jax.finetuning.run import finetune
from spanbert_jax.training.trackers import read_metrics

_WIDTH, _HEIGHT, _MARGIN = 640, 360, 50
_COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce")


def main() -> None:
    """Trains, prints the table and draws the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--starts", default="encoder,random")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    args = parse(parser, None)
    curves: dict[str, list[tuple[int, float]]] = {}
    for start in args.starts.split(","):
        config = load_config(args.config, [*args.overrides, f"--config.task.decoder={start}",
                                           "--config.evaluation.every=10 percent"])
        workdir = args.workdir / start.replace("/", "_")
        if not finetune(as_finetuning_config(config), workdir).finished:
            parser.exit(75, "Stopped and saved. Run the same command again to continue.\n")
        curves[start] = [(line["step"], line["perplexity"]) for line in read_metrics(workdir)
                         if line["kind"] == "evaluation"]
    table = rich.table.Table("step", *curves, title="perplexity of the dev targets")
    for rows in zip(*curves.values(), strict=True):
        table.add_row(f"{rows[0][0]:,}", *(f"{value:.2f}" for _, value in rows))
    rich.console.Console(width=100).print(table)
    (args.workdir / "curves.svg").write_text(draw(curves), encoding="utf-8")


def draw(curves: dict[str, list[tuple[int, float]]]) -> str:
    """Curves by name as an SVG picture."""
    steps = max(step for curve in curves.values() for step, _ in curve)
    highest = max(value for curve in curves.values() for _, value in curve)
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
             f'font-size="13"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = _MARGIN + share * width, _MARGIN + (1 - share) * height
        parts.append(f'<line x1="{_MARGIN}" x2="{_MARGIN + width}" y1="{y}" y2="{y}" stroke="#ddd"/>'
                     f'<text x="{_MARGIN - 6}" y="{y + 4}" text-anchor="end">{share * highest:.0f}</text>'
                     f'<text x="{x}" y="{_MARGIN + height + 18}" text-anchor="middle">{share * steps:,.0f}</text>')
    parts.append(f'<text x="{_MARGIN}" y="24">perplexity of the dev targets</text>'
                 f'<text x="{_MARGIN + width}" y="{_HEIGHT - 12}" text-anchor="end">step</text>')
    for number, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{_MARGIN + step / steps * width:.1f},{_MARGIN + (1 - value / highest) * height:.1f}"
                          for step, value in curve)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
                     f'<text x="{_WIDTH - _MARGIN}" y="{_MARGIN + 18 * number}" text-anchor="end" fill="{colour}">'
                     f"{name}</text>")
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    main()
