"""From a calibrated probability to a decision: thresholds, promises about them, early exits."""
