"""A device in calls that shares no code with the browser's: aiortc, as a program of its own.

It runs asyncio, and is told what to do by lines of JSON: {"server": …, "username": …, "password": …} first,
then {"answer": call_id}, {"leave": true}. It says {"user_id": …}, {"joined": peer_id}, {"decoded": frames} as
they come, {"over": true}. It only ever answers offers: aiortc cannot take one of its own back.
"""

from __future__ import annotations

import asyncio
import json
import sys
from fractions import Fraction
from typing import Any

import aiohttp
import aioice.ice
import av
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import MediaStreamTrack
from aiortc.sdp import candidate_from_sdp

WIDTH, HEIGHT, RATE, CLOCK = 320, 240, 10, 90_000
EACH = 5  # frames

Json = dict[str, Any]


def say(**said: object) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


class Stripes(VideoStreamTrack):
    """A picture in which something moves."""

    _number = 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(1 / RATE)
        self._number += 1
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane in frame.planes:
            row = bytes(
                ((column + 8 * self._number) // 16 % 2) * 128 + 64 for column in range(plane.line_size)
            )
            plane.update(row * plane.height)
        frame.pts, frame.time_base = self._number * CLOCK // RATE, Fraction(1, CLOCK)
        return frame


class Device:
    def __init__(self, http: aiohttp.ClientSession, server: str) -> None:
        self._http = http
        self._server = server
        self._headers: dict[str, str] = {}
        self._links: dict[str, RTCPeerConnection] = {}
        self._decoded = 0
        self._working: set[asyncio.Task[None]] = set()
        self._socket: aiohttp.ClientWebSocketResponse

    async def _ask(self, path: str, body: Json | None = None) -> Json:
        async with self._http.post(self._server + path, json=body, headers=self._headers) as answer:
            told: Json = await answer.json()
        assert answer.ok, told
        data: Json = told["data"]
        return data

    async def register(self, username: str, password: str) -> None:
        body = {"username": username, "password": password, "email": f"{username}@example.org"}
        made = await self._ask("/v1/auth/register", body)
        self._headers = {"Authorization": f"Bearer {made['access_token']}"}
        say(user_id=made["user"]["user_id"])

    async def answer(self, call_id: str) -> None:
        joined = await self._ask(f"/v1/calls/{call_id}/join")
        address = self._server.replace("http", "ws") + joined["signaling_url"]
        self._socket = await self._http.ws_connect(address, headers=self._headers)
        await self._socket.send_json({"type": "join", "instance_id": "aiortc"})
        self._start(self._attend())

    async def leave(self) -> None:
        await self._socket.send_json({"type": "leave"})

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._working.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled() and task.exception() is not None:
            task.get_loop().call_exception_handler({"message": "failed", "exception": task.exception()})

    async def _attend(self) -> None:
        async for message in self._socket:
            frame: Json = message.json()
            match frame["type"]:
                case "peers":
                    say(joined=frame["peer_id"])
                case "offer":
                    await self._accept(frame)
                case "ice_candidate":
                    await self._add(frame["sender_id"], frame["candidate"])
        for link in self._links.values():
            await link.close()
        say(over=True)

    async def _accept(self, frame: Json) -> None:
        sender = frame["sender_id"]
        link = self._links.get(sender) or self._link(sender)
        await link.setRemoteDescription(RTCSessionDescription(frame["sdp"], "offer"))
        await link.setLocalDescription(await link.createAnswer())
        answer = {"type": "answer", "target_id": sender, "epoch": frame["epoch"]}
        await self._socket.send_json(answer | {"sdp": link.localDescription.sdp})

    def _link(self, sender: str) -> RTCPeerConnection:
        link = self._links[sender] = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        link.addTrack(Stripes())
        link.on("track", lambda track: self._start(self._watch(track)))
        return link

    async def _watch(self, track: MediaStreamTrack) -> None:
        """Decode what comes; until nothing does."""
        try:
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self._decoded += 1
                    if self._decoded % EACH == 0:
                        say(decoded=self._decoded)
        except Exception as exc:
            if type(exc).__name__ != "MediaStreamError":
                raise

    async def _add(self, sender: str, given: Json) -> None:
        if sender in self._links and given["candidate"]:
            candidate = candidate_from_sdp(given["candidate"].removeprefix("candidate:"))
            candidate.sdpMid, candidate.sdpMLineIndex = given["sdpMid"], given["sdpMLineIndex"]
            await self._links[sender].addIceCandidate(candidate)


async def main() -> None:
    # aioice knows all addresses but the one that every machine has
    aioice.ice.get_host_addresses = lambda **_: ["127.0.0.1"]
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with aiohttp.ClientSession() as http:
        first = json.loads(await reader.readline())
        device = Device(http, first["server"])
        await device.register(first["username"], first["password"])
        async for line in reader:
            told = json.loads(line)
            if "answer" in told:
                await device.answer(told["answer"])
            elif "leave" in told:
                await device.leave()


if __name__ == "__main__":
    asyncio.run(main())
