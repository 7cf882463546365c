"""The two ways an export can fail."""


class ExportError(Exception):
    """The step holds something that cannot be exported; the text says what, why and what to do."""


class VerificationError(ExportError):
    """The written file computes something else than eager PyTorch does."""
