"""Which params mattered: PED-ANOVA over the complete trials of an Optuna study."""

import warnings
from dataclasses import dataclass, field

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

LEAST = 4  # complete trials below which nothing is said
TOP = 5  # trials that count as the best, at least: PED-ANOVA's own advice


@dataclass(frozen=True)
class Importances:
    """Shares of 1 by param, greatest first; where there are none, the reason.

    `best` is the share of the `n_trials` complete trials that the others are compared with.
    """

    shares: dict[str, float] = field(default_factory=dict)
    best: float = 0
    n_trials: int = 0
    reason: str = ""


def param_importances(study: optuna.Study | None) -> Importances:
    """How much the best trials' values of each param differ from all trials', by first objective.

    PED-ANOVA needs no random numbers and takes conditional params for what they are.

    Source: Watanabe et al., "PED-ANOVA: efficiently quantifying hyperparameter importance in
    arbitrary subspaces", IJCAI 2023.
    """
    if study is None:
        return Importances(reason="The study's storage was not opened.")
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(trials) < LEAST:
        return Importances(reason=f"It takes {LEAST} complete trials, there are {len(trials)}.")
    if len({trial.values[0] for trial in trials}) == 1:
        return Importances(reason=f"All {len(trials)} complete trials have the same value.")
    names = _varied(trials)
    if not names:
        return Importances(reason="No sampled param differs between the complete trials.")
    best = min(max(0.1, TOP / len(trials)), 0.5)
    return Importances(_shares(study, names, best), best, len(trials))


def _shares(study: optuna.Study, names: list[str], best: float) -> dict[str, float]:
    sign = 1 if study.directions[0] == StudyDirection.MINIMIZE else -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it minimises the target, which is meant
        return get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=best),
            params=names,
            target=lambda trial: sign * trial.values[0],
        )


def _varied(trials: list[FrozenTrial]) -> list[str]:
    seen: dict[str, set[object]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            seen.setdefault(name, set()).add(value)
    return [name for name, values in seen.items() if len(values) > 1]
