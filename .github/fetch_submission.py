"""Fetch the one attachment that an issue's text (the variable BODY) names: `fetch_submission.py OUT`.

The text is a stranger's. Only an attachment on GitHub's own servers is fetched, only one, and only so much of it.
"""

from __future__ import annotations

import os
import re
import sys
import urllib.request

LARGEST = 25 << 20
_ADDRESS = re.compile(
    r"https://github\.com/user-attachments/files/[0-9]{1,20}/[A-Za-z0-9._-]{1,100}\.gz(?![\w./?#%&=@:-])"
)


def address(body: str) -> str:
    """The address of the attachment.

    Raises:
        ValueError: the text names none, or more than one.
    """
    found = sorted(set(_ADDRESS.findall(body)))
    if len(found) != 1:
        raise ValueError(f"the issue names {len(found)} attachments NAME.gz; expected one")
    return found[0]


def main() -> None:
    try:
        where = address(os.environ.get("BODY", ""))
    except ValueError as error:
        sys.exit(f"error: {error}")
    with urllib.request.urlopen(where, timeout=60) as answer:
        content = answer.read(LARGEST + 1)
    if len(content) > LARGEST:
        sys.exit(f"error: the attachment is larger than {LARGEST >> 20} MiB")
    with open(sys.argv[1], "wb") as file:
        file.write(content)


if __name__ == "__main__":
    main()
