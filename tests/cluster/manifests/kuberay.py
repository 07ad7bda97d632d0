"""What KubeRay's definitions (ray.io/v1) take, around the pods: a JSON Schema, written by hand.

Field names and choices are those of the operator's RayCluster, RayJob and RayService types. What
Kubernetes itself defines (pod templates, services, environments) is an object here: objects.py
hands it to Kubernetes' own schemas.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number", "minimum": 0}
TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
KUBERNETES: Schema = {"type": "object"}  # checked by Kubernetes' own schema
KUBERNETES_LIST: Schema = {"type": "array", "items": {"type": "object"}}
MANAGER = {"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]}


def fields(*required: str, **properties: Schema) -> Schema:
    """An object of these fields and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def one_of(*choices: str) -> Schema:
    """A text out of these."""
    return {"type": "string", "enum": list(choices)}


METADATA = {
    "anyOf": [{"required": ["name"]}, {"required": ["generateName"]}],
    **fields(
        "namespace",
        name={"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,45}[a-z0-9])?$"},
        generateName={"type": "string", "pattern": "^[a-z][-a-z0-9]{0,40}-$"},
        namespace=TEXT,
        labels=STRINGS,
        annotations=STRINGS,
    ),
}
CREDENTIAL = fields(value=TEXT, valueFrom=KUBERNETES)
RULES = fields(ingressRules=KUBERNETES_LIST, egressRules=KUBERNETES_LIST)
GROUP_RULES = fields(
    "groupName", groupName=TEXT, ingressRules=KUBERNETES_LIST, egressRules=KUBERNETES_LIST
)
AUTOSCALER = fields(
    version=one_of("v1", "v2"),
    upscalingMode=one_of("Default", "Aggressive", "Conservative"),
    idleTimeoutSeconds=COUNT,
    image=TEXT,
    imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
    resources=KUBERNETES,
    securityContext=KUBERNETES,
    env=KUBERNETES_LIST,
    envFrom=KUBERNETES_LIST,
    volumeMounts=KUBERNETES_LIST,
    command=TEXTS,
    args=TEXTS,
)
FAULT_TOLERANCE = fields(
    backend=one_of("redis", "rocksdb"),
    redisAddress=TEXT,
    redisUsername=CREDENTIAL,
    redisPassword=CREDENTIAL,
    externalStorageNamespace=TEXT,
    storage=fields(
        claimName=TEXT,
        size=TEXT,
        storageClassName=TEXT,
        accessModes=TEXTS,
        subPath=TEXT,
        deletionPolicy=one_of("DeleteWithCluster", "Retain"),
    ),
)
HEAD = fields(
    "template",
    template=KUBERNETES,
    rayStartParams=STRINGS,
    serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
    headService=KUBERNETES,
    enableIngress=FLAG,
    ingressOptions=fields(
        host=TEXT,
        path=TEXT,
        pathType=one_of("Exact", "Prefix", "ImplementationSpecific"),
        tls=KUBERNETES_LIST,
    ),
    resources=STRINGS,
    labels=STRINGS,
)
WORKERS = fields(
    *("groupName", "minReplicas", "maxReplicas", "template"),
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts={"type": "integer", "minimum": 1},
    idleTimeoutSeconds=COUNT,
    priority={"type": "integer"},
    suspend=FLAG,
    rayStartParams=STRINGS,
    resources=STRINGS,
    labels=STRINGS,
    scaleStrategy=fields(workersToDelete=TEXTS),
    template=KUBERNETES,
)
CLUSTER = fields(
    "headGroupSpec",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=AUTOSCALER,
    authOptions=fields(mode=one_of("disabled", "token"), secretName=TEXT, enableK8sTokenAuth=FLAG),
    gcsFaultToleranceOptions=FAULT_TOLERANCE,
    headServiceAnnotations=STRINGS,
    historyServerOptions=fields(
        collectorOptions=fields(
            image=TEXT, imagePullPolicy=TEXT, resources=KUBERNETES, env=KUBERNETES_LIST
        )
    ),
    networkPolicy=fields(
        mode=one_of("DenyAll", "DenyAllIngress", "DenyAllEgress"),
        head=RULES,
        worker=RULES,
        workerGroups={"type": "array", "items": GROUP_RULES},
    ),
    tlsOptions=fields(enabled=FLAG),
    upgradeStrategy=fields(type=one_of("Recreate", "None")),
    managedBy=MANAGER,
    suspend=FLAG,
)
POLICY = one_of("DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone")
JOB = fields(
    "entrypoint",
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    metadata=STRINGS,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    submitterConfig=fields(backoffLimit=COUNT),
    submitterPodTemplate=KUBERNETES,
    rayClusterSpec=CLUSTER,
    clusterSelector=STRINGS,
    entrypointNumCpus=NUMBER,
    entrypointNumGpus=NUMBER,
    entrypointResources=TEXT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    backoffLimit=COUNT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    deletionStrategy=fields(
        deletionRules={
            "type": "array",
            "minItems": 1,
            "items": fields(
                *("policy", "condition"),
                policy=POLICY,
                condition=fields(
                    jobStatus=one_of("SUCCEEDED", "FAILED"),
                    jobDeploymentStatus=one_of("Failed"),
                    ttlSeconds=COUNT,
                ),
            ),
        }
    ),
    managedBy=MANAGER,
    suspend=FLAG,
)
SERVICE = fields(
    *("serveConfigV2", "rayClusterConfig"),
    serveConfigV2=TEXT,
    rayClusterConfig=CLUSTER,
    serveService=KUBERNETES,
    excludeHeadPodFromServeSvc=FLAG,
    rayClusterDeletionDelaySeconds=COUNT,
    upgradeStrategy=fields(
        type=one_of("NewCluster", "NewClusterWithIncrementalUpgrade", "None"),
        clusterUpgradeOptions=fields(
            *("stepSizePercent", "intervalSeconds", "gatewayClassName"),
            maxSurgePercent=COUNT,
            stepSizePercent=COUNT,
            intervalSeconds=COUNT,
            gatewayClassName=TEXT,
        ),
    ),
    managedBy=MANAGER,
    suspend=FLAG,
)
SCHEMAS: dict[str, Schema] = {
    kind: fields(
        *("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=METADATA,
        spec=spec,
    )
    for kind, spec in {"RayCluster": CLUSTER, "RayJob": JOB, "RayService": SERVICE}.items()
}
