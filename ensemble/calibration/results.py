"""What the choice of a calibrator finds, as it lies in metrics.json."""

from pydantic import Field

from search.params import Config


class CalibratorWorth(Config):
    """Cross-fitted log loss of a calibrator."""

    kind: str
    nll: float
    difference: float = Field(description="from the best one's, by image")
    standard_error: float = Field(description="of the difference, clustered by group")
    chosen: bool = False
