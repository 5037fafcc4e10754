"""What all validated values share: their base class and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

#: JSON scalars, the only hyper-parameter values a recipe can carry (a list becomes a tuple).
Scalar = bool | int | float | str | None
Param = Scalar | tuple[Scalar, ...]

#: Text that the name of a run directory may contain.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=64)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
#: A standard deviation of pixels from 0 to 1.
Deviation = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
#: A number of images of each class, or a share of them.
HeldOut = Count | Annotated[float, Field(gt=0, lt=1)]

#: Marks a field that only describes: it is stored in cell.yaml and left out of the id.
DESCRIBES: JsonDict = {"identity": False}


class Frozen(BaseModel):
    """Base of all validated values: immutable; unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def identity(self) -> dict[str, Any]:
        """Return the JSON-able content that can change a result.

        Fields that only describe or have their default value are left out. So a new field whose default
        changes nothing leaves every id as it was. A default is never changed.
        """
        content = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.json_schema_extra == DESCRIBES or value == field.default:
                continue
            content[name] = _identity(value)
        return content


def _identity(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_identity, value))
    return value.identity() if isinstance(value, Frozen) else value
