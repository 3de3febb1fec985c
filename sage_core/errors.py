"""The one family of errors that this package raises on bad input.

Every message names the file, row or field, the value found, the value expected, and the way out.
"""

from __future__ import annotations


class SageError(Exception):
    """Base of every error that a user can cause and mend."""

    def __init_subclass__(cls) -> None:
        # A host may load the package from any folder, and shows an error's module: its own name says more.
        before, found, rest = cls.__module__.partition(__package__)
        cls.__module__ = __package__.rpartition(".")[2] + rest if found else before


class FileError(SageError, OSError):
    """A file cannot be written: its place, its disk or its rights do not allow it."""


class EncoderError(SageError):
    """A file or model is not an SD 1.x text encoder, or is a damaged one."""


class UnetError(SageError):
    """A file or model is not an SD 1.x U-Net or a change of one, or an edit of it cannot be made."""


class PromptError(SageError):
    """A prompt file or prompt list cannot be used."""


class SettingsError(SageError):
    """A setting has a value that makes no sense, alone or together with the others."""


class TrainingError(SageError):
    """A training run cannot start or cannot go on."""


class QuestionError(SageError):
    """A question file or question row cannot be used."""


class JudgeError(SageError):
    """A judge model is missing, of an unknown kind, or answered nonsense."""


class ShapesError(SageError):
    """The shapes world's weights are missing or damaged, or a scene cannot exist."""
