"""The demo as one self-contained HTML page."""

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from reranker.cli.demo_report import DemoReport, evidence, shopper_name


def write_page(report: DemoReport, target: Path) -> None:
    """Write the page, in one step: a reader never sees half of it."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(shopper_name=shopper_name, evidence=evidence)
    source = (files("reranker.cli") / "demo.html.jinja").read_text(encoding="utf-8")
    html = environment.from_string(source).render(report=report)
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(html, encoding="utf-8")
    part.replace(target)
