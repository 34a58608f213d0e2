"""Versioned prompt templates and the strict loader.

A template is one file, ``templates/NAME.vVERSION.LANGUAGE.jinja``, immutable once it has been used
for an evaluation or a tuned adapter: a change of wording is a new version. Its first line declares
the variables that it takes, ``{#- takes: a, b -#}``; a rendering with one missing or one too many
is refused.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, meta

_NAME = re.compile(r"(?P<name>[a-z_]+)\.v(?P<version>\d+)\.(?P<language>[a-z]{2})\.jinja")
_HEADER = re.compile(r"\{#- takes: (?P<variables>[a-z_, ]+) -#\}\n")
_ROLES = ("system", "user", "assistant")
_ENVIRONMENT = Environment(
    undefined=StrictUndefined,
    autoescape=False,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
)


class TemplateError(ValueError):
    """A template is missing or broken, or was given the wrong variables; the message names it."""


@dataclass(frozen=True)
class PromptTemplate:
    """One version of one template in one language.

    Attributes:
        sha256: of the file's bytes: the identity that results and adapters record.
        variables: exactly what `render` takes.
    """

    name: str
    version: int
    language: str
    sha256: str
    variables: frozenset[str]
    _compiled: Template

    def render(self, **variables: Any) -> str:
        """Return the text.

        Raises:
            TemplateError: a variable is missing or not one of the template's.
        """
        self._check(variables)
        return self._compiled.render(**variables)

    def render_messages(self, **variables: Any) -> tuple[tuple[str, str], ...]:
        """Return the (role, text) pairs of a template made of blocks named by chat roles.

        Raises:
            TemplateError: a variable is missing or not one of the template's.
        """
        self._check(variables)
        context = self._compiled.new_context(variables)
        return tuple(
            (role, "".join(self._compiled.blocks[role](context)).strip("\n"))
            for role in _ROLES
            if role in self._compiled.blocks
        )

    def _check(self, variables: dict[str, Any]) -> None:
        given = frozenset(variables)
        if given != self.variables:
            missing = ", ".join(sorted(self.variables - given)) or "none"
            extra = ", ".join(sorted(given - self.variables)) or "none"
            where = f"{self.name}.v{self.version}.{self.language}"
            raise TemplateError(f"template {where}: missing variables {missing}; unknown {extra}")


@cache
def load_template(name: str, language: str, version: int | None = None) -> PromptTemplate:
    """Return a template; without a version the newest one.

    Raises:
        TemplateError: there is no such template, or its declaration and its text disagree.
    """
    folder = files("prompts") / "templates"
    found: dict[int, str] = {}
    for entry in folder.iterdir():
        match = _NAME.fullmatch(entry.name)
        if match and match["name"] == name and match["language"] == language:
            found[int(match["version"])] = entry.name
    wanted = version if version is not None else max(found, default=0)
    if wanted not in found:
        known = ", ".join(sorted(found.values())) or "none"
        raise TemplateError(f"no template {name} version {wanted} in {language}; found: {known}")
    source = (folder / found[wanted]).read_bytes()
    text = source.decode()
    variables = _declared(found[wanted], text)
    return PromptTemplate(
        name=name,
        version=wanted,
        language=language,
        sha256=hashlib.sha256(source).hexdigest(),
        variables=variables,
        _compiled=_ENVIRONMENT.from_string(text),
    )


def _declared(file: str, text: str) -> frozenset[str]:
    header = _HEADER.match(text)
    if header is None:
        raise TemplateError(f"{file}: the first line must declare the variables")
    declared = frozenset(part.strip() for part in header["variables"].split(","))
    used = meta.find_undeclared_variables(_ENVIRONMENT.parse(text))
    if declared != used:
        raise TemplateError(f"{file}: declares {sorted(declared)} but uses {sorted(used)}")
    return declared


__all__ = ["PromptTemplate", "TemplateError", "load_template"]
