"""Checkpoints from and for elsewhere: prefixes of wrappers, parts of one's own, networks without copies."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from gankernels.training import (
    FunctionLoss,
    StepConfig,
    TrainConfig,
    configuration,
    load_generator,
    resume,
)
from gankernels.training.cli import main
from gankernels.training.loop import train
from gankernels.training.players import adam


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


PREFIXES = ("", "_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers(prefix: str) -> None:
    source, target = network(), network()
    resume.load_network(target, {prefix + k: v for k, v in source.state_dict().items()}, "it")
    assert all(
        torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True)
    )
    wrapped = nn.DataParallel(target)
    resume.load_network(wrapped, source.state_dict(), "it")
    compiled = nn.Sequential(torch.compile(network()[0]), *network()[1:])
    resume.load_network(compiled, source.state_dict(), "it")
    assert torch.equal(compiled[0].weight, source[0].weight)


def test_a_submodule_that_is_called_module_keeps_its_name() -> None:
    source = nn.ModuleDict({"module": nn.Linear(2, 2)})
    target = nn.ModuleDict({"module": nn.Linear(2, 2)})
    resume.load_network(target, source.state_dict(), "it")
    assert torch.equal(target["module"].weight, source["module"].weight)
    with pytest.raises(ValueError, match="it is of other networks"):
        resume.load_network(nn.Linear(2, 2), {"weight": torch.zeros(3, 3)}, "it")


def config(**changes: object) -> TrainConfig:
    options = {"steps": 1, "batch_size": 8, "samples": 4, "noise_dim": 3}
    return configuration("toy", "article", **(options | changes))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a user's networks and loss."""
    folder = tmp_path_factory.mktemp("own")
    parts = {
        "generator": network(),
        "discriminator": nn.Linear(2, 1),
        "loss": FunctionLoss(lambda real, fake: (fake - real).mean(), lambda _, fake: -fake.mean()),
    }
    train(config(), folder, **parts, progress=False)
    return folder


@pytest.mark.parametrize(
    "command",
    ["train --resume RUN --steps 2", "sample RUN --out OUT", "evaluate RUN --samples 100"],
)
def test_the_command_line_says_what_it_cannot_build(
    command: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.replace("RUN", str(own)).replace("OUT", str(tmp_path / "a.png")).split()
    assert main(words) == 1
    message = capsys.readouterr().err
    assert "this run trained parts of its own" in message
    assert "generator (Sequential)" in message
    assert "gankernels.training." in message
    assert len(message.splitlines()) == 1


def test_a_run_of_ones_own_goes_on_with_what_is_handed_over(own: Path) -> None:
    loaded, _ = load_generator(own, generator=torch.compile(network()))
    assert not loaded.training
    with pytest.raises(ValueError, match=r"discriminator \(Linear\), loss \(FunctionLoss\)"):
        train(config(steps=2), own, generator=network(), resume=True, progress=False)
    loss = FunctionLoss(lambda real, fake: (fake - real).mean(), lambda _, fake: -fake.mean())
    parts = {"generator": network(), "discriminator": nn.Linear(2, 1), "loss": loss}
    train(config(steps=2), own, **parts, resume=True, progress=False)


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), nn.Identity()])
def test_a_plain_loss_is_refused_by_name(loss: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"loss must be .* FunctionLoss.*got {type(loss).__name__}"):
        train(config(), tmp_path, loss=loss, progress=False)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_networks_with_the_hooks_of_old_norms(norm: str, tmp_path: Path) -> None:
    """A weight average of them is refused before the first step, where a copy cannot be made."""
    generator = nn.Sequential(getattr(nn.utils, norm)(nn.Linear(3, 2)))
    generator(torch.randn(4, 3))  # from here on the weight is a result, which has no deep copy
    run = {"generator": generator, "discriminator": nn.Linear(2, 5), "progress": False}
    with pytest.raises(ValueError, match="ema needs a copy of the generator"):
        train(config(ema=0.5), tmp_path / "with", **run)
    assert not (tmp_path / "with").exists()
    train(config(), tmp_path / "without", **run)


def test_find_unused_parameters_is_for_several_processes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="find_unused_parameters has no effect"):
        train(config(find_unused_parameters=True), tmp_path, progress=False)


@pytest.mark.parametrize("optimizer", ["fused", "foreach", "loop"])
def test_moments_follow_the_memory_format_of_the_weights(optimizer: str) -> None:
    def made(memory_format: torch.memory_format) -> tuple[nn.Module, torch.optim.Adam]:
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 4, 3).to(memory_format=memory_format)
        step = StepConfig(optimizer=optimizer)
        return layer, adam(layer.parameters(), 0.1, (0.5, 0.9), step)

    def take_step(layer: nn.Module, optimizer: torch.optim.Adam, seed: int) -> None:
        x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()

    plain, before = made(torch.contiguous_format)
    take_step(plain, before, 1)
    moved, after = made(torch.channels_last)
    moved.load_state_dict(plain.state_dict())
    resume.restore_optimizer(after, copy.deepcopy(before.state_dict()))
    take_step(plain, before, 2)
    take_step(moved, after, 2)
    torch.testing.assert_close(moved.weight, plain.weight, rtol=1e-5, atol=1e-6)


def test_a_run_goes_on_from_its_own_checkpoint_alone(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "best.pt"
    other.write_bytes((own / "checkpoint.pt").read_bytes())
    assert main(["train", "--resume", str(other), "--steps", "9"]) == 1
    assert "a run goes on from its checkpoint.pt" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["False", "false"])
def test_a_loss_option_that_is_false(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "dcgan", "--loss-option", f"saturating={text}", "--show-config"]
    assert main(command) == 0
    assert '"saturating": false' in capsys.readouterr().out
