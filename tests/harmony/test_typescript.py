"""Tool schemas read exactly as openai-harmony writes them."""

import openai_harmony as oh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haast.harmony import Tool
from haast.harmony.typescript import tools_section, type_text

from .oracle import to_tool

# Few digits and small exponents: the Rust JSON reader is off by a bit for others.
floats = st.builds(
    lambda digits, tens: float(f"{digits}e{tens}"), st.integers(-9999, 9999), st.integers(-18, 18)
)
words = st.text(st.sampled_from("ab \n\"'/null|é"), max_size=6)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    floats,
    words,
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)
KINDS = ["string", "number", "integer", "boolean", "object", "array", "null", "date"]
notes = {
    "title": words,
    "description": words,
    "default": values,
    "examples": st.lists(scalars, max_size=3),
    "nullable": st.booleans(),
    "enum": st.lists(scalars, max_size=3),
}


def containers(inner):
    properties = st.dictionaries(st.sampled_from(["a", "b", "to do"]), inner, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional=notes
        | {
            "type": st.sampled_from(["object", "object", "array", "string"]),
            "properties": properties,
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2),
            "items": inner,
            "oneOf": st.lists(inner, max_size=3),
            "anyOf": st.lists(inner, max_size=2),
        },
    )


types = st.sampled_from(KINDS) | st.lists(st.sampled_from([*KINDS, 3]), max_size=3)
leaves = st.fixed_dictionaries({}, optional=notes | {"type": types}) | st.booleans()
schemas = st.recursive(leaves, containers, max_leaves=8)
objects = st.builds(lambda schema: {"type": "object"} | schema, containers(schemas))


def oracle_section(encoding, tools: list[Tool]) -> str:
    content = oh.DeveloperContent.new().with_function_tools([to_tool(tool) for tool in tools])
    message = oh.Message.from_role_and_content(oh.Role.DEVELOPER, content)
    text = encoding.decode(encoding.render(message))
    return text.removeprefix("<|start|>developer<|message|>").removesuffix("<|end|>")


@settings(max_examples=400, deadline=None)
@given(st.lists(st.builds(Tool, st.just("f"), words, st.none() | objects), min_size=1, max_size=3))
def test_tools_section_equals_openai_harmony(encoding, tools):
    assert tools_section(tools) == oracle_section(encoding, tools)


TEXT, COUNT = {"type": "string", "description": "d"}, {"type": "integer", "default": 3}
WORD = {"type": "string", "enum": ["a", "b"], "default": "a", "nullable": True}
QUOTED = {"type": "string", "default": 'a "b"'}
CORNERS = [
    {"oneOf": [QUOTED, QUOTED | {"enum": ['a "b"']}]},
    {"oneOf": [WORD, TEXT, COUNT | {"nullable": True}]},
    {"description": "d", "oneOf": [TEXT, WORD, COUNT]},
    {"description": "d", "oneOf": [WORD, TEXT], "default": "a", "enum": ["a"]},
    {"description": "e", "oneOf": [TEXT, TEXT], "default": {"x": [1, "y", None]}},
    {"description": "d", "oneOf": None, "default": 1},
    {"type": ["integer", "null"], "nullable": True},
    {"type": "array", "items": {"type": "object", "description": "d", "properties": {"x": TEXT}}},
    {"type": "string", "title": "t", "examples": ["x", 1], "default": "v"},
    {"anyOf": [TEXT, COUNT]},
]


@pytest.mark.parametrize("schema", CORNERS)
def test_corners_equal_openai_harmony(encoding, schema):
    inside = Tool("f", "", {"type": "object", "properties": {"p": schema}, "required": ["p"]})
    top = Tool("g", "", schema)
    assert tools_section([inside, top]) == oracle_section(encoding, [inside, top])


def test_reads_as_the_models_learnt_it():
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "where"},
            "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
            "days": {"type": ["integer", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city"],
    }
    assert tools_section([Tool("weather", "Look.\nUp.", schema)]).splitlines()[6:] == [
        "// Look.",
        "// Up.",
        "type weather = (_: {",
        "// where",
        "city: string,",
        'unit?: "c" | "f", // default: c',
        "days?: number | null,",
        "tags?: string[],",
        "}) => any;",
        "",
        "} // namespace functions",
    ]


def test_tool_without_parameters_takes_no_argument():
    assert "\ntype now = () => any;\n" in tools_section([Tool("now")])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "0.00001"),
        (1e-7, "1e-7"),
        (1e16, "1e16"),
        (1e15, "1000000000000000.0"),
        (-0.0, "-0.0"),
    ],
)
def test_default_numbers_are_written_as_rust_writes_them(value, text):
    schema = {"type": "object", "properties": {"x": {"type": "number", "default": value}}}
    assert f"x?: number, // default: {text}\n" in type_text(schema)
