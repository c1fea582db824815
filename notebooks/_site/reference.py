"""The reference: a page per public topic, written from the topic's ``__all__`` and its docstrings.

``.. public-names:: globopt_jax.losses`` stands for the docstring of the module, tables of its names, and a description
of each of them. Nothing is listed by hand, so no public name can be forgotten on a page.
"""

import ast
import importlib
import inspect
import pprint
import re
import sys
import textwrap
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import globopt_jax

#: The kinds of names in the order of a page: heading, directive of autodoc, and the lines of its options.
KINDS = {
    "function": ("Functions", "autofunction", []),
    "class": ("Results and other types", "autoclass", ["   :members:", "   :undoc-members:"]),
    "data": ("Constants and instances", "autodata", ["   :no-value:"]),
    "module": ("Modules", "", []),
}


def kind_of(value: Any) -> str:
    """The kind of a public name's value: a key of `KINDS`."""
    if isinstance(value, ModuleType):
        return "module"
    if inspect.isclass(value) and value.__module__.startswith(globopt_jax.__name__):
        return "class"  # an alias such as Any is data
    return "function" if inspect.isroutine(value) else "data"


def comment_on(module: str, name: str) -> str:
    """What the source says of a constant in its ``#:`` comment, in the topic's module or in the one it comes from.

    Where the source says nothing, the value speaks for itself.
    """
    value = getattr(importlib.import_module(module), name)
    places = [m for m in sorted(sys.modules) if m == module or m.startswith(f"{module}.")]
    for place in places:
        if getattr(sys.modules[place], name, None) is not value:
            continue
        try:
            found = ModuleAnalyzer.for_module(place).find_attr_docs().get(("", name))
        except PycodeError:
            continue
        if found:
            return "\n".join(found).strip()
    is_plain = isinstance(value, dict | tuple | list | str | int | float)
    return "::\n\n" + textwrap.indent(pprint.pformat(value, width=100, sort_dicts=False), "   ") if is_plain else ""


def first_sentence(module: ModuleType, name: str) -> str:
    """The first sentence of an object's docstring, as reST on one line."""
    text = " ".join((inspect.getdoc(getattr(module, name)) or "").partition("\n\n")[0].split())
    # A dot inside of a literal or of a pair of brackets ends no sentence.
    starts = (text[: dot.end()] for dot in re.finditer(r"\.(?= [A-Z`])", text))
    whole = (start for start in starts if start.count("``") % 2 == 0 and start.count("(") == start.count(")"))
    return no_substitutions(next(whole, text))


class PublicNames(SphinxDirective):
    """The directive ``public-names``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the page's reST and parse it."""
        topic = self.arguments[0]
        module = importlib.import_module(topic)
        names = sorted(module.__all__, key=lambda name: (name.lower(), name))
        lines = [f".. automodule:: {topic}", "   :no-members:", ""]
        for kind, (heading, directive, options) in KINDS.items():
            of_kind = [name for name in names if kind_of(getattr(module, name)) == kind]
            if of_kind:
                lines += [heading, "-" * len(heading), ""]
            if of_kind and kind in ("function", "class"):
                lines += [".. list-table::", "   :widths: 30 70", ""]
                for name in of_kind:
                    lines += [f"   * - :py:obj:`{name} <{topic}.{name}>`", f"     - {first_sentence(module, name)}"]
                lines.append("")
            for name in of_kind:
                lines += [f".. {directive}:: {topic}::{name}", *options, ""] if directive else []
                if kind == "data":
                    lines += [*textwrap.indent(comment_on(topic, name), "   ").splitlines(), ""]
                if kind == "module":
                    lines += link(topic, module, name)
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def link(topic: str, module: ModuleType, name: str) -> list[str]:
    """Of a module among a topic's names: a target for links to the name, and a link to the module's page."""
    page = getattr(module, name).__name__.rpartition(".")[2]
    return [f".. py:data:: {name}", f"   :module: {topic}", "", f"   :doc:`The topic {page} <{page}>`.", ""]


