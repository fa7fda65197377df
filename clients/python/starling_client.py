#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A client of Starling in one file, to be copied: speech in, text out, whatever happens to the connection.

Owns the audio that may have to be sent again, the connection, and its replacement by another when it is lost. Every final
is given out once, in order, adjoining the last; what no server has any more is a `Gap`, never silence. Needs Python 3.9 and
the package `websockets` 14 or newer. What is said on the wire is in docs/protocol.md of Starling.

    async with Session(["ws://a:8080", "ws://b:8080"]) as session:
        speaking = asyncio.create_task(speak(session))  # await session.send(pcm) ... await session.finish()
        async for event in session:
            if isinstance(event, Final):
                print(event.text)

As a program: python starling_client.py --url ws://127.0.0.1:8080 speech.wav
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Callable, Optional, Union
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

STREAM_PATH = "/v1/stream"
FRAME_BYTES = {"pcm_u8": 1, "mulaw": 1, "alaw": 1, "pcm_s16le": 2, "pcm_s24le": 3, "pcm_s32le": 4}
FRAME_BYTES.update(pcm_f32le=4, pcm_f64le=8)
MAX_WRITE_BYTES = 16 << 10  # Half a second of 16 kHz speech: far below the server's limit of 1 MiB.
MAX_MESSAGE_BYTES = 4 << 20  # A final of the longest segment with all alternatives is far below it.
MAX_WAITING_EVENTS = 64  # Finals that nobody takes, before the connection is no longer read: minutes of speech.
MAX_SUGGESTED = 8  # Nodes that a server names: more than there are copies, few enough to ask in a row.
MAX_SUPERSEDED = 4  # An unheard attempt of our own speaks for the session once; more often it is another client.
MAX_RESTARTS = 3  # A server that loses the same audio this often loses it for a reason.
ROUNDS_BEFORE_A_GAP = 3  # A node that could not be asked may have what is otherwise lost, and be back within them.
HEALTHY_AFTER = 1.0  # Seconds: a server that takes connections only to drop them must not reset the backoff.
BROKEN = (KeyError, TypeError, ValueError, AttributeError)  # A message that is not what the protocol says.
UNHEARD_MS = 10  # How long before a finalize its final may end: what the server's resampler has not heard out.


@dataclass(frozen=True)
class Partial:
    """The text so far of the open segment; those overtaken before they were read are left out."""

    segment: int
    from_frame: int
    until_frame: int
    text: str


@dataclass(frozen=True)
class Final:
    """A segment's committed text. Frames count what was sent, `start` and `end` are the same in seconds."""

    segment: int
    from_frame: int
    to_frame: int
    start: float
    end: float
    cause: str
    text: str
    words: list[dict[str, Any]]
    confidence: Optional[float]
    alternatives: list[dict[str, Any]]
    error: Optional[dict[str, Any]]


@dataclass(frozen=True)
class Gap:
    """Audio that will have no text: every server lost it, and it is not held here any more either."""

    from_frame: int
    to_frame: int


@dataclass(frozen=True)
class Durable:
    """Whether the servers hold acknowledged audio twice has changed."""

    durable: bool


@dataclass(frozen=True)
class Notice:
    """The server has something to say; the session goes on."""

    code: str
    message: str


@dataclass(frozen=True)
class Reconnected:
    """A lost connection was replaced after `seconds`; `restarted` if servers had lost the session and it began anew."""

    seconds: float
    restarted: bool


@dataclass(frozen=True)
class Done:
    """Every final has come. Nothing follows."""

    segments: int
    frames: int


Event = Union[Partial, Final, Gap, Durable, Notice, Reconnected, Done]


class StarlingError(Exception):
    """The session could not be opened, or is over before its end. `code` is the server's word for why, if it gave one."""

    def __init__(self, message: str, code: Optional[str] = None) -> None:
        super().__init__(message)
        self.code = code


class _Lost(Exception):
    """A connection, or the attempt at one, is gone."""


