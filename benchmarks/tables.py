"""Writes the tables of README.md and of pages in docs/ from the committed results.

python -m benchmarks.tables           write them
python -m benchmarks.tables --check   fail where a page is out of date
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import accuracy, gpu_tables, quality, results, switching, toy_modes, versions
from benchmarks import goals as goals_of_the_package
from benchmarks.losses import is_rival
from benchmarks.results import by_case, table
from benchmarks.scaling import slopes
from tools.gpu_table import peers_page

ROOT = Path(__file__).parent.parent
Rows = list[dict[str, Any]]
FRESH = "floor: copy to fresh memory"


def _source(name: str) -> str:
    e = results.load(name)["environment"]
    return (
        f"{e['processor']} ({e['cpu_capability']}), {e['threads']} thread(s), torch {e['torch']}, "
        f"Python {e['python']}, {e['compiler']}, {e['date']}, commit {e['commit']}. Command: "
        f"`{e['command']}`; every row is in `benchmarks/results/{name}.json`."
    )


def _time(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['median_us']:,.1f} µs"


# ------------------------------------------------------------------------------------- README.md


def losses() -> str:
    """One line per case: our time, and how many times longer each rival takes."""
    lines: list[list[object]] = []
    for (operator, shape, dtype), by_name in by_case("losses").items():
        rivals = [r for name, r in by_name.items() if is_rival(name)]
        ratios = ", ".join(f"{r['contender']} {r['ratio_to_ours']:.2f}" for r in rivals)
        fused = by_name.get("gankernels value_and_grad")
        ours = by_name["gankernels"]
        lines.append(
            [f"`{operator}`", results.written(shape), dtype, _time(ours), _time(fused), ratios]
        )
    head = ["operator, forward + backward", "shape", "dtype", "gankernels", "`value_and_grad`"]
    text = table([*head, "rivals: time / ours"], lines)
    return f"{text}\n\nMedians of interleaved rounds; above 1, the rival is slower. {_source('losses')}"


README_STEPS = (
    "article's loop",
    "article's loop, channels-last, fused Adam, torch.compile",
    "article's loop, channels-last, fused Adam",
    "alternating + the same, pages kept",
    "alternating + the same, torch.compile",
    "alternating (two passes)",
    "one-pass, objective 2",
    "exact one-pass",
    "one-pass ratio",
    "reversal, objective 1",
    "reversal, fused Adam",
)


def short_steps() -> str:
    """The steps that a user chooses between."""
    rows = [r for r in results.load("steps")["rows"] if r["contender"] in README_STEPS]
    lines = [
        [r["system"], r["contender"], f"{r['median_ms']:.1f} ms", f"{r['speed_up']:.2f}"]
        for r in rows
    ]
    text = table(["system", "step, batch 128", "time", "speed-up"], lines)
    return f"{text}\n\nSpeed-up over the article's loop in the same rounds. {_source('steps')}"


# --------------------------------------------------------------------------- docs/performance.md


def _best(by_name: dict[str, dict[str, Any]], compiled: bool) -> dict[str, Any] | None:
    rivals = [
        r for name, r in by_name.items() if is_rival(name) and name.endswith("compiled") == compiled
    ]
    return min(rivals, key=lambda r: r["ratio_to_ours"], default=None)


def _ratio(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['ratio_to_ours']:.2f} ({row['contender']})"


def all_losses() -> str:
    """One line per case: the best eager and the best compiled rival, and the floors."""
    lines: list[list[object]] = []
    for (operator, shape, dtype), by_name in by_case("losses_full").items():
        ours = by_name["gankernels"]
        floors = [
            "" if ours[k] is None else f"{ours[k]:.2f}" for k in ("engine_share", "copy_share")
        ]
        lines.append(
            [
                f"`{operator}`",
                results.written(shape),
                dtype,
                _time(ours),
                _time(by_name.get("gankernels value_and_grad")),
                _ratio(_best(by_name, compiled=False)),
                _ratio(_best(by_name, compiled=True)),
                *floors,
            ]
        )
    head = ["operator", "shape", "dtype", "ours", "`value_and_grad`", "best eager rival / ours"]
    head += ["best compiled rival / ours", "engine / ours", "copy / ours"]
    return f"{table(head, lines)}\n\n{_source('losses_full')}"


def each() -> str:
    """The losses of elements, a loss a line: PyTorch's time over ours by shape."""
    found: dict[str, dict[str, float]] = {}
    for (operator, shape, _), by_name in by_case("each").items():
        ratio = by_name["plain PyTorch"]["ratio_to_ours"]
        found.setdefault(operator.split()[0], {})[results.written(shape)] = ratio
    shapes = list(next(iter(found.values())))
    lines: list[list[object]] = [
        [f"`{loss}`", *(f"{of[shape]:.2f}" for shape in shapes)] for loss, of in found.items()
    ]
    return f"{table(['PyTorch / ours', *shapes], lines)}\n\n{_source('each')}"


