"""For mkdocs: links from a page to the repository's files, which the site has not, become the files' names.

On a page in the repository such a link leads to the file. One that leads nowhere fails the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

_LINK = re.compile(r"\[([^\]\n]+)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    docs, here = Path(config["docs_dir"]).resolve(), Path(page.file.abs_src_path).resolve()

    def replaced(found: re.Match[str]) -> str:
        text, target = found.group(1), (here.parent / found.group(2)).resolve()
        if target.is_relative_to(docs):
            return found.group(0)
        if not target.exists():
            raise PluginError(f"{page.file.src_uri}: links to {found.group(2)}, which is not there")
        name = target.relative_to(docs.parent).as_posix()
        return f"`{name}`" if text.strip("`") in (name, target.name) else f"{text} (`{name}`)"

    return _LINK.sub(replaced, markdown)