class _Refused(Exception):
    """A server answered with an error."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("message", body.get("code"))))
        self.body, self.code = body, str(body.get("code"))


@dataclass(frozen=True)
class Timing:
    """How long to try, in seconds. The defaults are those of the Rust SDK."""

    open_deadline: float = 5.0  # Until a session that no server takes is given up; zero asks each server once.
    give_up: float = 60.0  # The same for one that was open: as long as a server keeps it.
    attempt: float = 5.0  # From the first packet to `ready`.
    liveness: float = 15.0  # A connection on which nothing is heard for so long is lost; half of it sends a ping.
    backoff_first: float = 0.1  # Delays are drawn from zero to an upper end, which doubles from this one ...
    backoff_most: float = 3.0  # ... to this one.
    ring: float = 60.0  # Audio that is kept to be sent again.


class Session:
    """One stream of speech. Use it with `async with`, send from one task and iterate over its events in another."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        key: Optional[str] = None,
        model: Optional[str] = None,
        sample_rate: int = 16_000,
        channels: int = 1,
        encoding: str = "pcm_s16le",
        options: Optional[dict[str, Any]] = None,
        wait_when_busy: bool = False,
        timing: Timing = Timing(),
    ) -> None:
        """`urls` are servers, asked in this order: `ws://HOST:PORT` or `wss://`. `options` are those of `hello`."""
        if not urls:
            raise ValueError("urls is empty; it must name at least one server, such as ws://127.0.0.1:8080")
        if encoding not in FRAME_BYTES:
            raise ValueError(f"encoding is {encoding!r}; it must be one of {', '.join(FRAME_BYTES)}")
        self._urls = [_stream_url(url) for url in urls]
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._rate, self._frame = sample_rate, FRAME_BYTES[encoding] * channels
        self._first = {
            "type": "hello",
            "session": str(uuid.uuid4()),
            "format": {"encoding": encoding, "sample_rate": sample_rate, "channels": channels},
            "options": options or {},
            **({"model": model} if model else {}),
        }
        self._wait_when_busy, self._timing = wait_when_busy, timing
        self.model: Optional[str] = None  # The model that the server chose.
        self.durable = False  # Whether acknowledged audio is in two copies.

        self._task: Optional[asyncio.Task[None]] = None
        self._reader: Optional[asyncio.Task[None]] = None
        self._link: Optional[ClientConnection] = None
        self._leaving: Optional[asyncio.Task[None]] = None
        self._leave_until = 0.0
        self._asking = False
        self._closing: set[asyncio.Task[None]] = set()
        self._failure: Optional[StarlingError] = None
        self._opened = self._over = False
        self._events: deque[Event] = deque()

        # Whom to ask: the server of the last connection, the configured one that was live last, those that a view named.
        self._home, self._home_stops, self._rotation = self._urls[0], False, 0
        self._suggested: list[str] = []
        self._attempts = self._superseded = self._restarts = 0
        self._restarted = False
        self._trying_since: Optional[float] = None
        self._lost_at: Optional[float] = None
        self._live_since = 0.0

        # The server's session: our frames and segments are its own, and these added.
        self._token: Optional[str] = None
        self._epoch = self._live_epoch = self._base_frame = self._base_segment = 0

        # Frames, `start <= acked <= sent <= written` while a connection is live; the ring holds `start` to `written`. An
        # attempt has promised to have what begins at `promised`.
        self._ring = bytearray()
        self._start = self._acked = self._sent = self._written = 0
        self._promised: Optional[int] = None
        # Where finals were asked for that have not come; the first `marks_sent` are on this connection.
        self._marks: deque[int] = deque()
        self._marks_sent = 0
        self._ended = self._end_sent = False
        self._final_to = self._next_segment = self._delivered = self._confirmed = 0

    async def __aenter__(self) -> Session:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Opens the session; raises `StarlingError` when no server takes it."""
        self._changed = asyncio.Event()
        self._trying_since = self._now()
        self._task = asyncio.create_task(self._run())
        await self._until(lambda: self._opened or self._over)
        if not self._opened:
            raise self._failure or StarlingError("the session is over")

    async def send(self, pcm: bytes) -> None:
        """Hands in whole frames. Waits while the ring is full, so that what can't be kept is not taken."""
        if len(pcm) % self._frame:
            raise ValueError(f"{len(pcm)} bytes are no whole frames of {self._frame} bytes")
        if self._ended:
            raise ValueError("audio after finish()")
        at = 0
        while at < len(pcm):
            await self._until(lambda: self._over or self._room() > 0)
            if self._over:
                raise self._failure or StarlingError("the session is over")
            piece = pcm[at : at + self._room() * self._frame]
            at += len(piece)
            self._ring += piece
            self._written += len(piece) // self._frame
            self._trim()
            self._wake()

    async def finalize(self) -> None:
        """Asks for the open segment's final here and now."""
        if not self._marks or self._marks[-1] != self._written:
            self._marks.append(self._written)
            self._wake()

    async def finish(self) -> None:
        """Says that no more audio will come; the remaining finals and `Done` follow."""
        self._ended = True
        self._wake()

    async def close(self) -> None:
        """Lets the session go, whatever has come of it."""
        tasks = [task for task in (self._task, self._leaving) if task and not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._closing, return_exceptions=True)
        self._over = True
        self._wake()

    def __aiter__(self) -> Session:
        return self

    async def __anext__(self) -> Event:
        await self._until(lambda: bool(self._events) or self._over)
        if not self._events:
            if self._failure:
                raise self._failure
            raise StopAsyncIteration
        event = self._events.popleft()
        if isinstance(event, Final):
            self._delivered = event.segment + 1
        self._wake()
        return event

    # The session's task: one connection after the other.

    async def _run(self) -> None:
        try:
            link = await self._reach()
            while link is not None:
                link = await self._converse(link)
        except StarlingError as error:
            self._failure = error
        except BROKEN as error:
            self._failure = StarlingError(f"the server broke the protocol: {error!r}")
        finally:
            if self._leaving:
                self._leaving.cancel()
            if self._link is not None:
                self._let_go(self._link)
                self._link = None
            self._over = True
            self._wake()

    async def _converse(self, link: ClientConnection) -> Optional[ClientConnection]:
        """Speaks on a live connection until it is lost, left or done with; gives the next, or none after the end."""
        writer = asyncio.create_task(self._write(link))
        self._reader = reader = asyncio.create_task(self._read(link))
        try:
            await asyncio.wait([reader])
        finally:
            writer.cancel()
            reader.cancel()
        cause = None if reader.cancelled() else reader.exception()
        if self._link is not link:
            return self._link
        if not isinstance(cause, _Lost):
            raise cause or StarlingError("the session was let go")
        self._let_go(link)
        self._link = None
        self._lost_at = self._lost_at or self._now()
        if self._now() - self._live_since >= HEALTHY_AFTER:
            self._healthy()
        if self._leaving and not self._leaving.done():
            # In the normal order of things: the node that takes a session over tells the one before so.
            self._leave_until = 0.0
            if not self._asking:
                self._leaving.cancel()
            await asyncio.wait([self._leaving])
            if self._link is not None:
                return self._link
        self._trying_since = self._trying_since or self._now()
        return await self._reach(cause)

    async def _read(self, link: ClientConnection) -> None:
        while self._link is link:
            message = await self._hear(link)
            # Whatever comes after another connection was made speaks for nothing any more.
            if self._link is link:
                self._take(message)

    async def _hear(self, link: ClientConnection) -> Any:
        """The next message; a silent server is pinged, and lost when it does not answer that either."""
        # Events that nobody takes hold up the server: the connection is not read meanwhile, nor is silence held against it.
        await self._until(lambda: len(self._events) < MAX_WAITING_EVENTS)
        half = self._timing.liveness / 2
        try:
            while True:
                try:
                    text = await asyncio.wait_for(link.recv(), half)
                    return json.loads(text) if isinstance(text, str) else {}
                except asyncio.TimeoutError:
                    await asyncio.wait_for(await link.ping(), half)
        except asyncio.TimeoutError:
            raise _Lost(f"nothing was heard for {self._timing.liveness} s") from None
        except (WebSocketException, OSError) as error:
            raise _Lost(str(error)) from None

    async def _write(self, link: ClientConnection) -> None:
        try:
            while self._link is link:
                message = self._next_write()
                if message is None:
                    await self._changed.wait()
                else:
                    await link.send(message)
        except (WebSocketException, OSError):
            pass  # Reading ends as well, after what the server said before.

    def _next_write(self) -> Union[str, bytes, None]:
        """What is to be written next, taken for written: what was not comes again on the next connection."""
        if self._delivered > max(self._confirmed, self._base_segment):
            self._confirmed = self._delivered
            return json.dumps({"type": "confirm", "segment": self._delivered - 1 - self._base_segment})
        mark = self._marks[self._marks_sent] if self._marks_sent < len(self._marks) else None
        if mark is not None and mark <= self._sent:
            self._marks_sent += 1
            return '{"type":"finalize"}'
        most = self._sent + max(1, MAX_WRITE_BYTES // self._frame)
        until = min(self._written if mark is None else mark, most)
        if self._sent < until:
            at = (self._sent - self._start) * self._frame
            piece = bytes(self._ring[at : at + (until - self._sent) * self._frame])
            self._sent = until
            return piece
        if self._ended and not self._end_sent:
            self._end_sent = True
            return '{"type":"end"}'
        return None

    def _take(self, message: Any) -> None:
        """Takes a message of the live connection. Unknown ones are passed over."""
        kind = message.get("type")
        if kind == "ack":
            until = self._base_frame + message["until"]
            if until > self._sent:
                raise StarlingError(f"the server acknowledged frame {until}, of {self._sent} sent")
            self._acked = max(self._acked, until)
            self._healthy()
        elif kind == "partial" and self._base_segment + message["segment"] == self._next_segment:
            ends = (self._base_frame + message[end] for end in ("from", "until"))
            self._deliver(Partial(self._next_segment, *ends, message["text"]))
        elif kind == "final":
            self._final(message)
        elif kind == "view":
            self._token = message["token"]
            self._suggest(message.get("resume_at", []))
            self._note_durable(message["durable"])
        elif kind == "warning":
            self._deliver(Notice(message["code"], message["message"]))
        elif kind == "go_away":
            self._home_stops = True
            self._leave_until = self._now() + message["deadline_ms"] / 1_000
            if self._leaving is None or self._leaving.done():
                self._leaving = asyncio.create_task(self._leave())
        elif kind == "done":
            said = (self._base_segment + message["segments"], self._base_frame + message["frames"])
            if not self._ended or said != (self._next_segment, self._written):
                here = f"{self._next_segment} segments had come, of {self._written} frames"
                raise StarlingError(f"the server was done after {said[0]} segments and {said[1]} frames; {here}")
            self._finish()
        elif kind == "error":
            self._error(message)
        self._wake()

    def _final(self, message: dict[str, Any]) -> None:
        segment = self._base_segment + message["segment"]
        start, end = self._base_frame + message["from"], self._base_frame + message["to"]
        if segment < self._next_segment:
            return
        if segment > self._next_segment or start != self._final_to or not start <= end <= self._sent:
            due = f"segment {self._next_segment} from frame {self._final_to} was due"
            raise StarlingError(f"a final is missing: {due}, segment {segment} from {start} to {end} came")
        shift = self._base_frame / self._rate
        self._next_segment, self._final_to = segment + 1, end
        self._acked, self._restarts = max(self._acked, end), 0
        self._answer_marks(message["cause"])
        self._trim()
        self._healthy()
        alternatives = [
            {**other, "words": _shifted(other.get("words", []), shift)} for other in message.get("alternatives", [])
        ]
        self._deliver(
            Final(
                segment=segment,
                from_frame=start,
                to_frame=end,
                start=message["start"] + shift,
                end=message["end"] + shift,
                cause=message["cause"],
                text=message["text"],
                words=_shifted(message.get("words", []), shift),
                confidence=message.get("confidence"),
                alternatives=alternatives,
                error=message.get("error"),
            )
        )

    def _answer_marks(self, cause: str) -> None:
        """Forgets the requests that a final answers: those it passed, and the one it was made for."""
        unheard = self._rate * UNHEARD_MS // 1_000
        asked = cause == "finalize" and bool(self._marks) and self._marks[0] <= self._final_to + unheard
        passed = sum(mark < self._final_to for mark in self._marks)
        for _ in range(min(max(passed, int(asked)), self._marks_sent)):
            self._marks.popleft()
            self._marks_sent -= 1

    def _error(self, body: dict[str, Any]) -> None:
        """An error on the live connection: the session ends, goes on elsewhere, or goes on here."""
        code, message = body["code"], body["message"]
        outrun = code == "superseded" and self._epoch > self._live_epoch
        if code == "bad_message":
            self._deliver(Notice(code, message))
        elif outrun or code in ("unknown_session", "bad_token", "gap", "busy", "over_quota", "internal"):
            raise _Lost(message)
        elif code == "shutting_down":
            self._home_stops = True
            raise _Lost(message)
        else:
            raise StarlingError(f"the server ended the session: {message}", code)

    # Connections: whom to ask, and what a refusal means.

    async def _reach(self, cause: Optional[Exception] = None) -> Optional[ClientConnection]:
        """Asks servers in turn until one opens the session or goes on with it; none when all was said before."""
        left, rounds = self._known(), 0
        unknown: Optional[_Refused] = None
        busy: Optional[_Refused] = None
        there: Optional[str] = None
        unsure = False
        if cause is not None:
            if self._attempts > 0:
                left.append(left.pop(left.index(self._home)))
            await self._pause(0.0, cause)
        while True:
            server = left.pop(0)
            try:
                return await self._ask(server)
            except _Lost as lost:
                cause, unsure = lost, True
            except _Refused as refused:
                cause, resuming = refused, self._token is not None
                if refused.code in ("busy", "over_quota"):
                    busy, unsure = refused, True
                elif refused.code in ("internal", "shutting_down"):
                    unsure = True
                elif refused.code == "superseded" and resuming and self._superseded < MAX_SUPERSEDED:
                    self._superseded += 1
                    left.insert(0, server)
                elif refused.code in ("unknown_session", "bad_token", "gap") and resuming:
                    unknown = refused
                    there = server if server in self._urls else there
                else:
                    raise StarlingError(f"the server refused the session: {refused}", refused.code) from None
            wait = 0.0
            if not left:
                rounds += 1
                patient = self._start > self._final_to and unsure and rounds < ROUNDS_BEFORE_A_GAP
                if unknown and not patient:
                    if self._begin_anew(unknown, there):
                        return None
                    left = self._known()
                    if there:
                        unknown = None
                        continue
                elif busy and not (self._opened or self._wait_when_busy):
                    raise StarlingError(f"every server is busy: {busy}", busy.code)
                wait = float((busy.body.get("retry_after_ms") if busy else 0) or 0) / 1_000
                left, unknown, busy, there, unsure = left or self._known(), None, None, None, False
            await self._pause(wait, cause)

    async def _pause(self, wait: float, cause: Optional[Exception] = None) -> None:
        """Waits before the next attempt, or gives up. There is one attempt at the deadline itself."""
        self._attempts += 1
        now, timing = self._now(), self._timing
        patience = timing.give_up if self._opened else timing.open_deadline
        deadline = (self._trying_since or now) + patience
        if cause is not None and now >= deadline and self._attempts >= len(self._known()):
            what = "the connection was lost and no server went on with the session" if self._opened else "no server answered"
            raise StarlingError(f"{what} in {now - deadline + patience:.1f} s: {cause}")
        most = min(timing.backoff_first * 2 ** min(self._attempts - 1, 16), timing.backoff_most)
        await asyncio.sleep(max(0.0, min(wait + random.uniform(0.0, most), deadline - now)))

    async def _ask(self, server: str) -> ClientConnection:
        """One attempt: connects, says hello, and takes the connection that `ready` came on for the present one."""
        while True:
            hello, told = self._hello(), self._next_segment
            self._promised, self._asking = self._start, True
            try:
                link, ready = await asyncio.wait_for(self._greet(server, hello), self._timing.attempt)
            except asyncio.TimeoutError:
                raise _Lost(f"no answer in {self._timing.attempt} s") from None
            finally:
                self._promised, self._asking = None, False
            have = self._base_frame + ready["have_until"]
            if ready["session"] != self._first["session"] or ready["epoch"] < self._epoch or have > self._written:
                self._let_go(link)
                raise StarlingError(f"the server broke the protocol: its ready is {ready}")
            if have < self._start:
                self._let_go(link)
                raise _Refused({"code": "gap", "message": f"the server has audio until {ready['have_until']} only"})
            if told == self._next_segment:
                self._adopt(server, link, ready, have)
                return link
            # Finals came on the connection before; this server does not know of them and must be told in another hello.
            self._let_go(link)
            self._epoch, self._token = ready["epoch"], ready["token"]

    def _hello(self) -> str:
        self._trim()
        # One that got no answer may have been heard all the same, and by another node.
        self._epoch += 1
        if self._token is None:
            return json.dumps({**self._first, "epoch": self._epoch} if self._epoch > 1 else self._first)
        resume = {"token": self._token, "epoch": self._epoch, "have_from": self._start - self._base_frame}
        last = self._next_segment - self._base_segment - 1
        if last >= 0:
            resume.update(last_final=last, final_to=self._final_to - self._base_frame)
        return json.dumps({**self._first, "resume": resume})

    async def _greet(self, server: str, hello: str) -> tuple[ClientConnection, dict[str, Any]]:
        try:
            link = await connect(
                server,
                additional_headers=self._headers,
                max_size=MAX_MESSAGE_BYTES,
                compression=None,  # Audio does not shrink, and the protocol has no extensions.
                ping_interval=None,  # Silence is looked into where messages are read.
                open_timeout=None,  # The attempt has a deadline as a whole.
                close_timeout=1,
            )
        except InvalidStatus as error:
            raise _said_by(error) from None
        except (WebSocketException, OSError) as error:
            raise _Lost(str(error)) from None
        try:
            await link.send(hello)
            while True:
                text = await link.recv()
                message = json.loads(text) if isinstance(text, str) else {}
                if message.get("type") == "ready":
                    return link, message
                if message.get("type") == "error":
                    raise _Refused(message)
        except (WebSocketException, OSError) as error:
            self._let_go(link)
            raise _Lost(str(error)) from None
        except BaseException:
            self._let_go(link)
            raise

    def _adopt(self, server: str, link: ClientConnection, ready: dict[str, Any], have: int) -> None:
        """From now on this connection speaks for the session; audio goes on where the server says."""
        before, self._link = self._link, link
        if before is not None:
            self._let_go(before)
            if self._reader:
                self._reader.cancel()
        if server in self._urls:
            self._rotation = self._urls.index(server)
        self._home, self._home_stops, self._live_since = server, False, self._now()
        self._epoch = self._live_epoch = ready["epoch"]
        self._token, self._sent = ready["token"], have
        # An earlier server's word for what this one does not have is worth nothing any more.
        self._acked = min(self._acked, have)
        # A request at this very place may or may not have been heard; asked twice it costs an empty final.
        self._marks_sent = sum(mark < have for mark in self._marks)
        self._end_sent, self._confirmed = False, 0
        if not self._opened:
            self._opened, self.model, self.durable = True, ready["model"], ready["durable"]
        self._note_durable(ready["durable"])
        if self._lost_at is not None:
            seconds, self._lost_at = self._now() - self._lost_at, None
            self._deliver(Reconnected(seconds, self._restarted))
            self._restarted = False
        self._trim()
        self._wake()

    async def _leave(self) -> None:
        """The server is about to stop: makes the next connection elsewhere before this one is broken."""
        attempts = 0
        left: list[str] = []
        while True:
            attempts += 1
            most = min(self._timing.backoff_first * 2 ** min(attempts - 1, 16), self._timing.backoff_most)
            # A crowd of clients that is told to go must not arrive in step, so the first attempt waits too.
            wait, remaining = random.uniform(0.0, most), self._leave_until - self._now()
            left = left or [server for server in self._known() if server != self._home]
            if not left or (attempts > 1 and wait > remaining):
                return
            await asyncio.sleep(max(0.0, min(wait, remaining)))
            try:
                await self._ask(left.pop(0))
                return
            except (_Lost, _Refused, StarlingError, *BROKEN):
                pass  # The present connection is still there.

    def _begin_anew(self, refused: _Refused, there: Optional[str]) -> bool:
        """Begins a new server session with the audio after the last final, or what there is of it; whether all was said."""
        if self._is_complete():
            self._finish()  # Only the server's `done` was lost.
            return True
        if self._restarts >= MAX_RESTARTS:
            raise StarlingError(f"the server ended the session: {refused}", refused.code)
        if self._start > self._final_to:
            self._deliver(Gap(self._final_to, self._start))
            self._final_to = self._start
            self._marks = deque(mark for mark in self._marks if mark >= self._start)
            if self._is_complete():
                self._finish()
                return True
        self._restarts, self._restarted = self._restarts + 1, True
        self._first["session"] = str(uuid.uuid4())
        self._token, self._suggested, self._epoch, self._marks_sent = None, [], 0, 0
        self._start = self._base_frame = self._acked = self._final_to
        self._base_segment = self._next_segment
        self._home, self._home_stops = there or self._urls[self._rotation], False
        return False

    def _known(self) -> list[str]:
        """Every server that may be asked now, once: those with a copy, the last one, then our own in rotation."""
        first = self._urls.index(self._home) if self._home in self._urls else self._rotation
        known = [*self._suggested, self._home] if self._token is not None else []
        known += self._urls[first:] + self._urls[:first]
        known = list(dict.fromkeys(known))
        if self._home_stops:
            known.append(known.pop(known.index(self._home)))
        return known

    def _suggest(self, addresses: Sequence[str]) -> None:
        """Takes the nodes of a view. They are reached without TLS: whoever was told to use it does not go there."""
        if any(url.startswith("wss:") for url in self._urls):
            return
        ours = {urlsplit(url).netloc: url for url in self._urls}
        good = [text for text in addresses if re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):[1-9]\d{0,4}", text)]
        self._suggested = [ours.get(text, f"ws://{text}{STREAM_PATH}") for text in good[:MAX_SUGGESTED]]

    # Small things.

    def _room(self) -> int:
        """Frames that may be appended now."""
        return int(self._timing.ring * self._rate) - (self._written - self._spare())

    def _spare(self) -> int:
        """The first frame that can't be done without: not held by a server, promised to one, or still to be sent."""
        spare = max(self._acked, self._final_to)
        if self._promised is not None:
            spare = min(spare, self._promised)
        if self._link is not None:
            spare = min(spare, self._sent)
        return max(self._start, spare)

    def _trim(self) -> None:
        """Lets go what finals cover, and what was acknowledged only as far as the ring is full."""
        oldest = self._written - int(self._timing.ring * self._rate)
        start = max(self._start, min(self._spare(), max(oldest, self._final_to)))
        del self._ring[: (start - self._start) * self._frame]
        self._start = start

    def _is_complete(self) -> bool:
        return self._ended and not self._marks and self._final_to == self._written

    def _finish(self) -> None:
        """All is said: the server is told that nothing need be kept."""
        link, self._link = self._link, None
        if link is not None:
            last = self._next_segment - self._base_segment - 1
            self._let_go(link, json.dumps({"type": "confirm", "segment": last}) if last >= 0 else None)
        self._deliver(Done(self._next_segment, self._final_to))

    def _let_go(self, link: ClientConnection, last: Optional[str] = None) -> None:
        """Closes a connection, with a last word; nobody waits for it but `close`."""

        async def closing() -> None:
            try:
                if last is not None:
                    await asyncio.wait_for(link.send(last), 1)
                await link.close()
            except (WebSocketException, OSError, asyncio.TimeoutError):
                pass  # It is gone.

        task = asyncio.ensure_future(closing())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _healthy(self) -> None:
        self._attempts = self._superseded = 0
        self._trying_since = None

    def _note_durable(self, durable: bool) -> None:
        if durable != self.durable:
            self.durable = durable
            self._deliver(Durable(durable))

    def _deliver(self, event: Event) -> None:
        if isinstance(event, (Partial, Final, Gap)) and self._events and isinstance(self._events[-1], Partial):
            self._events.pop()
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            await self._changed.wait()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _stream_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"the server {url!r} can't be used; it must be ws://HOST:PORT or wss://HOST:PORT")
    return url if parts.path not in ("", "/") else f"{parts.scheme}://{parts.netloc}{STREAM_PATH}"


