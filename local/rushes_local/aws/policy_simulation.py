"""A completion of moto's IAM: SimulatePrincipalPolicy, from the role's own inline policies.

"Simulate how a set of IAM policies attached to an IAM entity works with a list of API operations and AWS resources to
determine the policies' effective permissions." An explicit deny precedes an allow; without either the decision is an
implicit deny. Conditions are evaluated with the given context keys only.
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Context = Mapping[str, Sequence[str]]
Statement = Mapping[str, Any]

ALLOWED, EXPLICIT_DENY, IMPLICIT_DENY = "allowed", "explicitDeny", "implicitDeny"


def simulate_policies() -> None:
    """Add the operation to moto for this process; a second call changes nothing. Imports moto."""
    from moto.core.responses import ActionResult
    from moto.iam.responses import IamResponse

    def simulate_principal_policy(self: Any) -> Any:
        role = self._get_param("PolicySourceArn").rpartition("/")[2]
        documents = self.backend.get_role(role).policies.values()
        statements = [each for text in documents for each in _list(json.loads(text)["Statement"])]
        context = {
            each["ContextKeyName"]: each["ContextKeyValues"] for each in self._get_param("ContextEntries", []) or []
        }
        results = [
            {
                "EvalActionName": action,
                "EvalResourceName": resource,
                "EvalDecision": decide(statements, action, resource, context),
                "MatchedStatements": [],
                "MissingContextValues": [],
            }
            for action in self._get_param("ActionNames", [])
            for resource in self._get_param("ResourceArns", None) or ["*"]
        ]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    IamResponse.simulate_principal_policy = simulate_principal_policy  # type: ignore[attr-defined]


def decide(statements: Iterable[Statement], action: str, resource: str, context: Context) -> str:
    """The decision of identity policies about one action on one resource. Raises ValueError for another condition."""
    effects = {each["Effect"] for each in statements if _applies(each, action, resource, context)}
    if "Deny" in effects:
        return EXPLICIT_DENY
    return ALLOWED if "Allow" in effects else IMPLICIT_DENY


def _applies(statement: Statement, action: str, resource: str, context: Context) -> bool:
    if statement.keys() & {"NotAction", "NotResource"}:
        raise ValueError("NotAction and NotResource are not supported")
    return (
        any(_matches(each.lower(), action.lower()) for each in _list(statement["Action"]))
        and any(_matches(each, resource) for each in _list(statement["Resource"]))
        and all(
            _holds(operator, _list(wanted), context.get(key, ()))
            for operator, block in statement.get("Condition", {}).items()
            for key, wanted in block.items()
        )
    )


def _holds(operator: str, wanted: Sequence[str], actual: Sequence[str]) -> bool:
    """The result of one condition. "ForAllValues ... returns true if there are no keys in the request"."""
    quantifier, _, name = operator.rpartition(":")
    if name not in _OPERATORS or quantifier not in ("", "ForAllValues"):
        raise ValueError(f"the condition operator {operator} is not supported")
    matched = [any(_OPERATORS[name](each, value) for each in wanted) for value in actual]
    return all(matched) and (bool(matched) or quantifier == "ForAllValues")


def _matches(pattern: str, text: str) -> bool:
    """Wildcards of IAM: `*` for any characters and `?` for one."""
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _equal(wanted: str, value: str) -> bool:
    return wanted == value


_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {"StringEquals": _equal, "StringLike": _matches}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
