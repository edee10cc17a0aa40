"""Open keywords that are the fields of a dataclass: Annotated[Any, FieldsOf(Settings)]."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any


class FieldsOf:
    """The fields of a dataclass but for those that the function derives itself."""

    def __init__(self, kind: type, derived: tuple[str, ...] = ()) -> None:
        self.kind, self.derived = kind, derived

    def hints(self) -> dict[str, Any]:
        """Type hints of the fields, name -> annotation."""
        hints = typing.get_type_hints(self.kind)
        names = (field.name for field in dataclasses.fields(self.kind) if field.init)
        return {name: hints[name] for name in names if name not in self.derived}
