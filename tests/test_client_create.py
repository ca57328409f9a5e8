"""What the client asks for again, because the answer was lost, is made once."""

from __future__ import annotations

import trio

from kit.people import people
from kit.server import Server
from kit.toll import toll_before
from kit.wait import until
from secureconnect.client import Client


async def test_a_lost_answer_makes_no_second_conversation(server: Server) -> None:
    async with (
        people(server.url, "ann") as [ann],
        toll_before(server.url) as toll,
        Client(toll.url, ann.me) as far,
    ):
        made: list[str] = []

        async def create() -> None:
            made.append((await far.create_group("picnic", []))["conversation_id"])

        async def there() -> list[str]:
            return [each["conversation_id"] for each in await ann.conversations()]

        async def is_there() -> bool:
            return bool(await there())

        toll.garbles = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            await until(is_there)
            toll.garbles = False
            toll.cut()
        assert await there() == made
