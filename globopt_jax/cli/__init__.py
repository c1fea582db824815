"""The command `globopt`: its subcommands and their options. The other modules of this folder do the work.

Progress goes to stderr and results to stdout, so that with `--json` stdout has exactly one document.

Exit codes: 0 done, 1 a check failed or training diverged, 2 bad input (nothing is written) or too little memory, 70 a
bug of this package, 130 stopped by Ctrl-C (the run can be resumed).
"""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from globopt_jax import __version__
from globopt_jax.cli.terminal import check_device, say

if TYPE_CHECKING:
    from globopt_jax.cli import linear_networks, work
    from globopt_jax.runs import RunFolder

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Is this network a global minimum, how far from one is it at most, and which way is down?\n\n"
    "Exit codes: 0 done, 1 a check failed or training diverged, 2 bad input or too little memory, 70 a bug of globopt "
    "(GLOBOPT_TRACEBACK=1 prints the traceback), 130 stopped by Ctrl-C. If a reader such as head closes the pipe, the "
    "command still ends with the exit code of its work.",
)


def _option(help: str, default: object = None, *names: str) -> Any:
    """Return an option whose help ends with its default, in one style for all options.

    Typer itself would show a default in another style, and could not describe a default that depends on other options.
    """
    return typer.Option(*names, help=help if default is None else f"{help} Default: {default}.", show_default=False)


Data = Annotated[
    str,
    _option(
        "The name of a data set (see `globopt datasets`), or an .npz with X and Y. The files of a data set are taken "
        "from the cache folder, which GLOBOPT_JAX_DATA moves, and downloaded if they are missing.",
        "digits",
    ),
]
Map = Annotated[
    str,
    _option(
        "The activation of a subnetwork: relu, leaky_relu, absolute or linear. relu:3 means subnetworks with 3 weight "
        "layers.",
        "relu",
    ),
]
Regularizer = Annotated[
    str, _option("The penalty of a subnetwork: sum_of_powers or product_of_norms.", "sum_of_powers")
]
Norms = Annotated[
    str, _option("The norm of each layer's weights in the penalty: l1, l2 or linf, or a list such as l1,l2.", "l2")
]
Loss = Annotated[
    str,
    _option(
        "The loss, a sum over the samples and not a mean: squared, softmax_cross_entropy, logistic or huber:DELTA.",
        "squared",
    ),
]
Lam = Annotated[float | None, _option("The strength of the regularizer, a number > 0.")]
FRACTION = "The strength as a fraction of lam_max, the smallest strength at which zero weights are optimal."
Layout = Annotated[
    str | None,
    _option(
        "The meaning of two matrices W1 and W2 in a file: kernels (inputs, hidden) and (hidden, outputs), or stacked "
        "neurons (hidden, inputs) and (hidden, outputs).",
        "the meaning that fits the data",
    ),
]
Seed = Annotated[int, _option("The seed of the initial weights and of the searches.", 0)]
Dtype = Annotated[str, _option("The precision of the computation: float64 or float32.", "float64")]
Effort = Annotated[str, _option("The effort of the searches and of the bound: quick, standard or high.", "standard")]
Out = Annotated[Path | None, _option("The run folder.", "globopt-runs/HASH, with the hash of the configuration")]
Resume = Annotated[bool, _option("Fail unless the folder already holds this run.", None, "--resume")]
Json = Annotated[bool, _option("Print the result as one JSON document.", None, "--json")]
Quiet = Annotated[bool, _option("Print nothing but errors and the document that --json asks for.", None, "--quiet")]


def _version(wanted: bool) -> bool:
    if wanted:
        print(f"globopt {__version__}")
        raise typer.Exit()
    return wanted


