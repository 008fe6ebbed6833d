# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The mixture, three ways
#
# Nine Gaussians in the plane, the same two perceptrons, the same steps, three losses: the standard GAN, the
# relativistic pairing loss and RealnessGAN, the last two with R1 and R2. About a minute of one core, and one
# seed: the gallery has longer runs over five.

# %%
import os

import matplotlib.pyplot as plt
import torch
from torch.optim.lr_scheduler import LinearLR

import gankernels as gk
from gankernels.training import Players, StepConfig, alternating_step, data, networks
from gankernels.training.evaluation import evaluate_mixture

STEPS = int(os.environ.get("MIXTURE_STEPS", "800"))

# %% [markdown]
# ## One step serves every loss
#
# A loss module has a discriminator loss and its generator loss; a step needs no more. `alternating_step` updates
# D, then G, without a graph of the loss and without a gradient that no update uses.

# %%
points = data.load("gaussians")


def play(loss, outcomes=1, **options):
    """Train one pair of networks; give the generator, and what D said on the way."""
    torch.manual_seed(0)
    pair = networks.toy_mlp(outcomes=outcomes)
    adams = [torch.optim.Adam(n.parameters(), 2e-3, (0.5, 0.99)) for n in pair]
    decays = [LinearLR(a, 1.0, 0.0, STEPS) for a in adams]
    players, stream, said = Players(*pair, *adams), data.BatchStream(points, 100, seed=0), []
    for step in range(STEPS):
        real = next(stream)
        alternating_step(players, loss, real, noise, StepConfig(**options), step)
        for decay in decays:
            decay.step()
        if step % max(1, STEPS // 20) == 0:
            with torch.no_grad():
                said.append((pair[1](real), pair[1](pair[0](noise(100)))))
    return pair[0].eval(), said


def noise(count):
    return torch.randn(count, 128)


# %%
flat, peaked = gk.anchors.official(5, seed=0)
anchors = gk.anchors.skewed(flat, 1, -1, 1), gk.anchors.skewed(peaked, -1, -1, 1)

played = {
    "standard": play(gk.LogisticLoss()),
    "pairing, R1 + R2": play(gk.RelativisticPairingLoss(), r1_gamma=0.1, r2_gamma=0.1, r1_every=1),
    "realness, R1 + R2": play(gk.RealnessLoss(*anchors), 5, r1_gamma=0.3, r2_gamma=0.3, r1_every=1),
}

# %% [markdown]
# ## What the generators make

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.8), sharey=True)
for axis, (name, (generator, _)) in zip(axes, played.items(), strict=True):
    with torch.no_grad():
        samples = generator(noise(10_000))
    scores = evaluate_mixture(samples, data.gaussian_centres(), data.GAUSSIAN_SIGMA)
    axis.scatter(*samples[:2_000].T, s=3, alpha=0.4, linewidths=0)
    axis.scatter(*data.gaussian_centres().T, marker="+", color="black")
    found, good = scores["modes_recovered"], scores["high_quality_share"]
    axis.set(title=f"{name}\n{found} of 9 modes, {good:.0%} near one", xlim=(-3, 3), ylim=(-3, 3))

# %% [markdown]
# ## What RealnessGAN's discriminator says
#
# It gives a distribution over five outcomes and is trained towards two anchors: here those of the official code,
# before and after their skew.

# %%
gk.plots.anchors(anchors, before=(flat, peaked))

# %% [markdown]
# Over training, what it says of real and of fake samples:

# %%
real, fake = (torch.stack(x) for x in zip(*played["realness, R1 + R2"][1], strict=True))
gk.plots.realness((real, fake))

# %% [markdown]
# ## Why not `log(softmax(z) + 1e-16)`
#
# Because its gradient ends where D is most wrong:

# %%
gk.plots.gradients()
