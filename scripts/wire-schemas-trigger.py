#!/usr/bin/env python3
"""Takes the schemas that the local hub's tests use out of the JSON Schema export of @trigger.dev/core.

    scripts/wire-schemas-trigger.py trigger-core-4.8.3.jsonschema.json > local-hub/tests/schemas/trigger.json

The export maps each name of a zod schema to {"input": JSON Schema}. One schema a line, so that a new version shows as a short diff.
"""
import json
import sys

REPLIES = """
WhoAmIResponseSchema GetOrgsResponseBody GetProjectResponseBody GetProjectsResponseBody GetProjectEnvResponse
GetProjectEnvironmentsResponseBody GetProjectRuntimesResponseBody GetEnvironmentVariablesResponseBody
EnvironmentVariableWithSecret EnvironmentVariableResponseBody InitializeDeploymentResponseBody GetDeploymentResponseBody
CreateBackgroundWorkerResponse FailDeploymentResponseBody PromoteDeploymentResponseBody
RetrieveCurrentDeploymentResponseBody ApiDeploymentListResponseItem GetWorkerByTagResponse TriggerTaskResponse
ListRunResponse RetrieveRunResponse CanceledRunResponse ReplayRunResponse ResetIdempotencyKeyResponse ScheduleObject
ListSchedulesResult DeletedScheduleObject ScheduledTaskPayload TimezonesResult CreateBatchResponse
StreamBatchItemsResponse RetrieveBatchV2Response CreateArtifactResponseBody DevConfigResponseBody DevDequeueResponseBody
DevDisconnectResponseBody WorkerApiRunAttemptStartResponseBody WorkerApiRunAttemptCompleteResponseBody
WorkerApiRunLatestSnapshotResponseBody
EnvironmentVariables
""".split()

# The tests' own requests are held against these: a test must not send what the real service would refuse.
REQUESTS = """
CreateProjectRequestBody CreateEnvironmentVariableRequestBody ImportEnvironmentVariablesRequestBody
UpdateEnvironmentVariableRequestBody InitializeDeploymentRequestBody CreateBackgroundWorkerRequestBody
FinalizeDeploymentRequestBody FailDeploymentRequestBody TriggerTaskRequestBody RescheduleRunRequestBody
CreateScheduleOptions UpdateScheduleOptions CreateBatchRequestBody BatchItemNDJSON ReplayRunRequestBody
""".split()


def main():
    with open(sys.argv[1], encoding="utf-8") as source:
        export = json.load(source)
    missing = [name for name in REPLIES + REQUESTS if name not in export]
    if missing:
        sys.exit(f"not in {sys.argv[1]}: {' '.join(missing)}")
    lines = []
    for name in sorted(REPLIES + REQUESTS):
        schema = json.dumps(export[name]["input"], separators=(",", ":"), sort_keys=True)
        lines.append(f"{json.dumps(name)}: {schema}")
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