class Topics(SphinxDirective):
    """The directive ``topics``: a table of the public topics, each with a link to its page and its first sentence."""

    def run(self) -> list[nodes.Node]:
        """Write the table's reST and parse it."""
        lines = [".. list-table::", "   :widths: 25 75", ""]
        for topic in sorted(globopt_jax.__all__):
            if isinstance(getattr(globopt_jax, topic), ModuleType):
                lines += [f"   * - :doc:`{topic}`", f"     - {first_sentence(globopt_jax, topic)}"]
        return self.parse_text_to_nodes("\n".join(lines))


#: What ends a line before an indented block that is no formula: a section of a docstring, a literal block.
SECTION = re.compile(r"(^[A-Z]\w+:|::)$")


def clean(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make the docstrings of this package reST, before napoleon reads their sections.

    A formula stands in an indented paragraph of its own, which becomes a literal block. A bar that is no markup gets a
    backslash. What Python writes itself, for the fields of a NamedTuple and for constants, goes.
    """
    del app, name, options
    if what == "data" or (lines and lines[0].startswith("Alias for field number")):
        lines.clear()
    if what == "data" and type(obj).__module__.startswith(globopt_jax.__name__):
        lines[:] = (inspect.getdoc(type(obj)) or "").splitlines()
    out: list[str] = []
    before = ""
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        rows = block.splitlines()
        formula = (
            bool(rows)
            and all(row.startswith("    ") for row in rows)
            and not before.startswith(" ")
            and not SECTION.search(before)
            and not re.match(r"\s*(>>>|``|[-*] |[=+]{3})", block)
        )
        out += ["::", "", *rows, ""] if formula else [*no_substitutions(block).splitlines(), ""]
        before = rows[-1] if rows else before
    # Napoleon takes the words before a colon for a type, in an attribute's first line and under Returns; an empty type
    # says that there is none.
    if what in ("property", "attribute", "data") and ":" in out[0]:
        out[0] = f": {out[0]}"
    lines[:] = re.sub(r"(?m)^(\s*(?:Returns|Yields):\n\s+)(?=[^\s:])", r"\1: ", "\n".join(out)).splitlines()


def no_substitutions(text: str) -> str:
    """The text with a backslash before every bar that stands in no literal: reST would look for a substitution."""
    parts = re.split(r"(``.*?``|`.*?`)", text, flags=re.DOTALL)
    parts[::2] = [part if ">>>" in part else re.sub(r"(?<!\\)\|", r"\\|", part) for part in parts[::2]]
    return "".join(parts)


def as_written(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any) -> Any:
    """The signature as the source has it: ``Float[Array, 'm dx']`` and not what such an annotation evaluates to."""
    del app, name, options, signature, returns
    if what == "class":
        return _of_class(obj)
    if what not in ("function", "method"):
        return None
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(obj)))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    if not isinstance(node, ast.FunctionDef):
        return None
    bound = what == "method" and not any(ast.unparse(d) == "staticmethod" for d in node.decorator_list)
    if bound:
        first = node.args.posonlyargs or node.args.args
        del first[:1]
    return f"({ast.unparse(node.args)})", node.returns and ast.unparse(node.returns)


def _of_class(obj: Any) -> Any:
    """Of a dataclass its fields; of a NamedTuple nothing, since the fields follow and nobody constructs one."""
    if hasattr(obj, "_fields") or inspect.isabstract(obj):
        return "", None
    if not (inspect.isclass(obj) and is_dataclass(obj)):
        return None
    body = ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    fields = [node for node in getattr(body, "body", []) if isinstance(node, ast.AnnAssign)]
    return f"({', '.join(ast.unparse(field) for field in fields)})", None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive, and what corrects docstrings and signatures before napoleon reads them."""
    app.add_directive("public-names", PublicNames)
    app.add_directive("topics", Topics)
    app.connect("autodoc-process-docstring", clean, priority=100)
    app.connect("autodoc-process-signature", as_written)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
