"""torch.compile: whole graphs, static and dynamic, the operator alone and among neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo import compiled_autograd
from torch._dynamo.testing import CompileCounterWithBackend

from contract.common import bounded_settings, call, every_setting, few_cases, loss_settings
from gankernels import value_and_grad
from gankernels.testing import OPERATORS, Arguments, Case, Operator, differentiate

# What the compiler sees of an operator, its Meta kernel, is the same for every backend.
pytestmark = [pytest.mark.backends("cpu"), pytest.mark.dynamo]

# Dynamo before torch 2.9 says that there was an exception, and not which.
TELLS_LITTLE = torch.__version__ < "2.9"

# aot_eager traces forward and backward like inductor, but generates no code.
AOT = "aot_eager"


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def alone(operator: Operator) -> Callable[..., Tensor]:
    def function(**arguments: Tensor) -> Tensor:
        return call(operator, arguments)

    return function


def with_neighbours(operator: Operator) -> Callable[..., Tensor]:
    """Something to fuse on each side: what feeds the operator, and what its result feeds."""
    names = operator.logits

    def function(**arguments: Tensor) -> Tensor:
        moved = {n: (arguments[n] * 1.5).tanh() * 4 for n in names if arguments[n] is not None}
        value = call(operator, {**arguments, **moved})
        return value.tanh() + (value / 4).sin()

    return function


SURROUNDINGS = [alone, with_neighbours]


def assert_compiles(
    function: Callable[..., Tensor],
    compiled: Callable[..., Tensor],
    arguments: Arguments,
    names: tuple[str, ...],
) -> None:
    # A compiler may fuse the neighbours, which rounds differently: by a few ulp of float32.
    torch.testing.assert_close(
        differentiate(compiled, arguments, names), differentiate(function, arguments, names)
    )


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("surround", SURROUNDINGS, ids=lambda f: f.__name__)
@every_setting
def test_whole_graph(
    operator: Operator, case: Case, surround: Callable[..., Callable[..., Tensor]], dynamic: bool
) -> None:
    function = surround(operator)
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=AOT)
    for rows in (3, 5) if dynamic else (3,):
        drawn = Case((rows, 4), options=case.options)
        arguments = operator.draw(drawn, torch.float32)
        assert_compiles(function, compiled, arguments, operator.inputs(arguments))


@pytest.mark.inductor
@pytest.mark.parametrize("surround", SURROUNDINGS, ids=lambda f: f.__name__)
@every_setting
def test_inductor(
    operator: Operator, case: Case, surround: Callable[..., Callable[..., Tensor]]
) -> None:
    function = surround(operator)
    compiled = torch.compile(function, fullgraph=True)
    arguments = operator.draw(case, torch.float32)
    assert_compiles(function, compiled, arguments, operator.inputs(arguments))


@few_cases
def test_every_reduction_and_target(operator: Operator, case: Case) -> None:
    function = alone(operator)
    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend=AOT)
    for reduction in operator.reductions_of(case)[1:]:
        arguments = operator.draw(case, torch.float32, reduction=reduction)
        names = operator.differentiations(arguments)[-1]
        assert_compiles(function, compiled, arguments, names)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@every_setting
def test_other_dtypes(operator: Operator, case: Case, dtype: torch.dtype) -> None:
    function = alone(operator)
    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend=AOT)
    arguments = operator.draw(case, dtype)
    assert_compiles(function, compiled, arguments, operator.inputs(arguments))


@loss_settings
def test_a_new_batch_size_compiles_once_more_and_never_again(
    operator: Operator, case: Case
) -> None:
    counter = CompileCounterWithBackend(AOT)
    function = alone(operator)
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for rows in (4, 6, 9, 33, 128):
        arguments = operator.draw(Case((rows, 4), options=case.options), torch.float32)
        assert_compiles(function, compiled, arguments, operator.inputs(arguments))
        assert counter.frame_count <= 2  # the first shape, then automatic-dynamic for all others


@pytest.mark.skipif(
    torch.__version__ < "2.7", reason="torch 2.6 lets compiled autograd near no function of C++"
)
@pytest.mark.compiled
def test_compiled_autograd() -> None:
    """The backward pass as a graph of its own: no loss's is taken for that of another one before it."""
    torch._dynamo.utils.counters.clear()
    for operator in OPERATORS:
        for case in operator.few_cases():
            arguments = operator.draw(case, torch.float32)
            names = operator.inputs(arguments)
            _, expected = differentiate(
                operator.functional, arguments, names, writes=operator.writes
            )
            with compiled_autograd._enable(torch.compile(backend="eager")):
                _, got = differentiate(
                    operator.functional, arguments, names, writes=operator.writes
                )
            torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert torch._dynamo.utils.counters["compiled_autograd"]["captures"] > len(OPERATORS) / 2


# value_and_grad of the reference, and of losses of statistics, differentiates: dynamo refuses to
# trace that into a whole graph, and says so.
@pytest.mark.compiled
@bounded_settings
def test_value_and_grad_compiles(operator: Operator, case: Case) -> None:
    function = value_and_grad(operator.functional)
    compiled = torch.compile(lambda **a: function(**a), fullgraph=True, backend=AOT)
    arguments = operator.draw(case, torch.float32)
    torch.testing.assert_close(compiled(**arguments), function(**arguments))


@every_setting
def test_without_gradients(operator: Operator, case: Case) -> None:
    function = with_neighbours(operator)
    compiled = torch.compile(function, fullgraph=True, backend=AOT)
    arguments = operator.draw(case, torch.float32)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(compiled(**arguments), function(**arguments))


@loss_settings
def test_wrong_arguments_are_refused_while_compiling(operator: Operator, case: Case) -> None:
    compiled = torch.compile(alone(operator), fullgraph=True, backend=AOT)
    arguments = operator.draw(case, torch.float32)
    batchmean = "'batchmean', " if "dim" in arguments else ""
    message = f"reduction must be 'mean', {batchmean}'sum' or 'none', got 'avg'"
    if TELLS_LITTLE:
        message = "Observed exception"
    with pytest.raises(Exception, match=message):
        compiled(**{**arguments, "reduction": "avg"})


@loss_settings
def test_export(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float32)
    tensors = {name: x for name, x in arguments.items() if isinstance(x, Tensor)}

    class Closed(torch.nn.Module):
        def forward(self, tensors: dict[str, Tensor]) -> Tensor:
            return operator.functional(**{**arguments, **tensors})

    program = torch.export.export(Closed(), (tensors,))
    torch.testing.assert_close(program.module()(tensors), operator.functional(**arguments))
