"""What Olm clients call a person: `@<uuid>:<server name>`, which stands in the documents they sign."""

from __future__ import annotations

from ...errors import Invalid
from ...identity import UserId, is_id


class Names:
    """server_name: never changes, since it is signed."""

    def __init__(self, server_name: str) -> None:
        self._suffix = f":{server_name}"

    def of(self, user: UserId) -> str:
        return f"@{user}{self._suffix}"

    def user(self, name: str, field: str) -> UserId:
        """Raises Invalid for whoever is not a person of this server."""
        user = name.removeprefix("@").removesuffix(self._suffix)
        if len(name) != len(user) + len(self._suffix) + 1 or not is_id(user):
            raise Invalid("This names nobody of this server.", details={"field": field})
        return UserId(user)
