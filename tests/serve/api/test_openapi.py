"""/openapi.json: valid, complete, and as strict as the server, no more and no less."""

import json
from functools import cache

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from haast.serve.app import ENDPOINTS
from haast.serve.fields import REFUSED_IN_CHAT, REFUSED_IN_COMPLETIONS
from haast.serve.openapi import BODIES

from ..fake_client import INFO
from .conftest import Api
from .openapi_cases import CASES, CHAT, NEEDED


@cache
def described(**settings):
    return Api(**settings).http.get("/openapi.json").json()


def schema(name: str):
    """A validator of a schema and what it refers to."""
    text = json.dumps(described()).replace("#/components/schemas/", "#/$defs/")
    schemas = json.loads(text)["components"]["schemas"]
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schemas})


def body_schema(path: str):
    return schema(BODIES[path].__name__)


@pytest.mark.parametrize("keys", [(), ("secret",)])
def test_it_is_openapi_3_1(keys):
    document = (
        described(api_keys=keys)
        if not keys
        else Api(api_keys=keys)
        .http.get("/openapi.json", headers={"authorization": "Bearer secret"})
        .json()
    )
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"
    for one in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(one)
    operation = document["paths"][CHAT]["post"]
    assert operation.get("security") == ([{"key": []}] if keys else None)
    assert ("401" in operation["responses"]) == bool(keys)
    assert "security" not in document["paths"]["/health"]["get"]


def test_every_endpoint_and_every_field_is_explained():
    document = described()
    assert set(document["paths"]) == {path.replace(":path", "") for path in ENDPOINTS}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"].endswith("."), path
            assert {"200", "500"} <= operation["responses"].keys()
    for body in BODIES.values():
        for name, field in document["components"]["schemas"][body.__name__]["properties"].items():
            assert len(field.get("description", "")) > 5, f"{body.__name__}.{name}"
    fields = document["components"]["schemas"]["ChatBody"]["properties"]
    assert fields.keys() >= REFUSED_IN_CHAT.keys() and fields["model"]["enum"] == ["tiny", None]
    plain = document["components"]["schemas"]["CompletionBody"]["properties"]
    assert plain.keys() >= REFUSED_IN_COMPLETIONS.keys()
    assert document["components"]["schemas"]["TokenId"]["maximum"] == INFO.vocab_size - 1


def test_what_it_allows_is_what_is_accepted():
    api = Api()
    seen = set()
    for path, more in CASES:
        body = NEEDED[path] | more
        status = api.post(path, **body).status_code
        assert status in (200, 400, 404), (path, more)
        allowed = body_schema(path).is_valid(body)
        assert allowed == (status == 200), (path, more, status)
        seen.add((path, allowed))
    assert len(seen) == 10
