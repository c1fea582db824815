"""The house rules: style, types, imports and documentation, read from the code itself."""

import ast
import importlib
import os
import pathlib
import re
import statistics
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "globopt_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]
every_module = pytest.mark.parametrize("path", MODULES, ids=NAMES)

# Slow to load, or wanted only by one corner of the package: whoever needs one of these imports it there.
HEAVY = {"flax", "equinox", "scipy.optimize", "sklearn", "matplotlib", "xarray", "pandas", "typer", "rich"}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with some arguments in the root of the project."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "tool",
    [
        ("ruff", "check"),
        ("ruff", "format", "--check"),
        ("pyright", "--pythonpath", sys.executable),
    ],
    ids=["ruff check", "ruff format", "pyright"],
)
def test_the_code_is_clean(tool):
    """Ruff and pyright have nothing to say."""
    done = run("-m", *tool)
    assert done.returncode == 0, done.stdout + done.stderr


def test_import_loads_nothing_heavy():
    """`import globopt_jax` leaves what only some users need to the moment they need it."""
    done = run("-c", "import sys, globopt_jax; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "globopt_jax" in loaded
    assert not loaded & HEAVY


def test_the_library_needs_no_locks(tmp_path):
    """On Windows there is no fcntl, and a core installation has no filelock."""
    done = run(
        "-c",
        "import sys; sys.modules |= {'fcntl': None, 'filelock': None}\n"
        "import globopt_jax, globopt_jax.deep_linear\n"
        "for topic in globopt_jax.__all__: getattr(globopt_jax, topic)\n"
        "import numpy as np; from globopt_jax import files, npz\n"
        "found = globopt_jax.deep_linear.least_squares(np.eye(3), np.ones((3, 1)))\n"
        "files.write_arrays(sys.argv[1], {'map': np.asarray(found.map)})\n"
        "print(npz.read_arrays(sys.argv[1])['map'].sum())\n"
        "del sys.modules['filelock']\n"
        "import globopt_jax.cli.work\n",
        str(tmp_path / "a.npz"),
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(3)


def test_topics_load_at_first_use():
    """`globopt_jax.losses` works after `import globopt_jax` alone; a name that is no topic is an error."""
    code = "import sys, globopt_jax as g; assert 'globopt_jax.losses' not in sys.modules; print(g.losses.squared.name)"
    done = run("-c", code)
    assert done.stdout == "squared\n", done.stderr
    package = importlib.import_module("globopt_jax")
    assert {"homogeneous", "losses", "datasets", "claims"} <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="'globopt_jax' has no attribute 'loses'"):
        _ = package.loses


@pytest.mark.parametrize("topic", importlib.import_module("globopt_jax").__all__[1:])
def test_a_topic_shows_its_public_names_alone(topic):
    """An editor offers what `dir` lists: no `jnp`, no `Any`."""
    module = importlib.import_module(f"globopt_jax.{topic}")
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.slow
def test_import_costs_little_over_jax():
    """Medians of ten interleaved imports: at most 0.3 s over `import jax`; with all topics loaded at most 0.5 s."""
    measure = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
    statements = {
        "jax": "import jax",
        "package": "import jax, globopt_jax",
        "topics": "from globopt_jax import claims, datasets, homogeneous, losses",
    }
    seconds: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(10):  # interleaved, so that a busy machine slows all alike
        for name, times in seconds.items():
            times.append(float(run("-c", measure.format(statements[name])).stdout))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print({name: round(median, 3) for name, median in medians.items()})
    assert medians["package"] - medians["jax"] <= 0.3
    assert medians["topics"] - medians["jax"] <= 0.5


@pytest.mark.parametrize(
    "entry",
    [("-m", "globopt_jax"), ("-c", "from globopt_jax.__main__ import main; main()")],
    ids=["python -m globopt_jax", "globopt"],
)
def test_the_command_without_its_extra_names_it_in_one_line(entry, tmp_path):
    """A core installation has the command too: it says what to install, and exits with 2."""
    # A finder that hides typer stands in for an environment without it.
    _ = (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'typer' else find(name, package)\n"
    )
    done = run(*entry, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "globopt needs typer: pip install 'globopt_jax[app]'\n"


@every_module
def test_only_public_jax(path):
    """Private JAX moves without notice: a package that leans on it stops importing one day."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                found = [f"{module}.{alias.name}" for alias in names]
            case ast.Attribute():
                found = [ast.unparse(node)]
            case _:
                continue
        private = [name for name in found if re.match(r"jax\.(_src|core|interpreters)\b", name)]
        assert not private, f"{path.name}:{node.lineno} uses {private}"


@every_module
def test_no_path_of_one_machine(path):
    """Nobody else has this home directory."""
    assert not re.findall(r"""["'`\s](?:/(?:home|root|work|Users|tmp|mnt|opt)/|[A-Z]:\\)""", path.read_text())


@every_module
def test_configuration_is_changed_only_inside_a_with(path):
    """The user's JAX configuration is theirs."""
    assert "config.update" not in path.read_text()


@every_module
def test_every_module_says_what_it_is(path):
    """A docstring opens every module, and every public function and class in it."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}:{node.lineno} {node.name} has no docstring"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_no_test_draws_from_a_generator_of_its_module(path):
    """Its numbers would depend on the tests that ran before it."""
    tree = ast.parse(path.read_text())
    shared = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("np.random.default_rng(")
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)):
        loaded = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        own = stored | {argument.arg for argument in ast.walk(function) if isinstance(argument, ast.arg)}
        assert not (loaded & shared) - own, f"{path.name}:{function.lineno} uses {loaded & shared}"
