"""The C++ compiler: its version, whether it can do what is needed, and what it complained about."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile


def compiler_version() -> str | None:
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(shlex.split(compiler)[0]) is None:
        return None
    command = [*shlex.split(compiler), "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.splitlines()[0] if result.stdout else compiler


CXX20 = "#include <concepts>\ntemplate <std::integral T> struct S {}; S<int> s;\n"


def why_no_cxx20() -> str | None:
    """Why the C++ compiler cannot build this, or None; asked before torch's headers are read."""
    if sys.platform == "win32":
        return None
    compiler = os.environ.get("CXX", "c++")
    command = [*shlex.split(compiler), "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    if shutil.which(command[0]) is None:
        return f"there is no C++ compiler {compiler!r}: install one, or set CXX to it"
    done = subprocess.run(command, input=CXX20, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return f"{compiler_version() or compiler} does not compile C++20: {first_error(done.stderr)}"


def find_ninja() -> None:
    """Lets torch see the ninja beside this Python: an environment need not be activated to build in it."""
    beside = os.path.dirname(sys.executable)
    if shutil.which("ninja", path=beside):
        os.environ["PATH"] = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])


def first_error(output: str) -> str:
    """The compiler's own first line about an error, out of all that a build printed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(fatal )?error\b ?[:C]", line, re.IGNORECASE)]
    return (errors or lines or ["no message"])[0]


class Recorded:
    """What a block and its child processes print: ninja shows a compiler's errors and raises without them."""

    text = ""

    def __enter__(self) -> Recorded:
        sys.stdout.flush(), sys.stderr.flush()
        self.file = tempfile.TemporaryFile()
        self.saved = [os.dup(stream) for stream in (1, 2)]
        for stream in (1, 2):
            os.dup2(self.file.fileno(), stream)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush(), sys.stderr.flush()
        for stream, saved in zip((1, 2), self.saved, strict=True):
            os.dup2(saved, stream)
            os.close(saved)
        self.file.seek(0)
        self.text = self.file.read().decode(errors="replace")
        self.file.close()
        print(self.text, end="", flush=True)
