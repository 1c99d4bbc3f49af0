"""The scripts and styles that lie beside this file, as the browser gets them."""

from pathlib import Path

_HERE = Path(__file__).parent


def script(*names: str) -> str:
    """One module of several files, in this order: what the later ones call comes first.

    A widget's script is sent by itself, and can import no file of ours.
    """
    return "\n".join((_HERE / f"{name}.js").read_text() for name in names)


def style(name: str) -> str:
    return (_HERE / f"{name}.css").read_text()
