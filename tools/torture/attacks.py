"""The attacks by name."""

from __future__ import annotations

from tools.torture import (
    abuse,
    commands,
    data_files,
    digits,
    entries,
    faults,
    files,
    foreign,
    lists,
    numerics,
    races,
    refusals,
    run_files,
    sanitizers,
    soak,
    threads,
    tidy,
    training,
    wrappers,
    writes,
)
from tools.torture.attack import Attack

ATTACKS = (
    Attack(
        "numerics",
        "values and gradients are right for every shape, stride, dtype, magnitude and source of memory",
        "drawn calls of every operator (hypothesis) against float64; inputs unchanged, results repeatable",
        numerics.run,
    ),
    Attack(
        "lists",
        "the same for lists of discriminators, weights, masks, labels and factors",
        "drawn calls of every loss of one logit, up to 15 tensors of as many shapes and dtypes, against formulas",
        lists.run,
    ),
    Attack(
        "foreign",
        "the same for inputs that others thought of",
        "the samples that PyTorch tests kl_div, cross_entropy, BCE with logits and softplus with",
        foreign.run,
    ),
    Attack(
        "digits",
        "float64, by which all else is judged, is right itself",
        "rows of logits from 1e-300 to 700 by the kernels and by the reference, against fifty digits (mpmath)",
        digits.run,
    ),
    Attack(
        "refusals",
        "a wrong argument is refused by name, every time, and nothing is written or kept",
        "every wrong call of the tests in every form of its function, a hundred thousand of them",
        refusals.run,
    ),
    Attack(
        "commands",
        "a command line is done, or refused in one line that names the option",
        "every option of train, sample and evaluate with fifteen kinds of value, shown and run",
        commands.run,
    ),
    Attack(
        "entries",
        "no value of a right type crashes the process or leaks",
        "random arguments to every operator in torch.ops.gankernels, past the checks of the Python functions",
        entries.run,
    ),
    Attack(
        "abuse",
        "a loss is a citizen of autograd, whatever is done around it",
        "checkpointing, hooks, save_on_cpu, retained and partial backward passes, other threads, static buffers, "
        "deepcopy, pickle and functional_call: the gradients of the plain call, to the bit",
        abuse.run,
    ),
    Attack(
        "wrappers",
        "a loss works behind what shards, casts and compiles a network",
        "DistributedDataParallel, compiled or not, and fully_shard (FSDP2) in float32 and bfloat16; 2 processes",
        wrappers.run,
    ),
    Attack(
        "threads",
        "threads and processes compute what one thread does, to the bit",
        "eight threads on shared inputs while their number for torch changes, workers by fork and spawn, "
        "a forked child; a subinterpreter is refused",
        threads.run,
    ),
    Attack(
        "files",
        "a damaged checkpoint is refused by name, and a file runs no code",
        "flipped bits, lost, exchanged and missing blocks, foreign files, pickles with code, bombs",
        files.run,
    ),
    Attack(
        "texts",
        "a damaged configuration or log is refused by name, and no log keeps a run from going on",
        "the same damage, and extremes of JSON, to config.json and metrics.jsonl: read, reported, gone on with",
        run_files.run,
    ),
    Attack(
        "data",
        "damaged training data is refused by name, and no file unpacks to more than memory holds",
        "the same damage to IDX, JSON, CIFAR-10 and picture files of eight kinds; bombs of every format",
        data_files.run,
    ),
    Attack(
        "writes",
        "no kill, full disk or failed write loses a checkpoint, or what was trained before it",
        "a run killed half way through each of its writes, on a disk that is full from there on, or whose one "
        "write fails; then it goes on, to the same state, log and files as an undisturbed run",
        writes.run,
    ),
    Attack(
        "faults",
        "what goes wrong in a step ends the run clearly, and it goes on as if nothing had been",
        "NaN in a batch, an exploding loss, errors of the data and the network, SIGTERM twenty times and "
        "thousands of times, one of two or three processes killed; then it goes on, to the same state and log",
        faults.run,
    ),
    Attack(
        "soak",
        "memory stays where it is over a million calls",
        "forward and backward of every operator",
        soak.run,
    ),
    Attack(
        "training",
        "memory stays where it is over a training, and the next run is what it would have been",
        "RealnessGAN, checkpoints and pictures included, for half an hour; a short run after it equals one "
        "before it to the bit",
        training.run,
    ),
    Attack(
        "tidy",
        "the C++ has none of the habits that lead to bugs",
        "Clang's -Wall -Wextra and clang-tidy's bugprone, performance and cert checks of every translation unit",
        tidy.run,
    ),
    Attack(
        "races",
        "the threads of an operator do not race",
        "every operator on four threads in an extension with ThreadSanitizer, which is told what OpenMP orders",
        races.run,
    ),
    Attack(
        "sanitizers",
        "the kernels read and write what is theirs, and do nothing undefined",
        "the operators' tests on an extension with AddressSanitizer and UndefinedBehaviorSanitizer",
        sanitizers.run,
    ),
)