def lost() -> str:
    """Cases in which a rival is more than 5 % faster."""
    lines: list[list[object]] = [
        [
            f"`{r['operator']}`",
            results.written(r["shape"]),
            r["dtype"],
            r["contender"],
            r["ratio_to_ours"],
        ]
        for name in ("losses", "losses_full")
        for r in results.load(name)["rows"]
        if is_rival(r["contender"]) and r["ratio_to_ours"] < 1 / 1.05
    ]
    if not lines:
        return "None in these results."
    return table(["operator", "shape", "dtype", "rival", "rival / ours"], lines)


def stages() -> str:
    """Microseconds by stage of a small call."""
    rows = results.load("dispatch")["rows"]
    lines = [[r["stage"], r["median_us"], r["p20_us"], r["p80_us"]] for r in rows]
    return f"{table(['stage', 'µs', 'p20', 'p80'], lines)}\n\n{_source('dispatch')}"


def steps() -> str:
    """Every contender of the steps."""
    lines: list[list[object]] = []
    for r in results.load("steps")["rows"]:
        over = r["speed_up_over_two_passes"]
        share = r["loss_share"]
        line = [r["system"], r["contender"], f"{r['median_ms']:.1f}"]
        line += [f"{r['images_per_second']:.0f}", f"{r['speed_up']:.2f}"]
        line += ["" if over is None else f"{over:.2f}", f"{r['peak_mib']:.0f}"]
        line += ["" if share is None else f"{100 * share:.2f} %", r["same_updates_as"]]
        lines.append([*line, f"{r['largest_difference']:.0e}"])
    head = ["system", "step, batch 128", "ms", "images/s", "speed-up", "over two passes"]
    head += ["peak MiB", "loss", "updates of", "difference"]
    return f"{table(head, lines)}\n\n{_source('steps')}"


def shares() -> str:
    """Groups of operators as columns, contenders as rows; and what would be left to gain beside convolutions."""
    rows = results.load("profile")["rows"]
    groups = list(dict.fromkeys(r["operators"] for r in rows))
    speed_up = {(r["system"], r["contender"]): r["speed_up"] for r in results.load("steps")["rows"]}
    by_contender: dict[tuple[str, str], dict[str, float]] = {}
    for r in rows:
        by_contender.setdefault((r["system"], r["contender"]), {})[r["operators"]] = r["share"]
    lines: list[list[object]] = [
        [
            ": ".join(name),
            *(f"{100 * found.get(g, 0.0):.1f} %" for g in groups),
            f"{speed_up[name] / found['convolution']:.1f}",
        ]
        for name, found in by_contender.items()
    ]
    head = ["step", *groups, "speed-up, were all but convolution free"]
    return f"{table(head, lines)}\n\n{_source('profile')}"


def threads() -> str:
    """More threads and more processes."""
    rows = [r for r in results.load("scaling")["rows"] if r["axis"] in ("threads", "processes")]
    lines: list[list[object]] = [
        [
            r["axis"],
            r["value"],
            results.written(r.get("shape") or ""),
            _time(r),
            f"{r['speed_up']:.2f}",
        ]
        for r in rows
    ]
    return table(["", "count", "shape", "time", "speed-up"], lines)


def growth() -> str:
    """Exponents of time against size."""
    rows = [r for r in results.load("scaling")["rows"] if r["axis"] in ("rows", "classes")]
    lines: list[list[object]] = [[name, slope] for name, slope in slopes(rows).items()]
    return f"{table(['time against', 'exponent'], lines)}\n\n{_source('scaling')}"


def goals() -> str:
    """What the package set out to reach, and what it reached; the worst case counts."""
    head = ["goal", "bound", "measured: worst case", "reached"]
    return table(head, goals_of_the_package.table_rows())


