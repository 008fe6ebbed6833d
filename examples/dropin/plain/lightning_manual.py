"""PyTorch Lightning with manual optimization: softplus losses inside training_step."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from examples.dropin.shared import Run, adam, batches, discriminator, generator


class Gan(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net_g, self.net_d = generator(), discriminator()
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor]) -> None:
        real, noise = batch
        optimizer_g, optimizer_d = self.optimizers()
        self.toggle_optimizer(optimizer_g)
        loss_g = F.softplus(-self.net_d(self.net_g(noise))).mean()
        optimizer_g.zero_grad()
        self.manual_backward(loss_g)
        optimizer_g.step()
        self.untoggle_optimizer(optimizer_g)

        self.toggle_optimizer(optimizer_d)
        real_logits, fake_logits = self.net_d(real), self.net_d(self.net_g(noise).detach())
        loss_d = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        optimizer_d.zero_grad()
        self.manual_backward(loss_d)
        optimizer_d.step()
        self.untoggle_optimizer(optimizer_d)
        self.losses += [loss_g.item(), loss_d.item()]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [adam(self.net_g), adam(self.net_d)]


def train(steps: int = 20) -> Run:
    gan = Gan()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, enable_model_summary=False, **quiet
    )
    trainer.fit(gan, DataLoader(list(batches(steps)), batch_size=None))
    return Run(gan.losses, [gan.net_g, gan.net_d])


if __name__ == "__main__":
    print(train().losses[-2:])
