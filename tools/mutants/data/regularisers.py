"""Penalties of D, the stand-in for other code's losses, and the schedule of gradient reversal."""

from __future__ import annotations

from tools.mutants.mutant import Mutant, Tests

PENALTIES = Tests(("api/test_penalties.py",))
LECAM = Tests(("api/test_lecam.py",), "not compiled")
GAN_LOSS = Tests(("api/test_gan_loss.py",))
SCHEDULE = Tests(("operators/test_gradient_reversal.py",), "warm_start or linear_has")
STEPS = Tests(("training/test_step_options.py",), "r2_is or lecam")

REGULARISERS: tuple[Mutant, ...] = (
    Mutant(
        "penalty-r1-half",
        ("r1_penalty",),
        "gankernels/penalties.py",
        '"real_images", real_images, outcomes, dim\n    )\n    return _reduced(0.5',
        '"real_images", real_images, outcomes, dim\n    )\n    return _reduced(1.0',
        PENALTIES,
        "twice the penalty",
    ),
    Mutant(
        "penalty-r2-half",
        ("r2_penalty",),
        "gankernels/penalties.py",
        '"fake_images", fake_images, outcomes, dim\n    )\n    return _reduced(0.5',
        '"fake_images", fake_images, outcomes, dim\n    )\n    return _reduced(1.0',
        PENALTIES,
        "twice the penalty",
    ),
    Mutant(
        "penalty-approximate-r1-variance",
        ("approximate_r1_penalty",),
        "gankernels/penalties.py",
        "discriminator(x + sigma * noise)",
        "discriminator(x + sigma**2 * noise)",
        PENALTIES,
        "sigma taken for a variance",
    ),
    Mutant(
        "penalty-approximate-r1-one-sided",
        ("approximate_r1_penalty",),
        "gankernels/penalties.py",
        "clean.to(dtype) - noisy",
        "clean.detach().to(dtype) - noisy",
        PENALTIES,
        "no gradient through D(x)",
    ),
    Mutant(
        "lecam-averages",
        ("lecam_penalty",),
        "gankernels/lecam.py",
        "_accumulated(real) - mean_fake",
        "_accumulated(real) - mean_real",
        LECAM,
        "real logits are held to their own average",
    ),
    Mutant(
        "lecam-maximum",
        ("lecam_penalty",),
        "gankernels/lecam.py",
        "below.relu().square()",
        "below.square()",
        LECAM,
        "fake logits above the average are pulled down to it",
    ),
    Mutant(
        "lecam-list-average",
        ("lecam_penalty",),
        "gankernels/lecam.py",
        "total / len(pairs) if average",
        "total if average",
        LECAM,
        "the average over discriminators is their sum",
    ),
    Mutant(
        "lecam-decay",
        ("LeCamPenalty",),
        "gankernels/lecam.py",
        "1.0 - self.decay",
        "self.decay",
        LECAM,
        "the averages forget what they should keep",
    ),
    Mutant(
        "lecam-first-means",
        ("LeCamPenalty",),
        "gankernels/lecam.py",
        "self.updates == 0, 1.0",
        "self.updates == 0, 0.5",
        LECAM,
        "the averages begin half way to the first means",
    ),
    Mutant(
        "gan-loss-half",
        ("GANLoss",),
        "gankernels/compat.py",
        "F.lsgan_d_fake_loss, 2.0",
        "F.lsgan_d_fake_loss, 1.0",
        GAN_LOSS,
        "half of MSELoss",
    ),
    Mutant(
        "gan-loss-weight",
        ("GANLoss",),
        "gankernels/compat.py",
        "1.0 if is_disc else self.loss_weight",
        "self.loss_weight",
        GAN_LOSS,
        "the generator's weight on D",
    ),
    Mutant(
        "reversal-slope",
        ("GradientReversal",),
        "gankernels/layers.py",
        "self.slope / 2 * progress",
        "self.slope * progress",
        SCHEDULE,
        "tanh(x) for tanh(x / 2)",
    ),
    Mutant(
        "reversal-ends",
        ("GradientReversal",),
        "gankernels/layers.py",
        "(self.hi - self.lo) * progress",
        "self.hi * progress",
        SCHEDULE,
        "ends at lo + hi",
    ),
    Mutant(
        "step-lazy-penalty",
        ("StepConfig",),
        "gankernels/training/passes.py",
        "gamma * config.r1_every",
        "gamma",
        STEPS,
        "a penalty at every n-th step is not n times as heavy",
    ),
    Mutant(
        "step-lecam-weight",
        ("StepConfig",),
        "gankernels/training/passes.py",
        "g + config.lecam * e",
        "g + e",
        STEPS,
        "the penalty without its weight",
    ),
)
