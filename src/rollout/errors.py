"""Errors of this package, beside those of Python."""


class UnsupportedNetworkError(ValueError):
    """The network has no single graph of tokens through all blocks; nothing can be rolled out.

    Attributes:
        finding: what stands in the way, without what to do about it.
    """

    def __init__(self, message: str, finding: str = "") -> None:
        super().__init__(message)
        self.finding = finding or message
