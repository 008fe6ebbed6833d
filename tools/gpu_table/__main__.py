"""``python -m tools.gpu_table``: writes the page, or prints the lines of one compiler."""

from __future__ import annotations

import argparse
import sys

from tools.gpu_table import table

TESTS = table.PAGE.parents[1] / "tests"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_table")
    parser.add_argument(
        "section",
        nargs="?",
        choices=(*table.SECTIONS, "peers"),
        help="print this one, write nothing",
    )
    only = parser.parse_args().section
    sys.path.insert(0, str(TESTS))  # the stand-in for the CUDA runtime lies there
    if only == "peers":
        from tools.gpu_table import peers  # needs more than the tests have

        peers.main()
        return
    written = []
    for name, section in table.SECTIONS.items():
        if only in (None, name):
            rows = []
            for row in table.measure(section.cases()):
                rows.append(row)
                print(row.markdown(), flush=True)
            written.append(section.markdown(rows))
    if only is None:
        table.PAGE.write_text(table.page(written))


if __name__ == "__main__":
    main()
