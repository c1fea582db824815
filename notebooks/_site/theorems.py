"""The theorem index: which function stands behind a numbered statement of the papers, and the other way round.

The tables are read off `globopt_jax.claims` and off the docstrings: the public functions that a claim's check calls
stand behind the statement, and so do those whose docstring cites it. The index is complete and up to date without a
list that somebody keeps.
"""

import ast
import html
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import groupby
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import globopt_jax
from _site.reference import no_substitutions
from globopt_jax.claims import Claim, all_claims

#: Names of which checks make their instances, and the plain loss: a statement is not about these.
MATERIAL = {
    "homogeneous.EFFORTS",
    "homogeneous.Problem",
    "homogeneous.sum_of_powers",
    "homogeneous.relu_neuron",
    "homogeneous.rank_one",
    "losses.squared",
    "networks.feed_forward",
    "local_minima.vec",
    "deep_linear.loss",
    "linalg.machine_epsilon",
}
PAPERS = "HV17|K18|YSJ18|KHK19|NH17"
#: The words of docstrings and their short forms in the keys of claims.
AUTHORS = {
    "Haeffele & Vidal 2017": "HV17",
    "Koh 2018": "K18",
    "Yun, Sra & Jadbabaie 2018": "YSJ18",
    "Kawaguchi, Huang & Kaelbling 2019": "KHK19",
    "Nguyen & Hein 2017": "NH17",
}
SHORT = {"Theorem": "Thm", "Corollary": "Cor", "Proposition": "Prop", "Definition": "Def", "Lemma": "Lemma"}


def public() -> Iterator[tuple[str, Any]]:
    """The names and values of all topics, each name as ``topic.name``."""
    for topic in globopt_jax.__all__:
        module = getattr(globopt_jax, topic)
        if isinstance(module, ModuleType):
            for name in getattr(module, "__all__", ()):
                yield f"{topic}.{name}", getattr(module, name)


def cited_in(text: str) -> set[str]:
    """The statements that a docstring cites, as beginnings of keys: ``HV17 Theorems 1 and 2`` gives two.

    A paper may be named by its tag, before or after the number, or by its authors.

    >>> sorted(cited_in("Decides by value (YSJ18 Theorems 2.1, 2.2 and Lemma B.1; K18 2.4)."))
    ['YSJ18 Lemma B.1', 'YSJ18 Thm 2.1', 'YSJ18 Thm 2.2']
    >>> sorted(cited_in("This is Theorem 3.4 of NH17. Reference: Haeffele & Vidal 2017, Proposition 1."))
    ['HV17 Prop 1', 'NH17 Thm 3.4']
    """
    found: set[str] = set()
    text = " ".join(text.split())
    for names, tag in {**AUTHORS, "Corollaries": "Corollary"}.items():
        text = text.replace(names, tag)
    number = r"(?:[A-Z]\.)?\d+(?:\.\d+)?"
    statement = rf"\b({'|'.join(SHORT)})s? ({number}(?:(?:, | and | to ){number})*)"
    cited: list[tuple[str, str, str]] = []
    for tag, rest in re.findall(rf"({PAPERS})((?:(?!{PAPERS}).){{0,120}})", text):
        cited += [(tag, word, numbers) for word, numbers in re.findall(statement, rest)]
    cited += [(tag, word, numbers) for word, numbers, tag in re.findall(rf"{statement} of ({PAPERS})", text)]
    for tag, word, numbers in cited:
        found |= {f"{tag} {SHORT[word]} {one}" for one in re.findall(number, numbers)}
    return found


def unwrapped(check: Callable[..., Any]) -> Any:
    """The function inside a partial."""
    while isinstance(check, partial):
        check = check.func
    return check


