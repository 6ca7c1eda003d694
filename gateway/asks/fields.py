"""The types of single fields in Ollama's request bodies, each with an error that says what is wanted."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictStr, WithJsonSchema

from gateway.upstream.wire import NAME, registry_of


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value


def _keep_alive(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError('must be seconds or a duration such as "5m"')
    return value


def _think(value: object) -> object:
    if not isinstance(value, bool) and value not in ("low", "medium", "high", "max"):
        raise ValueError('must be true, false, "low", "medium", "high" or "max"')
    return value


def _format(value: object) -> object:
    if value not in ("", "json") and not isinstance(value, dict):
        raise ValueError('must be "json" or a JSON schema')
    return value


def _stop(value: object) -> object:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("must be a list of strings")
    return value


def _input(value: object) -> object:
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in texts):
        raise ValueError("must be a string or a list of strings")
    return value


def _variables(value: object) -> object:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError("must be an object of strings")
    return value


def _pulled(value: str) -> str:
    if registry_of(value) is None:
        raise ValueError("must be the name of a model, as [[host/]namespace/]model[:tag]")
    return value


def _insecure(value: object) -> object:
    if value is not None and value is not False:
        raise ValueError("must be false: models are pulled by TLS only")
    return None


ModelName = Annotated[StrictStr, Field(max_length=512)]
PulledName = Annotated[
    ModelName,
    AfterValidator(_pulled),
    WithJsonSchema({"type": "string", "maxLength": 512, "pattern": f"^{NAME}$"}),
]
Insecure = Annotated[StrictBool | None, BeforeValidator(_insecure), WithJsonSchema({"enum": [False, None]})]
Number = Annotated[Any, BeforeValidator(_number), WithJsonSchema({"type": "number"})]
KeepAlive = Annotated[Any, BeforeValidator(_keep_alive), WithJsonSchema({"type": ["number", "string"]})]
Think = Annotated[
    Any,
    BeforeValidator(_think),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": ["low", "medium", "high", "max"]}]}),
]
Format = Annotated[
    Any, BeforeValidator(_format), WithJsonSchema({"anyOf": [{"enum": ["", "json"]}, {"type": "object"}]})
]
Stop = Annotated[Any, BeforeValidator(_stop), WithJsonSchema({"type": "array", "items": {"type": "string"}})]
Input = Annotated[
    Any,
    BeforeValidator(_input),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Variables = Annotated[dict[str, str], BeforeValidator(_variables)]
