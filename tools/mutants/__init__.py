"""Flips one sign or constant at a time in the C++ and the reference, and asks the tests to notice.

``make mutants`` checks out the last commit into a temporary directory, builds it there once, and then, for
each entry of ``data``: changes the one place, compiles the translation units that see it, links them with
the objects of the others, runs the tests that ought to fail, and puts the text back. It fails if a mutant
survives, and leaves what it found in ``docs/results/mutants.json`` and ``docs/mutants.md``.

The tests run on the portable kernels, and nothing is optimised for speed but these, with torch's headers compiled
once: a mutant then costs seconds, not a minute, and what the tests compare depends on none of it.
"""
