"""OpenAPI 3.1 of the web server. https://spec.openapis.org/oas/v3.1.1"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from protocol.errors import ErrorCode
from protocol.messages.base import Wire
from protocol.spec.http_bodies import ProblemDocument
from protocol.spec.http_routes import INTERNAL_ERROR, PATH_PARAMETERS, ROUTES, Answer, HttpRoute
from protocol.spec.schemas import Components, Schema

Document = dict[str, Any]

DESCRIPTION = """\
The web server: phones upload camera pictures, pages ask where to connect and what happened, and monitors ask for its
health. The pages themselves are not described here. Every error is a problem document (RFC 9457) whose `code` is for
programs. Besides the errors of each route, an unknown address is answered with 404 `NOT_FOUND`, a method that an
address does not have with 405 `NOT_ALLOWED`, and any request may be answered with 400 `INVALID_MESSAGE` (a header that
may occur once, such as `Authorization`, occurs twice), 500 `INTERNAL_ERROR`, or 503 `UNAVAILABLE` while the server
stops. Every GET also has HEAD.
Clients ignore fields that they do not know, because newer versions may add some. Times are RFC 3339 in UTC.
"""

_PROBLEM = "application/problem+json"
_HEADERS: dict[str, tuple[str, Schema]] = {
    "Location": ("The address of the picture.", {"type": "string"}),
    "Access-Control-Allow-Origin": ("Pages of any origin may request this.", {"const": "*"}),
    "Content-Disposition": ("The file name to save it under.", {"type": "string"}),
}
_TITLES = {
    400: "A parameter is missing or wrong; `field` names it.",
    401: "No token, or one that is not valid (any more).",
    403: "The token does not allow this.",
    404: "There is none.",
    408: "The upload came to a halt; send it again.",
    409: "Not now: see `code`.",
    410: "It was valid once.",
    413: "The picture is too large.",
    415: "Not a whole JPEG or PNG picture.",
    429: "Too often; `Retry-After` says when again.",
    500: "An error of ours.",
    501: "Not on this system.",
    503: "Not now; try again.",
    507: "The picture could not be stored or read.",
}
_WITH_RETRY_AFTER = frozenset({429, 503})


def openapi(version: str) -> Document:
    """Return the OpenAPI document as JSON-ready values. `version` is that of examwire."""
    components = Components()
    models = [route.answer.model for route in ROUTES if route.answer.model is not None]
    components.add(written=[*models, ProblemDocument])
    paths: dict[str, Document] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "examwire",
            "version": version,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [
            {
                "url": "{scheme}://{host}",
                "description": "The web server (`web.url`)",
                "variables": {
                    "scheme": {"default": "https", "enum": ["https", "http"]},
                    "host": {"default": "exam.example", "description": "The host, with a port if needed"},
                },
            }
        ],
        "paths": paths,
        "components": {
            "schemas": components.schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Claims: sub, role, plan, aud (`examwire`), exp; a proctor's may have scope, the "
                    "labels of those whom it is limited to. Signed with the system's secret "
                    "(HS256), or by an issuer (RS256, EdDSA).",
                }
            },
        },
    }


def _operation(route: HttpRoute, components: Components) -> Document:
    operation: Document = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "description": route.description,
        "security": [{"token": []}] if route.who else [],
    }
    if route.who:
        operation["x-roles"] = list(route.who)
    if parameters := [*_path_parameters(route), *_query_parameters(route)]:
        operation["parameters"] = parameters
    if route.body:
        operation["requestBody"] = {
            "required": True,
            "description": "Any of these types; the server recognises the format by the bytes.",
            "content": {media_type: {} for media_type in route.body},
        }
    operation["responses"] = {str(route.answer.status): _answer(route.answer, components)}
    for status, codes in (*route.problems, (500, (INTERNAL_ERROR,))):
        operation["responses"][str(status)] = _problem(status, codes, components)
    return operation


def _path_parameters(route: HttpRoute) -> list[Document]:
    names = [part.split("}")[0] for part in route.path.split("{")[1:]]
    return [
        {"name": name, "in": "path", "required": True, "description": description, "schema": schema}
        for name, (description, schema) in ((name, PATH_PARAMETERS[name]) for name in names)
    ]


def _query_parameters(route: HttpRoute) -> list[Document]:
    return [
        {
            "name": query.name,
            "in": "query",
            "required": query.required,
            "description": query.description,
            "schema": query.schema,
        }
        for query in route.query
    ]


def _answer(answer: Answer, components: Components) -> Document:
    content: Document = {}
    if answer.model is not None:
        content["schema"] = components.of(answer.model, "written")
    elif answer.media_type.startswith("text/"):
        content["schema"] = {"type": "string"}
    if isinstance(answer.example, str):
        content["example"] = answer.example
    elif answer.example is not None:
        content["example"] = _to_wire(answer.example)
    response: Document = {"description": answer.description, "content": {answer.media_type: content}}
    if answer.headers:
        response["headers"] = {
            name: {"description": _HEADERS[name][0], "schema": _HEADERS[name][1]} for name in answer.headers
        }
    return response


def _problem(status: int, codes: tuple[str, ...], components: Components) -> Document:
    document = components.of(ProblemDocument, "written")
    response: Document = {
        "description": _TITLES[status],
        "content": {
            _PROBLEM: {
                "schema": {
                    "allOf": [document, {"properties": {"status": {"const": status}, "code": {"enum": list(codes)}}}]
                },
                "examples": {code: {"value": _example_of(status, code)} for code in codes},
            }
        },
    }
    if status in _WITH_RETRY_AFTER:
        response["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}}
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}}}
    return response


def _example_of(status: int, code: str) -> Document:
    field = {"field": "planId"} if code == ErrorCode.INVALID_FIELD else {}
    problem = ProblemDocument(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=_TITLES[status],
        code=code,
        **field,
    )
    return _to_wire(problem)


def _to_wire(body: Wire) -> Document:
    return body.model_dump(mode="json", by_alias=True, exclude_unset=True)