def _said_by(error: InvalidStatus) -> Exception:
    """What a server said that took no WebSocket, as if it had said it over one; a proxy says less."""
    try:
        return _Refused(json.loads(error.response.body)["error"])
    except BROKEN:
        codes = {
            401: ("unauthorized", "the key is missing or not known there"),
            403: ("forbidden", "the key is not good for that"),
        }
        code, message = codes.get(error.response.status_code, (None, str(error)))
        return _Refused({"code": code, "message": message}) if code else _Lost(message)


def _shifted(words: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    return [{**word, "start": word["start"] + seconds, "end": word["end"] + seconds} for word in words]


# The program.


@dataclass(frozen=True)
class _Sound:
    """Where samples are read from, and what they are. A recording that has no head is taken for raw samples."""

    stream: BinaryIO
    encoding: str = "pcm_s16le"
    sample_rate: int = 16_000
    channels: int = 1
    begun: bytes = b""
    size: int = sys.maxsize  # Bytes, where the head says it.

    @property
    def frame_bytes(self) -> int:
        return FRAME_BYTES[self.encoding] * self.channels


def read_head(stream: BinaryIO, raw: _Sound) -> _Sound:
    """Reads a WAV file up to its samples, also from a pipe; of anything else `raw` says what it is."""
    riff = stream.read(12)
    if riff[:4] not in (b"RIFF", b"RF64", b"BW64") or riff[8:] != b"WAVE":
        return replace(raw, begun=riff)
    kinds = {(1, 8): "pcm_u8", (1, 16): "pcm_s16le", (1, 24): "pcm_s24le", (1, 32): "pcm_s32le"}
    kinds.update({(3, 32): "pcm_f32le", (3, 64): "pcm_f64le", (6, 8): "alaw", (7, 8): "mulaw"})
    sound: Optional[_Sound] = None
    long = 0  # Bytes of samples, where there may be more than 32 bits can say.
    while len(head := stream.read(8)) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"data" and sound:
            # A recording that is still being made can't say how long it will be.
            size = long if size == 0xFFFF_FFFF else size
            return replace(sound, size=size if 0 < size < sys.maxsize else sys.maxsize)
        body = stream.read(size + size % 2)
        if head[:4] == b"ds64":
            long = int.from_bytes(body[8:16], "little")
        if head[:4] == b"fmt " and len(body) >= 16:
            tag, channels, rate, bits = (int.from_bytes(body[a:b], "little") for a, b in ((0, 2), (2, 4), (4, 8), (14, 16)))
            tag = int.from_bytes(body[24:26], "little") if tag == 0xFFFE else tag
            if (tag, bits) not in kinds:
                raise ValueError(f"samples of kind {tag} with {bits} bits are not taken; convert them to 16-bit PCM")
            sound = replace(raw, encoding=kinds[tag, bits], sample_rate=rate, channels=channels)
    raise ValueError("the WAV file has no samples")


async def _speak(session: Session, sound: _Sound, realtime: bool) -> None:
    """Sends the recording in pieces of 100 ms, and no faster than it was spoken if that is wanted."""
    loop = asyncio.get_running_loop()
    began, frames = loop.time(), 0
    kept, left = sound.begun, sound.size
    while True:
        most = min(left, max(1, sound.sample_rate // 10) * sound.frame_bytes)
        piece = await asyncio.to_thread(sound.stream.read, most)
        left -= len(piece)
        whole = (len(kept) + len(piece)) // sound.frame_bytes * sound.frame_bytes
        audio = (kept + piece)[:whole]
        kept = (kept + piece)[whole:]
        await session.send(audio)
        if not piece:
            await session.finish()
            return
        frames += whole // sound.frame_bytes
        if realtime:
            await asyncio.sleep(max(0.0, began + frames / sound.sample_rate - loop.time()))


async def _transcribe(arguments: argparse.Namespace, stream: BinaryIO) -> int:
    sound = read_head(stream, _Sound(stream, sample_rate=arguments.rate))
    shows = sys.stderr.isatty()
    options = {"partials": shows, "batch": not arguments.realtime and arguments.recording != "-"}
    urls = arguments.url or ["ws://127.0.0.1:8080"]
    how = {"encoding": sound.encoding, "sample_rate": sound.sample_rate, "channels": sound.channels}
    whole = True
    async with Session(urls, key=arguments.key, model=arguments.model, options=options, **how) as session:
        speaking = asyncio.create_task(_speak(session, sound, arguments.realtime))
        speaking.add_done_callback(lambda task: task.cancelled() or task.exception())
        async for event in session:
            if shows and isinstance(event, (Partial, Final, Gap)):
                print("\r\x1b[K", end=event.text if isinstance(event, Partial) else "", file=sys.stderr, flush=True)
            if isinstance(event, Final):
                whole = whole and event.error is None
                if event.text:
                    print(event.text, flush=True)
            elif isinstance(event, Gap):
                whole = False
                start, end = event.from_frame / sound.sample_rate, event.to_frame / sound.sample_rate
                print(f"the servers lost what was said from {start:.1f} s to {end:.1f} s", file=sys.stderr)
            elif isinstance(event, Reconnected):
                print(f"the connection was lost and replaced after {event.seconds:.1f} s", file=sys.stderr)
            elif isinstance(event, Notice):
                print(f"the server says: {event.message}", file=sys.stderr)
        speaking.cancel()
    return 0 if whole else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Sends a recording to Starling and prints its text, line by line as it is final."
    )
    parser.add_argument("recording", help="a WAV file, or - for standard input: WAV or raw 16-bit mono samples")
    parser.add_argument("--url", action="append", help="a server, such as ws://127.0.0.1:8080; may be given several times")
    parser.add_argument("--key", help="the key, where the servers ask for one")
    parser.add_argument("--model", help="a model by name; the server's default otherwise")
    parser.add_argument("--realtime", action="store_true", help="send at the pace of speech")
    parser.add_argument("--rate", type=int, default=16_000, help="samples a second, where the input is raw (16000)")
    arguments = parser.parse_args()
    try:
        with sys.stdin.buffer if arguments.recording == "-" else open(arguments.recording, "rb") as stream:
            return asyncio.run(_transcribe(arguments, stream))
    except KeyboardInterrupt:
        return 130
    except (StarlingError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
