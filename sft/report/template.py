"""How every HTML page of the project is rendered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(path: Path, **filters: Callable) -> Any:
    """The jinja2 template in ``path``: values are escaped, and a missing one is an error.

    It may include what lies beside it, and ``page.css``, which all pages have in common.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(path.name)
