"""Exports a whole PyTorch training step as one ONNX file.

``export_train_step`` writes forward, backward and optimizer; ``export_forward``
writes an inference graph. Compiling, rewriting and running the files is not
done here: that is ``pam-compile``'s work.
"""

from .errors import ExportError, VerificationError
from .export import ExportedStep, export_forward, export_train_step

__all__ = [
    "ExportError",
    "ExportedStep",
    "VerificationError",
    "export_forward",
    "export_train_step",
]
