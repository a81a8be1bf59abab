#!/usr/bin/env python3
"""Extracts from Neon's OpenAPI document what the local hub's tests need, as JSON Schema (draft 2020-12).

    scripts/wire-schemas-neon.py neon-openapi.json > local-hub/tests/schemas/neon.json

The document is `public-v2-for-users.gen.yaml` of npm @neondatabase/api-client, as JSON. The result has one entry per reply
("GET /projects 200") and, as "… error", one for what the operation answers otherwise, over shared `$defs`. It is stricter than
the source: an object may hold only the fields that the document names, so that a field nobody's client knows fails a test.
"""
import json
import sys

# Every route that local-hub/src/neon serves.
ROUTES = """
GET /auth
GET /users/me
GET /users/me/organizations
GET /regions
GET /api_keys
POST /api_keys
DELETE /api_keys/{key_id}
GET /organizations/{org_id}
GET /organizations/{org_id}/api_keys
POST /organizations/{org_id}/api_keys
DELETE /organizations/{org_id}/api_keys/{key_id}
GET /projects
POST /projects
GET /projects/shared
GET /projects/{project_id}
PATCH /projects/{project_id}
DELETE /projects/{project_id}
POST /projects/{project_id}/recover
GET /projects/{project_id}/connection_uri
GET /projects/{project_id}/operations
GET /projects/{project_id}/operations/{operation_id}
GET /projects/{project_id}/branches
GET /projects/{project_id}/branches/{branch_id}
GET /projects/{project_id}/branches/{branch_id}/endpoints
GET /projects/{project_id}/branches/{branch_id}/databases
POST /projects/{project_id}/branches/{branch_id}/databases
GET /projects/{project_id}/branches/{branch_id}/databases/{database_name}
DELETE /projects/{project_id}/branches/{branch_id}/databases/{database_name}
GET /projects/{project_id}/branches/{branch_id}/roles
POST /projects/{project_id}/branches/{branch_id}/roles
GET /projects/{project_id}/branches/{branch_id}/roles/{role_name}
DELETE /projects/{project_id}/branches/{branch_id}/roles/{role_name}
GET /projects/{project_id}/branches/{branch_id}/roles/{role_name}/reveal_password
POST /projects/{project_id}/branches/{branch_id}/roles/{role_name}/reset_password
GET /projects/{project_id}/endpoints
GET /projects/{project_id}/endpoints/{endpoint_id}
POST /projects/{project_id}/endpoints/{endpoint_id}/start
POST /projects/{project_id}/endpoints/{endpoint_id}/suspend
POST /projects/{project_id}/endpoints/{endpoint_id}/restart
""".split("\n")

# Annotations, and OpenAPI's own words: neither constrains a reply.
DROPPED = {"description", "example", "examples", "deprecated", "default", "discriminator", "readOnly", "writeOnly", "title"}
SCHEMAS = "#/components/schemas/"
RESPONSES = "#/components/responses/"


def main(path):
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    components = spec["components"]["schemas"]
    parts_of_all_of = set()
    collect_parts(spec["paths"], parts_of_all_of)
    collect_parts(spec["components"], parts_of_all_of)

    replies, wanted = {}, []
    for route in filter(None, ROUTES):
        method, path = route.split(" ")
        for status, response in spec["paths"][path][method.lower()]["responses"].items():
            if response.get("$ref", "").startswith(RESPONSES):
                response = spec["components"]["responses"][response["$ref"].removeprefix(RESPONSES)]
            media = response.get("content", {}).get("application/json")
            if media is None:
                continue
            key = f"{route} error" if status == "default" else f"{route} {status}"
            schema = convert(media["schema"], wanted, closed=False)
            # Closed here, where everything an allOf brings together is in sight.
            replies[key] = schema | {"unevaluatedProperties": False}

    defs = {}
    while wanted:
        name = wanted.pop()
        if name not in defs:
            defs[name] = convert(components[name], wanted, closed=name not in parts_of_all_of)
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Made by scripts/wire-schemas-neon.py from Neon's OpenAPI document; do not edit.",
        "replies": replies,
        "$defs": dict(sorted(defs.items())),
    }
    json.dump(document, sys.stdout, indent=1, sort_keys=False)
    print()


def collect_parts(node, found):
    """The components that are one part of an allOf: closing them would refuse the other parts' fields."""
    if isinstance(node, list):
        for item in node:
            collect_parts(item, found)
    elif isinstance(node, dict):
        for part in node.get("allOf", []):
            if "$ref" in part:
                found.add(part["$ref"].removeprefix(SCHEMAS))
        for item in node.values():
            collect_parts(item, found)


def convert(schema, wanted, closed=True):
    # In OpenAPI 3.0, what stands beside a $ref is ignored.
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(SCHEMAS)
        wanted.append(name)
        return {"$ref": f"#/$defs/{name}"}
    out = {}
    for key, value in schema.items():
        if key in DROPPED or key.startswith("x-") or key == "nullable":
            continue
        if key == "properties":
            out[key] = {name: convert(item, wanted) for name, item in value.items()}
        elif key in ("items", "not"):
            out[key] = convert(value, wanted)
        elif key == "additionalProperties" and isinstance(value, dict):
            out[key] = convert(value, wanted)
        elif key in ("allOf", "anyOf", "oneOf"):
            out[key] = [convert(item, wanted, closed=False) for item in value]
        elif key in ("exclusiveMinimum", "exclusiveMaximum"):
            if value:
                bound = "minimum" if key == "exclusiveMinimum" else "maximum"
                out[key] = schema[bound]
        elif key == "minimum" and schema.get("exclusiveMinimum") or key == "maximum" and schema.get("exclusiveMaximum"):
            continue
        else:
            out[key] = value
    if closed and "additionalProperties" not in out and ("properties" in out or "allOf" in out):
        out["unevaluatedProperties"] = False
    if schema.get("nullable"):
        out = {"anyOf": [out, {"type": "null"}]}
    return out


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
