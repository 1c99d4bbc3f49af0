"""Names of classes, models and files are data: how they go into code, titles and file names.

Labels come out of downloaded configurations, and may hold anything that a string can.
"""

import re

LONGEST_TITLE = 80
LONGEST_FILE_NAME = 200


def one_line(name: object, most: int = LONGEST_TITLE) -> str:
    """A name for a title or a comment: one line of printable characters, shortened in its middle.

    Line breaks of every kind, control characters and lone surrogates become spaces.
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in str(name))
    words = " ".join(printable.split())
    if len(words) <= most:
        return words
    half = (most - 1) // 2
    return f"{words[:half]}\u2026{words[len(words) - half :]}"


def file_name(name: object, *, otherwise: str = "image", most: int = LONGEST_FILE_NAME) -> str:
    """A name for a file or folder, without its ending: it is never empty and leads nowhere else.

    Args:
        otherwise: where nothing is left, as of "..".
        most: bytes, which is what file systems count.
    """
    kept = re.sub(r"[^\w. -]+", "_", one_line(name, most))
    while len(kept.encode()) > most:
        kept = kept[:-1]
    return kept.strip(". ") or otherwise


def quoted(text: str) -> str:
    """A string literal of Python, with double quotes where that needs no backslash."""
    literal = repr(text)
    return f'"{literal[1:-1]}"' if literal[0] == "'" and '"' not in literal else literal
