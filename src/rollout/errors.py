"""Errors of this package, beside those of Python."""


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
