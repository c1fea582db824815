"""The documentation site: it builds without a warning, leads everywhere, leaves out no name, and its examples run."""

import contextlib
import doctest
import html.parser
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys
import urllib.parse
import zlib
from types import ModuleType

import filelock
import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import globopt_jax
from globopt_jax import claims
from globopt_jax.cli import app

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "notebooks"
PAGES = sorted(
    path for path in SOURCE.rglob("*.md") if re.search(r"^```(python|bash)$", path.read_text(), re.MULTILINE)
)
TOPICS = {name: getattr(globopt_jax, name) for name in globopt_jax.__all__}
TOPICS = {name: module for name, module in TOPICS.items() if isinstance(module, ModuleType)}


class Page(html.parser.HTMLParser):
    """The targets and the links of a page, and the links of each row of its tables."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.targets: set[str] = set()
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.in_row = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = {name: value for name, value in attrs if value}
        self.targets |= {found[name] for name in ("id", "name") if name in found}
        if tag == "tr":
            self.rows.append([])
            self.in_row = True
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
            if self.in_row:
                self.rows[-1].append(found["href"])

    def handle_endtag(self, tag):
        self.in_row = self.in_row and tag != "tr"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The built site; several workers share one."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = base / "site"
    with filelock.FileLock(base / "site.lock"):
        if not (out / "done").exists():
            # The notebooks are executed by their own test, and a third of the time goes into the names in sidebars.
            left_out = ["-D", "nb_execution_mode=off", "-D", "toc_object_entries=0"]
            options = ["-W", "--keep-going", "-q", *left_out, "-b", "html"]
            command = [sys.executable, "-m", "sphinx", *options, str(SOURCE), str(out)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            (out / "done").touch()
    return out


@pytest.fixture(scope="session")
def reference(site):
    """The names that the site describes, by Sphinx's own inventory."""
    listing = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    return {line.split()[0] for line in listing.splitlines() if line.split()[1].startswith("py:")}


def test_every_link_leads_somewhere(site):
    """Pages, targets on them, pictures and downloads; what stands outside of the site is not asked for."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            fragment = urllib.parse.unquote(parts.fragment)
            there = target.exists() and (not fragment or fragment in pages[target].targets)
            if not there:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken
    assert sum(len(page.links) for page in pages.values()) > 1000  # so the links were found


def test_every_public_name_is_in_the_reference(reference):
    """A topic without a page gets a file of four lines in notebooks/reference."""
    public = {f"globopt_jax.{topic}.{name}" for topic, module in TOPICS.items() for name in module.__all__}
    assert public - reference == set()
    assert "globopt_jax.homogeneous.forgotten" not in reference


def test_every_field_of_a_result_is_in_the_reference(reference):
    results = {
        f"globopt_jax.{topic}.{name}": getattr(module, name)._fields
        for topic, module in TOPICS.items()
        for name in module.__all__
        if hasattr(getattr(module, name), "_fields")
    }
    assert len(results) > 10
    assert {f"{name}.{field}" for name, fields in results.items() for field in fields} - reference == set()


def test_the_theorem_index_is_complete_both_ways(site):
    """Every claim has a check and functions behind it, and both tables hold the same pairs."""
    page = Page(site / "guide" / "theorems.html")
    forth, back = set(), set()
    for row in page.rows:
        statements = [link for link in row if link.startswith("#claim-")]
        functions = [link for link in row if "#globopt_jax." in link]
        into = forth if row and row[0].startswith("#claim-") else back
        into |= {(statement, function) for statement in statements for function in functions}
    assert forth == back
    assert len({statement for statement, _ in forth}) == len(claims.all_claims())
    assert {statement.removeprefix("#") for statement, _ in forth} <= page.targets
    text = (site / "guide" / "theorems.html").read_text()
    assert all(claim.key in text for claim in claims.all_claims())
    behind = {function.partition("#")[2] for statement, function in forth if statement == "#claim-khk19-thm-2"}
    assert behind == {f"globopt_jax.local_minima.{name}" for name in ("regression_bounds", "RegressionBounds")}


def test_the_index_reads_citations():
    """The doctest of the extension that finds statements in docstrings."""
    path = os.pathsep.join(map(str, (ROOT, SOURCE)))
    command = [sys.executable, "-m", "doctest", str(SOURCE / "_site" / "theorems.py")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Tensor:
    """An array that has to be asked for, as PyTorch's are."""

    def __init__(self, *shape: int):
        self.array = np.ones(shape)

    def numpy(self) -> np.ndarray:
        return self.array


class Model:
    """What the page on grading reads of a PyTorch model, without PyTorch."""

    def state_dict(self) -> dict[str, Tensor]:
        return {"hidden.weight": Tensor(8, 1), "hidden.bias": Tensor(8), "out.weight": Tensor(1, 8)}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(SOURCE)) for page in PAGES])
def test_the_examples_of_a_page_run(page, tmp_path):
    """Fences of python and bash, in order, in one folder; a fence of text after one is its output."""
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {"model": Model()} if page.stem == "grade" else {}
    same = doctest.OutputChecker().check_output
    printed, flags = "", doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    # A page is written for JAX as most people have it.
    with (
        contextlib.chdir(tmp_path),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.enable_x64(False),
    ):
        before = ""
        for language, body in fences:
            if language == "python":
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(compile(body, str(page), "exec"), names)
                printed = out.getvalue()
            elif language == "bash":
                for line in body.splitlines():
                    program, *arguments = shlex.split(line)
                    assert program == "globopt"
                    done = CliRunner().invoke(app, arguments)
                    assert done.exit_code == 0, done.output
            elif language == "text" and before == "python" and printed:
                assert same(body, printed, flags), f"{page.name} says\n{body}but\n{printed}was printed"
            before = language
