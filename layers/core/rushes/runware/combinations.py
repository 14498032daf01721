"""The rules of a model that concern several parameters together, and the price of a request. Pure.

A parameter's value is that of the task, or the model's default. The resolution of a request without `resolution` is
that of its width and height, or the model's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rushes.runware.models import Rule, VideoModel
from rushes.runware.wire import WireError, wire_error


def combination_faults(task: Mapping[str, Any], model: VideoModel, faulty: set[str]) -> list[WireError]:
    """The faults of parameters together. A parameter in `faulty` is invalid by itself, so its rules are left out."""
    faults = [] if faulty & {"width", "height"} else _size_faults(task, model)
    for rule in model.rules:
        if not faulty & _parameters(rule) and (fault := _broken(rule, task, model)):
            faults.append(fault)
    return faults


def price_of(task: Mapping[str, Any], model: VideoModel) -> int | None:
    """The price of each clip of a valid task in micro-dollars; None if the model's prices do not cover it."""
    for price in model.prices:
        if _holds(price.when, task, model):
            seconds = value_of("duration", task, model)
            return price.per_clip if price.per_second is None else round(price.per_second * seconds)
    return None


def no_price(task: Mapping[str, Any], model: VideoModel) -> WireError:
    """The error of a task that the model's prices do not cover."""
    parameters = list(dict.fromkeys(name for price in model.prices for name in price.when))
    values = ", ".join(f"{name} {_shown(value_of(name, task, model))}" for name in parameters)
    message = f"The price of a clip with {values} is not known, so it cannot be bought."
    return wire_error("priceUnknown", message, parameters, documentation=model.documentation)


def value_of(name: str, task: Mapping[str, Any], model: VideoModel) -> Any:
    """The value that a parameter has for this task; None without one."""
    given = _given(name, task)
    if given is None and name == "resolution":
        return model.sizes.get((task.get("width", 0), task.get("height", 0)), model.default_resolution)
    if given is None and name in model.parameters:
        return model.default(name)
    return given


def _given(name: str, task: Mapping[str, Any]) -> Any:
    value: Any = task
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if value != [] else None


def _holds(when: Mapping[str, Sequence[Any]], task: Mapping[str, Any], model: VideoModel) -> bool:
    return all(value_of(name, task, model) in values for name, values in when.items())


def _parameters(rule: Rule) -> set[str]:
    """The parameters on which a rule depends: the resolution also on the size."""
    names = {*rule.parameters, *rule.when, *(name for group in rule.groups for name in group)}
    return names | ({"width", "height"} if "resolution" in names else set())


def _broken(rule: Rule, task: Mapping[str, Any], model: VideoModel) -> WireError | None:
    """The error of a task that breaks this rule."""
    first = rule.parameters[0] if rule.parameters else ""
    match rule.kind:
        case "together":
            missing = [name for name in rule.parameters if _given(name, task) is None]
            if missing and len(missing) < len(rule.parameters):
                message = f"{' and '.join(rule.parameters)} must be used together."
                return _error(f"missing{capital(missing[0])}", message, missing[0], model)
        case "onlyWith":
            if _given(first, task) is not None and _given(rule.parameters[1], task) is None:
                message = f"{first} requires {rule.parameters[1]}."
                return _error("incompatibleParameters", message, list(rule.parameters), model)
        case "restricts":
            if _holds(rule.when, task, model) and value_of(first, task, model) not in rule.values:
                conditions = " and ".join(f"{name} {_shown(value_of(name, task, model))}" for name in rule.when)
                message = f"{first} must be {either(rule.values)} with {conditions}."
                return _error(f"unsupported{capital(first)}", message, first, model, allowedValues=list(rule.values))
        case _:
            given = [group for group in rule.groups if any(_given(name, task) is not None for name in group)]
            groups = either([" and ".join(group) for group in rule.groups])
            if len(given) > 1 and rule.kind != "atLeastOneOf":
                message = f"Only one of {groups} may be given."
                return _error("incompatibleParameters", message, [group[0] for group in given], model)
            if not given and rule.kind != "atMostOneOf":
                return _error(
                    f"missing{capital(rule.groups[0][0])}", f"One of {groups} is required.", rule.groups[0][0], model
                )
    return None


def _size_faults(task: Mapping[str, Any], model: VideoModel) -> list[WireError]:
    """The fault of a width and height that the model does not have together; none if one of them is missing."""
    if not {"width", "height"} <= task.keys() or (task["width"], task["height"]) in model.sizes or not model.sizes:
        return []
    allowed = [f"{width}x{height}" for width, height in model.sizes]
    message = f"{task['width']}x{task['height']} is not supported; use one of {', '.join(allowed)}."
    return [_error("unsupportedDimensions", message, ["width", "height"], model, allowedValues=allowed)]


def _error(code: str, message: str, parameter: str | list[str], model: VideoModel, **more: Any) -> WireError:
    first = parameter if isinstance(parameter, str) else parameter[0]
    kind = "integer" if first in ("width", "height") else None
    anchor = "width" if kind else first.replace(".", "-").lower()
    return wire_error(
        code, message, parameter, type=kind, documentation=f"{model.documentation}#request-{anchor}", **more
    )


def _shown(value: Any) -> str:
    match value:
        case None:
            return "of its default"
        case bool():
            return str(value).lower()
        case list():
            return "images"
    return str(value)


def either(allowed: Sequence[object]) -> str:
    """`A, B or C`."""
    *others, last = map(str, allowed)
    return f"{', '.join(others)} or {last}" if others else last


def capital(name: str) -> str:
    """The name of a parameter as a part of an error's code: each of its parts with a capital letter."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("."))
