"""The mutants, in the order of docs/mutants.md."""

from __future__ import annotations

from tools.mutants.data.autograd import AUTOGRAD
from tools.mutants.data.divergence import DIVERGENCE
from tools.mutants.data.reference import REFERENCE
from tools.mutants.data.regularisers import REGULARISERS
from tools.mutants.data.scalar import SCALAR_LOSS
from tools.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *DIVERGENCE,
    *SCALAR_LOSS,
    *AUTOGRAD,
    *REFERENCE,
    *REGULARISERS,
)
