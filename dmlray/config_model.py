"""Base class of all groups of settings."""

from pydantic import BaseModel, ConfigDict


class ConfigModel(BaseModel):
    """A frozen group of settings; each has a default, a legal range, a unit and a help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
