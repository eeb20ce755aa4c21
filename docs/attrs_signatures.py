"""A griffe extension for the reference pages: the signature that attrs gives a class, from its fields."""  # noqa: INP001

from typing import Any

import griffe

DECORATORS = {"attrs.frozen", "attrs.define"}


class AttrsSignatures(griffe.Extension):
    """Give each attrs class the `__init__` that attrs writes when it runs, which static reading does not see."""

    def on_class_members(self, *, cls: griffe.Class, **_kwargs: Any) -> None:
        """Add `__init__` to a class that attrs decorates."""
        decorators = [item for item in cls.decorators if item.callable_path in DECORATORS]
        if not decorators or "__init__" in cls.members:
            return
        kind = griffe.ParameterKind.positional_or_keyword
        if "kw_only=True" in str(decorators[0].value):
            kind = griffe.ParameterKind.keyword_only
        fields = [member for member in cls.attributes.values() if _is_field(member)]
        parameters = [
            griffe.Parameter(field.name, annotation=field.annotation, kind=kind, default=_default(field))
            for field in fields
        ]
        init = griffe.Function("__init__", parameters=griffe.Parameters(griffe.Parameter("self"), *parameters))
        init.returns = "None"
        cls.set_member("__init__", init)


def _is_field(member: griffe.Attribute) -> bool:
    # A property has no annotation of a field; ClassVar is none either.
    return "instance-attribute" in member.labels and "property" not in member.labels and member.annotation is not None


def _default(field: griffe.Attribute) -> Any:
    value = field.value
    if not isinstance(value, griffe.ExprCall) or value.canonical_path not in {"attrs.field", "attr.field"}:
        return value
    given = {item.name: item.value for item in value.arguments if isinstance(item, griffe.ExprKeyword)}
    return given.get("default", "..." if "factory" in given else None)