@app.callback()
def _globopt(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


@app.command()
def solve(
    data: Data = "digits",
    map: Map = "relu",
    widths: Annotated[
        str, _option("The hidden widths of each subnetwork of a deep map, such as 4,4.", "1 for each hidden layer")
    ] = "",
    regularizer: Regularizer = "sum_of_powers",
    norms: Norms = "l2",
    loss: Loss = "squared",
    lam: Lam = None,
    lam_fraction: Annotated[float | None, _option(FRACTION, 0.2)] = None,
    width: Annotated[int, _option("The number of subnetworks at the start.", 16)] = 16,
    optimizer: Annotated[str, _option("The optimizer: lbfgs, adam or sgd.", "lbfgs")] = "lbfgs",
    rate: Annotated[
        float | None, _option("The learning rate of adam or sgd.", "0.01 for adam; required for sgd")
    ] = None,
    seed: Seed = 0,
    dtype: Dtype = "float64",
    effort: Effort = "standard",
    out: Out = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a regularized parallel network, and certify how far it is at most from the global minimum.

    The number of subnetworks is not fixed: training appends subnetworks while
    that lowers the objective. The run folder receives result.json, the weights,
    the certificate (see `globopt check`), the trace and plots. The same command
    resumes an interrupted run, and prints the result of a finished one.
    """
    from globopt_jax.cli import folder_run, task, work

    with _bad_input():
        check_device()
        fraction = 0.2 if lam is None and lam_fraction is None else lam_fraction
        options = task.Options(data, map, widths, regularizer, norms, loss, lam, fraction, seed, dtype, effort)
        start = task.Training(width, optimizer, rate)
        prepared = task.training(options, start)
        folder = folder_run.opened(prepared.configuration, out, resume=resume)
    _worked(work.Run(prepared, folder, quiet=quiet), json, quiet)


@app.command()
def certify(
    weights: Annotated[Path, typer.Argument(help="An .npz with W1..WK, or with kernel1 (dx, h) and kernel2 (h, dy).")],
    data: Data = "digits",
    map: Map = "relu",
    regularizer: Regularizer = "sum_of_powers",
    norms: Norms = "l2",
    loss: Loss = "squared",
    lam: Lam = None,
    lam_fraction: Annotated[float | None, _option(FRACTION)] = None,
    layout: Layout = None,
    seed: Seed = 0,
    dtype: Dtype = "float64",
    effort: Effort = "standard",
    out: Out = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Grade given weights, converged or not: how far are they at most from the global minimum?

    The file has one of two forms. W1..WK are r subnetworks, stacked on the first
    axis: neurons W1 (r, dx) and W2 (r, dy), or kernels (r, n_k-1, n_k). Two
    matrices W1 (dx, h) and W2 (h, dy) are read as kernels if only that meaning
    fits the data; if both meanings fit, give --layout. The other form is
    kernel1 (dx, h) and kernel2 (h, dy), the kernels of an ordinary two-layer
    network. Its bias1 (h,) becomes the weight of a column of ones in X and is
    penalized like other weights; its bias2 must be zero.

    Give either --lam or --lam-fraction.
    """
    from globopt_jax.cli import folder_run, task, work

    with _bad_input():
        check_device()
        options = task.Options(data, map, "", regularizer, norms, loss, lam, lam_fraction, seed, dtype, effort)
        prepared = task.grading(options, weights, layout)
        folder = folder_run.opened(prepared.configuration, out, resume=resume)
    if prepared.read and not quiet:
        say(prepared.read)
    _worked(work.Run(prepared, folder, quiet=quiet), json, quiet)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A run folder of solve or certify.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify a stored certificate from its weights, data, dual point and multipliers, in NumPy alone."""
    from globopt_jax.cli import inspection

    with _bad_input():
        holds = inspection.check(folder, json=json, quiet=quiet)
    _finish(holds)


@app.command()
def linear(
    weights: Annotated[
        Path | None,
        typer.Argument(
            help="An .npz to classify, with W1..WL: kernels (d_{l-1}, d_l), or two layers of stacked neurons. Without "
            "it a network is trained."
        ),
    ] = None,
    data: Data = "digits",
    escape: Annotated[
        Path | None, _option("With weights: an .npz to which weights of a lower loss are written, if any are found.")
    ] = None,
    radius: Annotated[
        float | None,
        _option("With weights: how far to search for weights of a lower loss, in the Frobenius norm.", 0.1),
    ] = None,
    layout: Layout = None,
    hidden: Annotated[
        str | None, _option("The hidden widths, such as 32,32, or '' for no hidden layer.", "32,32")
    ] = None,
    init: Annotated[
        float | None, _option("The scale of the initial weights, which is multiplied by 1/sqrt(fan-in).", 0.01)
    ] = None,
    optimizer: Annotated[str | None, _option("The optimizer: sgd (full batch) or adam.", "sgd")] = None,
    rate: Annotated[
        float | None, _option("The learning rate.", "for sgd from the curvature at a minimum, for adam 0.001")
    ] = None,
    steps: Annotated[int | None, _option("The number of optimizer steps.", 100000)] = None,
    whiten: Annotated[bool, _option("Replace X by its left singular vectors.", None, "--whiten")] = False,
    seed: Seed = 0,
    dtype: Dtype = "float64",
    out: Out = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Classify a deep linear network, or train one and record loss, proved gap and singular values.

    The command says whether the weights are a global minimum, a saddle (strict or
    not) or no critical point, how far they are from the optimum, and how much
    lower the loss is nearby. A training run leaves result.json, the weights, the
    history and plots in its run folder.
    """
    from globopt_jax.cli import linear_networks as work

    if weights is None:
        with _bad_input():
            work.check_training(escape, radius, layout)
        choices = work.Choices(data, hidden, init, optimizer, rate, steps, whiten, seed, dtype)
        return _train_linear(choices, out, resume=resume, json=json, quiet=quiet)
    with _bad_input():
        check_device()
        options = (hidden, init, optimizer, rate, steps, out)
        work.check_classifying(options, resume=resume)
        found = work.classified(weights, data, radius, escape, layout, whiten=whiten, seed=seed, dtype=dtype)
    if not quiet:
        say(found["read"])
    work.show(found, json=json, quiet=quiet)


def _train_linear(
    choices: "linear_networks.Choices", out: Path | None, *, resume: bool, json: bool, quiet: bool
) -> None:
    """Train a deep linear network in its run folder, and show what it became."""
    from globopt_jax.cli import folder_run
    from globopt_jax.cli import linear_networks as work

    with _bad_input():
        check_device()
        task = work.training(choices)
        run = work.Run(task, folder_run.opened(task.configuration, out, resume=resume), quiet=quiet)
    try:
        with _interruptible(run.folder), _bad_input():
            result = run.document()
    except work.Diverged as error:
        say(str(error))
        raise typer.Exit(1) from None
    work.show({**result, "folder": str(run.folder.path)}, json=json, quiet=quiet)


@app.command()
def landscape(
    data: Data = "digits",
    depths: Annotated[str, _option("The numbers of hidden layers.", "1,2,3,4,5")] = "1,2,3,4,5",
    widths: Annotated[str, _option("The numbers of units of each hidden layer.", "4,8,16,32")] = "4,8,16,32",
    seeds: Annotated[int, _option("The number of networks of each depth and width, with the seeds 0, 1, ....", 3)] = 3,
    epochs: Annotated[
        int, _option("The number of passes over the samples; 0 measures the initial weights alone.", 40)
    ] = 40,
    samples: Annotated[
        int | None, _option("Take the random subset of this size that the seed 0 draws.", "all samples")
    ] = None,
    batch: Annotated[int, _option("The number of samples of a training step.", 64)] = 64,
    rate: Annotated[float, _option("The learning rate of stochastic gradient descent.", 0.01)] = 0.01,
    momentum: Annotated[float, _option("The momentum coefficient, from 0 to 1.", 0.5)] = 0.5,
    dtype: Annotated[
        str, _option("The precision of training: float64 or float32. J is computed in float64.", "float64")
    ] = "float64",
    scheduler: Annotated[
        str | None,
        _option(
            "The address of a Dask scheduler, such as tcp://127.0.0.1:8786, whose workers compute the networks. "
            "Without it this process computes them."
        ),
    ] = None,
    out: Out = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train ReLU networks of many depths and widths, and map J before and after training.

    J is half the squared distance from the targets to a network's tangent space,
    and the squared loss of every local minimum with this tangent space. The run
    folder receives result.json, all networks in cells.sqlite and cells.csv, and
    heat maps in landscape.png. The same command resumes an interrupted run from
    the last finished network, and prints the result of a finished one.
    """
    from globopt_jax.cli import cluster, folder_run
    from globopt_jax.cli import landscapes as work

    with contextlib.ExitStack() as connected:
        with _bad_input():
            check_device()
            choices = work.Choices(data, depths, widths, seeds, epochs, samples, batch, rate, momentum, dtype)
            task = work.prepared(choices)
            client = connected.enter_context(cluster.scheduler(scheduler))
            folder = folder_run.opened(task.configuration, out, resume=resume)
        run = work.Run(task, folder, client, quiet=quiet)
        with _interruptible(run.folder), _bad_input():
            result = run.document()
    work.show({**result, "folder": str(run.folder.path)}, json=json, quiet=quiet)
    _finish(result["diverged"] < result["networks"])


@app.command()
def reproduce(
    experiment: Annotated[
        str, typer.Argument(help="The experiment: khk19-figure-1, k18-table-4.1 or k18-table-4.2.", show_default=False)
    ],
    preset: Annotated[
        str,
        _option(
            "The size: quick takes minutes; full is the paper's: up to an hour for the figure, and hours for a table.",
            "quick",
        ),
    ] = "quick",
    root: Annotated[
        Path | None,
        _option(
            "A folder with the official files of the data sets, or with a folder for each set.",
            "the cache folder, into which they are downloaded",
        ),
    ] = None,
    data: Annotated[
        str | None,
        _option(
            "For the figure some of its data sets, such as mnist,svhn; for a table one set of images, such as digits.",
            "the paper's",
        ),
    ] = None,
    scheduler: Annotated[
        str | None, _option("The address of a Dask scheduler, whose workers compute the networks.")
    ] = None,
    out: Out = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run an experiment of a paper again on its data, and write a report with the paper's figures beside ours.

    khk19-figure-1 maps J over depth and width on four data sets. The tables of
    K18 compare penalties of several degrees on CIFAR-10. The run folder receives
    report.md, pictures, and all networks in SQLite files. The same command
    resumes an interrupted run from the last finished network.
    """
    from globopt_jax.cli import cluster, folder_run
    from globopt_jax.cli import experiments as work

    with contextlib.ExitStack() as connected:
        with _bad_input():
            check_device()
            prepared = work.prepared(experiment, preset, root, data)
            client = connected.enter_context(cluster.scheduler(scheduler))
            folder = folder_run.opened(prepared.configuration, out, resume=resume)
        with _interruptible(folder), _bad_input():
            result = work.document(prepared, folder, client, quiet=quiet)
    work.show(result, folder.path, json=json, quiet=quiet)


@app.command()
def verify(
    select: Annotated[
        list[str] | None,
        _option(
            'The claims to try: a key or its beginning, such as HV17 or "YSJ18 Thm 4". The option can be repeated.',
            "all claims",
        ),
    ] = None,
    instances: Annotated[int, _option("The number of random instances of each claim.", 1)] = 1,
    seed: Annotated[int, _option("The seed of the random instances.", 0)] = 0,
    dtype: Dtype = "float64",
    jobs: Annotated[
        int | None, _option("The number of processes.", "the number of cores, or 1 for a few claims or on a GPU")
    ] = None,
    statements: Annotated[bool, typer.Option("--statements", help="Print the statement below each claim.")] = False,
    only_list: Annotated[bool, typer.Option("--list", help="Print keys and statements, and try nothing.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try the papers' claims on random instances, and print the worst residual, the control and the verdict of each.

    A claim holds if its residual is at most the tolerance, which rounding can
    explain, and if its control, an instance outside of the hypothesis, fails.
    All claims take two to six minutes on two cores, whether there is one
    instance of each or a hundred, since most of it is compilation.
    """
    from globopt_jax.cli import inspection

    with _bad_input():
        if only_list:
            inspection.listed(select, json=json, quiet=quiet)
            return
        check_device()
        verdicts = inspection.selected(select, seed, instances, dtype, jobs)
    _finish(inspection.verify(verdicts, seed=seed, dtype=dtype, statements=statements, json=json, quiet=quiet))


@app.command()
def datasets(json: Json = False, quiet: Quiet = False) -> None:
    """List the data sets with their content, source and licence."""
    from globopt_jax.cli import inspection

    inspection.datasets(json=json, quiet=quiet)


@contextlib.contextmanager
def _bad_input() -> Iterator[None]:
    """Turn an error about the input into one message and exit code 2."""
    from globopt_jax.runs import FolderInUse

    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, FolderInUse) as error:
        say(_words(error))
        raise typer.Exit(2) from None


def _words(error: Exception) -> str:
    """Return the message of an error; for an error about a file, the file and the system's reason."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _worked(run: "work.Run", json: bool, quiet: bool) -> None:
    """Do a run, print its result, and exit with 1 if the check of its certificate failed."""
    from globopt_jax.cli import report

    with _interruptible(run.folder):
        with _bad_input():
            run.load()
        result = run.document()
    if json:
        report.document({**result, "folder": run.folder.path})
    elif not quiet:
        try:
            report.summary(result, run.folder.path)
        except (KeyError, TypeError, ValueError, OverflowError):
            if result["check"]["holds"]:
                raise
            say(f"{run.folder.path}: the check of the stored certificate FAILED: {result['check']['reason']}")
    _finish(result["check"]["holds"])


@contextlib.contextmanager
def _interruptible(folder: "RunFolder") -> Iterator[None]:
    """Hold a run folder; after Ctrl-C or an error of the disk, say how to resume the run, and exit."""
    with folder:
        try:
            yield
        except KeyboardInterrupt:
            say(f"stopped; {folder.path} is kept. To go on: {_again()}")
            raise typer.Exit(130) from None
        except OSError as error:  # such as a full disk, or a folder that was removed
            say(f"{_words(error)}; {folder.path} is kept. To go on: {_again()}")
            raise typer.Exit(2) from None


def _again() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return shlex.join(["globopt", *arguments, "--resume"])


def _finish(holds: bool) -> None:
    if not holds:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line."""
    app(prog_name="globopt")
