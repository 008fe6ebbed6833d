"""The report of a run: one HTML file with everything in it."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from gankernels import plots
from gankernels._files import read_object, write_whole
from gankernels.training.run_folder import frames

__all__ = ["write_report"]

_MEDIA = {".png": "image/png", ".gif": "image/gif"}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8888; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.15rem 1.5rem 0.15rem 0; }
th { font-weight: 500; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
tr + tr { border-top: 1px solid #8883; }
img { max-width: 100%; image-rendering: pixelated; }
figure { margin: 1rem 0; }
figcaption { font-size: 0.9rem; opacity: 0.75; }
.stills { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
"""


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html`` of a run: its pictures, last metrics, configuration and environment.

    The pictures are inside the file, which therefore can be moved and mailed. It needs
    ``config.json`` and ``metrics.jsonl``. Of the rest it shows what is there: ``final.png``, the
    first and the last of ``samples/step_*.png``, ``samples.gif`` and ``evaluation.json``;
    ``curves.png`` is drawn anew.

    Args:
        run_dir: The run's folder.

    Returns:
        The path of ``report.html``.

    Raises:
        FileNotFoundError: ``config.json`` or ``metrics.jsonl`` is missing.
        ValueError: One of the JSON files is corrupt; the message names it.
    """
    run_dir = Path(run_dir)
    config = read_object(run_dir / "config.json")
    records = plots.read_metrics(run_dir)
    environment = config.pop("environment", None)
    title = f"{config.get('recipe', 'training')} run {run_dir.resolve().name}"
    distributions = [r for r in records if "real_distribution" in r]
    last = {k: v for k, v in records[-1].items() if not isinstance(v, list)}
    sections = [
        f"<h1>{escape(title)}</h1>\n<p>{last['step']:,} steps</p>",
        _section("Samples", _samples(run_dir)),
        _section(
            "Training", [_figure(plots.save_curves(run_dir), "Losses and other metrics by step")]
        ),
        _section("Realness", _realness(run_dir, distributions)),
        _section("Evaluation", _evaluation(run_dir / "evaluation.json")),
        _section("Final metrics", [_table(last)]),
        _section("Configuration", [_table(config)]),
        _section("Environment", [_table(environment)] if environment else []),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{''.join(sections)}</body>\n</html>\n"
    )
    return write_whole(
        run_dir / "report.html", lambda file: file.write_text(page, encoding="utf-8")
    )


def _section(title: str, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return f"\n<h2>{escape(title)}</h2>\n{body}\n" if body else ""


def _samples(run_dir: Path) -> Iterator[str]:
    stills = [(run_dir / "final.png", "At the end")]
    grids = frames(run_dir)
    if grids:
        stills.append((grids[0], f"First samples: {grids[0].stem}"))
        stills.append((grids[-1], f"Last samples: {grids[-1].stem}"))
    # The last samples are often the final picture, and the first ones may be the only ones.
    distinct: dict[bytes, str] = {}
    for path, caption in stills:
        if path.is_file():
            distinct.setdefault(path.read_bytes(), _figure(path, caption))
    if distinct:
        yield '<div class="stills">\n' + "\n".join(distinct.values()) + "\n</div>"
    if (run_dir / "samples.gif").is_file():
        yield _figure(run_dir / "samples.gif", "Samples from one noise batch as training goes on")


def _realness(run_dir: Path, records: list[dict[str, Any]]) -> Iterator[str]:
    """What the discriminator says, where its loss is over distributions."""
    if records:
        said = "Mean distributions that D gives to real samples and to those in the pictures"
        yield _drawn(plots.realness(records), said)
    if any("real_anchor" in r for r in records):
        yield _drawn(plots.anchors(run_dir), "Anchors that D is trained towards")


def _evaluation(path: Path) -> list[str]:
    return [_table(read_object(path))] if path.is_file() else []


def _figure(path: Path, caption: str) -> str:
    return _embedded(path.read_bytes(), _MEDIA[path.suffix], caption)


def _drawn(figure: Any, caption: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return _embedded(file.getvalue(), "image/png", caption)


def _embedded(content: bytes, media: str, caption: str) -> str:
    data = base64.b64encode(content).decode("ascii")
    text = escape(caption)
    source = f"data:{media};base64,{data}"
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _table(values: dict[str, Any]) -> str:
    rows = (
        f"<tr><th>{escape(name)}</th><td>{escape(_text(value))}</td></tr>"
        for name, value in _flatten(values)
    )
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    return value if isinstance(value, str) else json.dumps(value)
