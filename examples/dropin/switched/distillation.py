"""Knowledge distillation: the divergence of softened classes, times the squared temperature."""

import torch

import gankernels as gk
from examples.dropin.shared import Run, adam, batches, discriminator, seeded

TEMPERATURE = 4.0


def train(steps: int = 20) -> Run:
    teacher, student = seeded(discriminator(outputs=10), seed=5), discriminator(outputs=10)
    optimizer = adam(student)
    losses = []
    for images, _ in batches(steps):
        with torch.no_grad():
            teacher_logits = teacher(images)
        loss = gk.softmax_kl_logits(
            teacher_logits,
            student(images),
            dim=-1,
            reduction="batchmean",
            temperature=TEMPERATURE,
            scale=TEMPERATURE**2,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Run(losses, [student])


if __name__ == "__main__":
    print(train().losses[-1])
