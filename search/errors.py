"""Everything that can go wrong by a user's doing, as one tree.

ConsiliumError
├── ConfigError       the YAML: a key, a value, a path in it
├── DatasetError      the images and tables it names
│   ├── AuditError    findings that the audit policy does not let pass
│   └── DamagedImageError  one image that cannot be decoded
├── SplitError        the groups cannot be divided as asked
├── CacheError        the decoded images cannot be stored
├── TrainingError     a trial that cannot go on (NaN, no weights at hand)
│   └── InfeasibleError    a trial whose classifier breaks a constraint
├── StudyError        a study folder that is not this experiment's, or newer
├── BundleError       a bundle that is damaged, tampered with or newer
├── GateError         a gate that failed: the bundle is not good enough to be written
├── ServingError      the endpoint cannot start or cannot be reached
└── ClusterError      a cluster that cannot be reached, or does not fit

The command prints `str(error)` as one line and exits with `error.exit_code`.
"""


class ConsiliumError(Exception):
    """A mistake its reader can mend: the rule, the value and the next step in one line."""

    exit_code = 2


class ConfigError(ConsiliumError):
    """A key, a value or a path in the experiment's YAML."""


class DatasetError(ConsiliumError):
    """The images and tables that the config names."""


class AuditError(DatasetError):
    """Findings that the audit policy does not let pass."""


class DamagedImageError(DatasetError):
    """One image that cannot be decoded: no image at all, truncated, too large."""


class SplitError(ConsiliumError):
    """The groups cannot be divided as asked."""


class CacheError(ConsiliumError):
    """The decoded images cannot be stored."""


class TrainingError(ConsiliumError):
    """A trial that cannot start or go on."""


class InfeasibleError(TrainingError):
    """A trial whose classifier breaks a constraint before it trains."""


class StudyError(ConsiliumError):
    """A study folder that is not this experiment's, is damaged or is newer."""


class BundleError(ConsiliumError):
    """A bundle that is damaged, tampered with or newer."""


class GateError(ConsiliumError):
    """A gate that failed."""

    exit_code = 1


class ServingError(ConsiliumError):
    """The endpoint cannot start or cannot be reached."""


class ClusterError(ConsiliumError):
    """A cluster that cannot be reached, or does not fit."""
