"""What /v1/admin answers: the clients read what the service writes."""

from pydantic import Field

from serving.config import Rollout
from serving.schemas import Answer, VersionState
from serving.scoring.compare import Counts


class RolloutState(Answer):
    """What is wanted of all replicas, and how far the one that answers is."""

    rollout: Rollout = Field(description="wanted of every replica; they follow within seconds")
    previous: Rollout | None = Field(None, description="what a rollback goes to")
    versions: list[VersionState] = Field(description="on the replica that answers")
    comparisons: dict[str, Counts] = Field(
        default={},
        description="by role of the bundle that was asked besides, on the replica that answers",
    )
    reason: str | None = Field(
        None, description="why an admin's rollout is not followed, if it is not"
    )
