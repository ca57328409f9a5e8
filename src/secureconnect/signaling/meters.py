"""What is counted of calls. `calls_total`, `calls_active` and `video_rooms_active` are names that
dashboards know."""

from __future__ import annotations

from .. import metrics

# call_type: audio, video
_STARTED = metrics.counter("calls_total", "Calls begun.", ["call_type"])
STARTED = {each: _STARTED.labels(each) for each in ("audio", "video")}
ACTIVE = metrics.gauge("calls_active", "Calls under way that have a signaling socket on this node.")
VIDEO = metrics.gauge("video_rooms_active", "Those of them in which somebody's camera is on.")
JOINED = metrics.counter(
    "secureconnect_calls_joined_total", "People who came to a call, its caller not counted."
)
# state: ended, missed, declined, busy, failed
_ENDED = metrics.counter("secureconnect_calls_ended_total", "Calls that are over.", ["state"])
ENDED = {each: _ENDED.labels(each) for each in ("ended", "missed", "declined", "busy", "failed")}
SOCKETS = metrics.gauge("secureconnect_signaling_sockets", "Signaling sockets open on this node.")
# way: here, node, left_out
_RELAYED = metrics.counter(
    "secureconnect_signaling_relayed_total",
    "Frames of devices: handed to one here, to another node, left out for one that does not keep up.",
    ["way"],
)
RELAYED_HERE, RELAYED_TO_NODE, LEFT_OUT = (_RELAYED.labels(way) for way in ("here", "node", "left_out"))
# how: socket, the connection of that device alone; node, its server
_LOST = metrics.counter(
    "secureconnect_calls_devices_lost_total", "Devices in calls whose connection went unexpectedly.", ["how"]
)
LOST_ALONE, LOST_WITH_NODE = _LOST.labels("socket"), _LOST.labels("node")
BACK = metrics.counter("secureconnect_calls_devices_back_total", "Devices that came back to their call.")
GIVEN_UP = metrics.counter(
    "secureconnect_calls_given_up_total",
    "People put out of a call: not back in time, or not allowed any more.",
)
# state: completed; partial, without the end or without its recorder's word; dropped: nothing was kept
_RECORDINGS = metrics.counter("secureconnect_recordings_ended_total", "How recordings ended.", ["state"])
RECORDINGS = {each: _RECORDINGS.labels(each) for each in ("completed", "partial", "dropped")}
RECORDED = metrics.counter("secureconnect_recordings_bytes_total", "Bytes of parts of recordings taken in.")
