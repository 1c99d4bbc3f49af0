"""Errors of this package, beside those of Python, and how they show what they were given."""

from reprlib import Repr


class UnsupportedNetworkError(ValueError):
    """The network has no single graph of tokens through all blocks; nothing can be rolled out.

    Attributes:
        finding: what stands in the way, without what to do about it.
    """

    def __init__(self, message: str, finding: str = "") -> None:
        super().__init__(message)
        self.finding = finding or message


class ImageNotTakenError(ValueError):
    """A network failed on an image as its transform makes it.

    Attributes:
        size: (height, width) of another image that it takes; None where none was found.
    """

    def __init__(self, message: str, size: tuple[int, int] | None) -> None:
        super().__init__(message)
        self.size = size


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlong = 40


def shown(value: object) -> str:
    """Its `repr` for a message, shortened in the middle where it is long."""
    return _SHORT.repr(value)
