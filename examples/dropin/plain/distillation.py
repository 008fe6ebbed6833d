"""Knowledge distillation: the divergence of softened classes, times the squared temperature."""

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.dropin.shared import Run, adam, batches, discriminator, seeded

TEMPERATURE = 4.0


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    log_q = F.log_softmax(student / TEMPERATURE, dim=-1)
    p = F.softmax(teacher / TEMPERATURE, dim=-1)
    return F.kl_div(log_q, p, reduction="batchmean") * TEMPERATURE**2


def train(steps: int = 20) -> Run:
    teacher, student = seeded(discriminator(outputs=10), seed=5), discriminator(outputs=10)
    optimizer = adam(student)
    losses = []
    for images, _ in batches(steps):
        with torch.no_grad():
            teacher_logits = teacher(images)
        loss = distillation_loss(student(images), teacher_logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Run(losses, [student])


if __name__ == "__main__":
    print(train().losses[-1])