def page_faults() -> str:
    """The large case with and without kept pages."""
    lines: list[list[object]] = []
    for name, label in (("losses", "kept"), ("losses_default_pages", "returned (default)")):
        by_name = by_case(name)["realness_d_loss", "4096x1024", "fp32"]
        for contender in ("gankernels", "F.cross_entropy", "article formula", "floor: copy", FRESH):
            row = by_name[contender]
            spread = f"{row['p20_us'] / 1e3:.1f} to {row['p80_us'] / 1e3:.1f}"
            lines.append([label, contender, f"{row['median_us'] / 1e3:.1f}", spread])
    head = ["freed pages", "contender, 4096 × 1024 fp32", "ms", "p20 to p80"]
    return f"{table(head, lines)}\n\n{_source('losses_default_pages')}"


# ------------------------------------------------------------------------------- docs/gallery.md


def toy() -> str:
    """Modes of the mixture that the toy recipe recovers."""
    found = json.loads(toy_modes.RESULTS.read_text(encoding="utf-8"))
    sources = "; ".join(
        f"`{s['command']}` ({', '.join(s['configurations'])}; {s['processor']}, torch {s['torch']}, "
        f"{s['date']}, commit {s['commit']})"
        for s in found["sources"]
    )
    return (
        f"{toy_modes.table(found['records'])}\n\nMean ± standard deviation over the seeds, the least, the most "
        f"CPU seconds of one thread. {sources}. Every run is in `docs/results/toy.json`."
    )


# ------------------------------------------------------------------------------ docs/evidence.md


def real_images(name: str) -> Callable[[], str]:
    """The losses on one data set, from ``benchmarks/results/quality-NAME.json``."""

    def section() -> str:
        found = results.load(f"quality-{name}")
        rows = found["rows"]
        spec = found["data"] + ":DIR" * (found["data"] in quality.SHAPES)
        dates, commits = (sorted({row[key] for row in rows}) for key in ("date", "commit"))
        return (
            f"{quality.table(rows)}\n\nMean ± standard deviation over the seeds. {found['steps']} steps of each "
            f"network, scored on {found['samples']:,} samples; {rows[0]['feature_network']}. "
            f"{found['processor']}, one thread beside other work, torch {found['torch']}, {' to '.join(dates)}, "
            f"commit {', '.join(commits)}. Command: `python -m benchmarks.quality --data {spec}`; every "
            f"run is in `benchmarks/results/quality-{name}.json`."
        )

    return section


# ---------------------------------------------------------------------------------------- pages

PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/gallery.md": {"toy": toy},
    "docs/evidence.md": {name: real_images(name) for name in quality.PUBLISHED},
    "README.md": {
        "benchmark table": losses,
        "steps table": short_steps,
        "GPU losses": gpu_tables.short_losses,
        "GPU steps": gpu_tables.short_steps,
    },
    "docs/backends.md": {"versions": versions.versions},
    "docs/releasing.md": {"aarch64": versions.aarch64},
    "docs/numerics.md": {"accuracy": accuracy.table, "formulas": accuracy.formula_table},
    "docs/switching.md": {**switching.PARTS, "source": lambda: _source("dropin")},
    "docs/gpu-kernels.md": {"peers": peers_page.section},
    "docs/gpu.md": {"first contact": gpu_tables.first_contact},
    "docs/performance.md": {
        "goals": goals,
        "page faults": page_faults,
        "all losses": all_losses,
        "losses of elements": each,
        "lost": lost,
        "stages": stages,
        "steps": steps,
        "shares": shares,
        "threads": threads,
        "growth": growth,
        "GPU losses": gpu_tables.losses,
        "GPU lost": gpu_tables.slower,
        "GPU steps": gpu_tables.steps,
    },
}


def updated(page: str, text: str) -> str:
    """The text of a page with every table between its marks made anew."""
    for name, make in PAGES[page].items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail where a page is out of date")
    options = parser.parse_args()
    for page in PAGES:
        path = ROOT / page
        before = path.read_text()
        after = updated(page, before)
        if options.check and before != after:
            raise SystemExit(f"{page} is out of date: run python -m benchmarks.tables")
        if not options.check:
            path.write_text(after)


if __name__ == "__main__":
    main()
