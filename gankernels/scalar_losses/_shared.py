"""What the docstrings of these losses share."""

from __future__ import annotations

from gankernels._sections import documented

SECTIONS = {
    "REAL": """
real_logits: D's raw output for real images, float16, bfloat16, float32 or float64, any shape: every
    element counts as one row, so patch discriminators need nothing special. Or a list of tensors, one of
    each discriminator, whose shapes may differ.
""",
    "REAL_AND_FAKE": """
real_logits: D's raw output for real images, float16, bfloat16, float32 or float64, any shape: every
    element counts as one row, so patch discriminators need nothing special. Or a list of tensors, one of
    each discriminator, whose shapes may differ.
fake_logits: D's raw output for generated images, on the same device; its size may differ, and its dtype:
    each gradient has that of its own logits. A list where ``real_logits`` is one.
""",
    "FAKE": """
fake_logits: D's raw output for generated images, float16, bfloat16, float32 or float64, any shape: every
    element counts as one row. Or a list of tensors, one of each discriminator, whose shapes may differ.
""",
    "PAIR": """
real_logits: D's raw output for real images, float16, bfloat16, float32 or float64, any shape. Or a list of
    tensors, one of each discriminator, whose shapes may differ.
fake_logits: D's raw output for generated images, of the same shape and on the same device; the order in
    memory and the dtype may differ. A list where ``real_logits`` is one.
""",
    "REDUCTION_OF_BOTH": """
reduction: ``"mean"`` (each batch by its own count), ``"sum"``, or ``"none"`` (the sum of both terms
    element by element: equal shapes needed; of a list a list).
""",
    "REDUCTION": """
reduction: ``"mean"`` over all elements, ``"sum"``, or ``"none"`` (of a list a list).
""",
    "SCALE": """
scale: A factor on the loss, inside the kernel.
""",
    "WEIGHTS_OF_BOTH": """
real_weight: A factor for each real logit, in their shape, or ``(N,)`` for each sample; any float dtype. A
    mean still divides by the number of elements. Differentiable where it requires grad. Of a list a list,
    or one for all.
fake_weight: The same for the fake logits.
real_mask: bool, in the shape of the real logits or ``(N,)``: which of them count. A mean divides by the
    number that do; where none does, it is 0 with gradients of 0. What does not count may be anything, NaN
    too. Of a list a list, or one for all.
fake_mask: The same for the fake logits.
""",
    "WEIGHTS": """
weight: A factor for each logit, in their shape, or ``(N,)`` for each sample; any float dtype. A mean still
    divides by the number of elements. Differentiable where it requires grad. Of a list a list, or one for
    all.
mask: bool, in the shape of the logits or ``(N,)``: which of them count. A mean divides by the number that
    do; where none does, it is 0 with gradients of 0. What does not count may be anything, NaN too. Of a list
    a list, or one for all.
""",
    "LIST": """
average: Divide the sum over a list of discriminators by their number.
per_output: Return ``(loss, losses)``, with a vector of the discriminators' losses beside their sum.
""",
    "TERMS": """
return_terms: Return ``(real term, fake term)`` instead of their sum, each a loss of its own.
""",
    "RETURNS": """
Returns:
    The loss in float32, or float64 where a logit is float64, 0-dim or in the shape of the logits for
    ``"none"``; differentiable any number of times.
""",
    "RAISES_OF_BOTH": """
Raises:
    TypeError: not floating-point, a mask that is not bool.
    ValueError: unknown reduction, shapes that differ under ``"none"``, lists of different length, a weight or
        mask of another shape.
    RuntimeError: tensors on different devices.
""",
    "RAISES": """
Raises:
    TypeError: not floating-point, a mask that is not bool.
    ValueError: unknown reduction, an empty list, a weight or mask of another shape.
    RuntimeError: tensors on different devices.
""",
    "RAISES_OF_PAIRS": """
Raises:
    TypeError: not floating-point, a mask that is not bool.
    ValueError: unknown reduction, shapes that differ, lists of different length, a weight or mask of another
        shape.
    RuntimeError: tensors on different devices.
""",
    "COST": """
Cost: one operator for the value and all gradients, whatever the number of tensors: on a GPU a launch forward
for every 24 of them (Triton: 16) and one backward for every 64 gradients (16); each logit read once, each
gradient written once, one exponential per element at most. Lists, weights and masks are looked at in Python,
a few microseconds; a mask takes a few operations of its size more. A loss that is its logits is one operation
of PyTorch under ``"none"``.
""",
}

shared = documented(SECTIONS)