@cache
def tree_of(function: Callable[..., Any]) -> ast.AST:
    """The syntax tree of a function's source."""
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def names_in(function: Any) -> Iterator[str]:
    """The public names, such as ``deep_linear.classify``, that the source of a check uses."""
    known = dict(public())
    for node in ast.walk(tree_of(function)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = function.__globals__.get(node.value.id)
            name = f"{getattr(module, '__name__', '').rpartition('.')[2]}.{node.attr}"
            if isinstance(module, ModuleType) and name in known:
                yield name


@cache
def called_by(claim: Claim) -> frozenset[str]:
    """The public functions that a claim's check calls, or else those that its helpers call."""
    found: set[str] = set()
    level = [unwrapped(claim.check)]
    while level and not found:
        found = {name for function in level for name in names_in(function)} - MATERIAL
        level = [helper for function in level for helper in _helpers(function)]
    return frozenset(found)


def _helpers(function: Any) -> list[Any]:
    """The functions of its own module that a function names."""
    names = {node.id for node in ast.walk(tree_of(function)) if isinstance(node, ast.Name)}
    values = [inspect.unwrap(function.__globals__[n]) for n in sorted(names) if callable(function.__globals__.get(n))]
    return [v for v in values if inspect.isfunction(v) and v.__module__ == function.__module__]


@cache
def functions_behind() -> dict[str, list[str]]:
    """For the key of every claim the public functions behind it: first those that cite it, then the most special."""
    claims = all_claims()
    how_often = Counter(name for claim in claims for name in called_by(claim))
    works = [(name, value) for name, value in public() if callable(value) and not name.startswith("claims.")]
    cited = {name: cited_in(inspect.getdoc(value) or "") for name, value in works}
    found: dict[str, list[str]] = {}
    for claim in claims:
        key = claim.key.partition(",")[0]
        citing = {name for name, keys in cited.items() if any(key == k or key.startswith(f"{k} ") for k in keys)}
        names = sorted(called_by(claim), key=lambda name: (name not in citing, how_often[name], name))
        found[claim.key] = [*names, *sorted(citing.difference(names))]
    return found


def statements_behind() -> dict[str, list[str]]:
    """For every function that stands behind a statement the keys of the claims."""
    found: dict[str, list[str]] = {}
    for key, names in functions_behind().items():
        for name in names:
            found.setdefault(name, []).append(key)
    return dict(sorted(found.items()))


class TheoremIndex(SphinxDirective):
    """The directive ``theorem-index``: statements with their functions, functions with their statements, the checks."""

    def run(self) -> list[nodes.Node]:
        """Write the page's reST and parse it; the checks' source folds away in HTML."""
        claims, behind = all_claims(), functions_behind()
        lines = ["From a statement to its function", "-" * 40, ""]
        for paper, group in groupby(claims, key=lambda claim: claim.paper):
            lines += [f".. rubric:: {paper}", "", *_table(["statement", "functions"], "60 40")]
            for claim in group:
                functions = ", ".join(map(_function, behind[claim.key]))
                lines += _row([f"{_check_link(claim.key)}: {no_substitutions(claim.statement)}", functions])
            lines.append("")
        lines += ["From a function to its statements", "-" * 40, "", *_table(["function", "statements"], "40 60")]
        for name, keys in statements_behind().items():
            lines += _row([_function(name), ", ".join(map(_check_link, keys))])
        lines += ["", "The checks", "-" * 40, ""]
        lines += [
            "Each check draws a random instance, calls the library and compares. Most checks also try an instance on"
        ]
        lines += [
            "which the statement has to fail, which shows that the check can fail. ``globopt verify`` runs all.",
            "",
        ]
        found = self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)
        last = found[-1]
        assert isinstance(last, nodes.section)
        for claim in claims:
            last.extend(self._check(claim))
        return found

    def _check(self, claim: Claim) -> list[nodes.Node]:
        """The paragraph of one claim, with the source of its check."""
        text = [f".. _{_anchor(claim.key)}:", "", f".. rubric:: {claim.key}", "", no_substitutions(claim.statement), ""]
        text += [f"Where it stands: {claim.equation}.", ""]
        text += [f"Functions: {', '.join(map(_function, functions_behind()[claim.key]))}.", ""]
        command = html.escape(f'globopt verify --select "{claim.key}"')
        opening = f'<details class="check"><summary>The check, which <code>{command}</code> runs</summary>'
        return [
            *self.parse_text_to_nodes("\n".join(text)),
            nodes.raw("", opening, format="html"),
            nodes.literal_block(text=inspect.getsource(unwrapped(claim.check)), language="python"),
            nodes.raw("", "</details>", format="html"),
        ]


def _anchor(key: str) -> str:
    return nodes.make_id(f"claim {key}")


def _check_link(key: str) -> str:
    return f":ref:`{key} <{_anchor(key)}>`"


def _function(name: str) -> str:
    return f":py:obj:`{name} <globopt_jax.{name}>`"


def _table(header: list[str], widths: str) -> list[str]:
    return [".. list-table::", "   :class: theorems", "   :header-rows: 1", f"   :widths: {widths}", "", *_row(header)]


def _row(cells: list[str]) -> list[str]:
    return [f"   * - {cells[0]}", *(f"     - {cell}" for cell in cells[1:])]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("theorem-index", TheoremIndex)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
