"""Immutable values with named fields: frozen dataclasses with slots and keyword-only fields, at a tenth of their cost.

A cached build imports the whole syntax tree and uses a handful of its classes: here a class costs nothing until its
first value is made. Knows nothing of what the values mean.
"""

from __future__ import annotations

from typing import Any, dataclass_transform

_ABSENT: Any = object()
_set = object.__setattr__


class _Field:
    """What a class body says about a field beyond its type."""

    __slots__ = ("compare", "default")

    def __init__(self, *, default: Any, compare: bool) -> None:
        self.default = default
        self.compare = compare


def field(*, default: Any = _ABSENT, compare: bool = True) -> Any:
    """Describe a field: its default, and whether two values that differ in it alone are different."""
    return _Field(default=default, compare=compare)


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=True, field_specifiers=(field,))
class _RecordType(type):
    """Turns the annotations of a class body into slots."""

    record_fields: tuple[str, ...]
    record_compared: tuple[str, ...]
    record_defaults: dict[str, Any]

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _RecordType:
        own = tuple(body.get("__annotations__", ())) if bases else ()
        described = {key: body.pop(key) for key in own if key in body}
        body["__slots__"] = own
        made = super().__new__(cls, name, bases, body)
        parent = next((base for base in bases if isinstance(base, _RecordType)), None)
        made.record_fields = (*parent.record_fields, *own) if parent else own
        made.record_compared = (*parent.record_compared,) if parent else ()
        made.record_defaults = dict(parent.record_defaults) if parent else {}
        for key in own:
            value = described.get(key, _ABSENT)
            if not isinstance(value, _Field):
                value = _Field(default=value, compare=True)
            if value.compare:
                made.record_compared += (key,)
            if value.default is not _ABSENT:
                made.record_defaults[key] = value.default
        return made

    def record_initialiser(cls) -> Any:
        """Compile the `__init__` that takes the fields of this class by keyword."""
        scope: dict[str, Any] = {"_set": _set, "_defaults": cls.record_defaults}
        required = [name for name in cls.record_fields if name not in cls.record_defaults]
        optional = [f"{name}=_defaults[{name!r}]" for name in cls.record_fields if name in cls.record_defaults]
        lines = (
            [f"def __init__(self, *, {', '.join(required + optional)}):"]
            if cls.record_fields
            else ["def __init__(self):"]
        )
        lines += [f" _set(self, {name!r}, {name})" for name in cls.record_fields] or [" pass"]
        exec("\n".join(lines), scope)  # noqa: S102 - the text holds only the names of annotations
        return scope["__init__"]


class Record(metaclass=_RecordType):
    """Base of the values; a subclass lists its fields as annotations."""

    def __init__(self, **values: Any) -> None:
        # The first value of a class compiles its own initialiser, which then stands in for this one.
        made = type(self)
        made.__init__ = made.record_initialiser()  # type: ignore[method-assign]
        made.__init__(self, **values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).record_compared)

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in type(self).record_compared)))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self).record_fields)
        return f"{type(self).__qualname__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), tuple(getattr(self, name) for name in type(self).record_fields))

    def replace(self, **changes: Any) -> Any:
        """Return a value of the same class that differs in the given fields."""
        made = type(self)
        return made(**{name: getattr(self, name) for name in made.record_fields} | changes)


def _rebuild(made: Any, values: tuple[Any, ...]) -> Any:
    return made(**dict(zip(made.record_fields, values, strict=True)))
