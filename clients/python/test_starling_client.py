# SPDX-License-Identifier: Apache-2.0
"""The client against servers in this process that drop it, forget it, and send it away, at places that a seed decides.

Run it with: python -m unittest test_starling_client
"""

import asyncio
import io
import json
import random
import struct
import unittest
import wave
import zlib

import starling_client
from starling_client import Done, Durable, Final, Gap, Reconnected, Session, StarlingError, Timing
from websockets.asyncio.server import serve

RATE = 8_000
QUICK = Timing(open_deadline=10, give_up=10, attempt=0.4, liveness=5, backoff_first=0.005, backoff_most=0.05)


def noise(seed, frames):
    return random.Random(seed).randbytes(frames * 2)


def cut(audio, start, ended):
    """Where the segment that begins at a frame ends, from its audio alone; None while it is open."""
    for end in range(start + 500, min(start + 3_000, len(audio) // 2) + 1):
        if end == start + 3_000 or audio[2 * end - 1] == 7:
            return end
    return len(audio) // 2 if ended and len(audio) // 2 > start else None


def text_of(audio, start, end):
    return f"{zlib.crc32(audio[2 * start : 2 * end]):08x}"


def segments_of(audio):
    """What has to come of some audio: (from, to, text) of each segment."""
    found, start = [], 0
    while (end := cut(audio, start, True)) is not None:
        found.append((start, end, text_of(audio, start, end)))
        start = end
    return found


class Kept:
    """What the servers hold of a session."""

    def __init__(self):
        self.audio, self.finals, self.epoch, self.owner, self.ended = b"", [], 1, None, False

    def open_from(self):
        return self.finals[-1]["to"] if self.finals else 0


class Servers:
    """Servers that share their sessions. `faults` are chances by kind, for each message."""

    def __init__(self, seed=0, **faults):
        self.chance, self.faults = random.Random(seed), faults
        self.sessions, self.happened, self.confirmed = {}, dict.fromkeys(faults, 0), {}
        self.acks, self.view, self.refuse = True, None, None
        self.done = []  # The audio of each session that was done, as it was then.

    async def __aenter__(self):
        self.listening = [await serve(self.serve, "127.0.0.1", 0, compression=None) for _ in range(3)]
        self.addresses = [f"127.0.0.1:{s.sockets[0].getsockname()[1]}" for s in self.listening]
        self.urls = [f"ws://{address}" for address in self.addresses]
        return self

    async def __aexit__(self, *_):
        for server in self.listening:
            server.close()
            await server.wait_closed()

    def strikes(self, fault):
        struck = self.chance.random() < self.faults.get(fault, 0)
        self.happened[fault] = self.happened.get(fault, 0) + struck
        return struck

    async def serve(self, link):
        try:
            await self.converse(link, json.loads(await link.recv()))
        except starling_client.WebSocketException:
            pass

    async def converse(self, link, hello):
        if self.refuse:
            await link.send(json.dumps({"type": "error", **self.refuse}))
            return
        if self.strikes("deaf"):
            return
        kept = await self.take_on(link, hello)
        if kept is None or self.strikes("mute"):
            return
        known = hello.get("resume", {}).get("last_final", -1) + 1
        ready = {"session": hello["session"], "epoch": kept.epoch, "token": hello["session"], "model": "m"}
        ready.update(have_until=len(kept.audio) // 2, next_segment=known, durable=False)
        await link.send(json.dumps({"type": "ready", "resumed": "resume" in hello, "linger_ms": 1, **ready}))
        if self.view:
            await link.send(json.dumps({"type": "view", "view": 1, "token": hello["session"], **self.view}))
        for final in kept.finals[known:]:
            await link.send(json.dumps(final))
        async for message in link:
            if kept.owner is not link:
                return
            if self.strikes("forget"):
                self.sessions.clear()
                link.transport.abort()
                return
            if self.strikes("drop_unheard"):
                link.transport.abort()
                return
            if isinstance(message, bytes):
                kept.audio += message
                if self.acks:
                    await link.send(json.dumps({"type": "ack", "until": len(kept.audio) // 2}))
                self.commit(kept)
            else:
                self.asked(hello["session"], kept, json.loads(message))
            if self.strikes("drop_heard"):
                link.transport.abort()
                return
            while known < len(kept.finals):
                await link.send(json.dumps(kept.finals[known]))
                known += 1
            if kept.ended:
                done = {"type": "done", "segments": len(kept.finals), "frames": len(kept.audio) // 2}
                self.done.append(kept.audio)
                await link.send(json.dumps(done))
            elif self.strikes("send_away"):
                await link.send('{"type":"go_away","deadline_ms":300}')

    async def take_on(self, link, hello):
        """The session that a hello is about, or None where it was refused."""
        resume, name = hello.get("resume"), hello["session"]
        kept = self.sessions.get(name)
        code = None
        if resume is None:
            # Which another node may have heard before.
            epoch = hello.get("epoch", 1)
            if kept and epoch <= kept.epoch:
                code = "superseded"
            kept = self.sessions[name] = kept or Kept()
            kept.epoch = max(kept.epoch, epoch)
        elif kept is None:
            code = "unknown_session"
        elif resume["epoch"] <= kept.epoch:
            code = "superseded"
        elif resume["have_from"] > len(kept.audio) // 2:
            code = "gap"
        if code:
            await link.send(json.dumps({"type": "error", "code": code, "message": code}))
            return None
        if kept.owner:
            try:
                superseded = {"type": "error", "code": "superseded", "message": "a later connection speaks"}
                await kept.owner.send(json.dumps(superseded))
            except starling_client.WebSocketException:
                pass
        kept.owner = link
        if resume:
            kept.epoch = resume["epoch"]
            last = resume.get("last_final", -1) + 1
            if self.strikes("be_behind"):
                # Another copy is asked, which lacks some of the audio and has none of the finals that the client lacks.
                least = max(resume["have_from"], resume.get("final_to", 0))
                kept.audio = kept.audio[: 2 * self.chance.randint(least, len(kept.audio) // 2)]
                kept.finals, kept.ended = kept.finals[:last], False
                self.commit(kept)
        return kept

    def commit(self, kept):
        while (end := cut(kept.audio, kept.open_from(), kept.ended)) is not None:
            self.add(kept, end, "endpoint")

    def add(self, kept, end, cause):
        start = kept.open_from()
        final = {"type": "final", "segment": len(kept.finals), "from": start, "to": end, "cause": cause}
        final.update(start=start / RATE, end=end / RATE, text=text_of(kept.audio, start, end))
        kept.finals.append({**final, "words": [{"word": "w", "start": start / RATE, "end": end / RATE}]})

    def asked(self, name, kept, message):
        if message["type"] == "confirm":
            self.confirmed[name] = message["segment"]
        elif message["type"] == "finalize":
            self.add(kept, len(kept.audio) // 2, "finalize")
        elif message["type"] == "end":
            kept.ended = True
            self.commit(kept)


async def speak(session, audio, seed=0, finalize_at=()):
    sizes, at = random.Random(seed), 0
    while at < len(audio):
        size = 2 * sizes.randint(1, 600)
        stops = [stop * 2 for stop in finalize_at if at < stop * 2 < at + size]
        until = min(stops, default=at + size)
        await session.send(audio[at:until])
        at = until
        if at // 2 in finalize_at:
            await session.finalize()
        # Lets the session's task run, as the pace of speech does.
        await asyncio.sleep(0.001)
    await session.finish()


async def heard(session, audio, **how):
    """All events of a session that speaks some audio."""
    speaking = asyncio.create_task(speak(session, audio, **how))
    events = [event async for event in session]
    await speaking
    return events


def finals_of(events):
    return [event for event in events if isinstance(event, Final)]


FAULTS = {"drop_unheard": 0.03, "drop_heard": 0.03, "be_behind": 0.4, "send_away": 0.02, "deaf": 0.1, "mute": 0.1}


class AnySession(unittest.IsolatedAsyncioTestCase):
    async def disturbed(self, seed, **faults):
        audio = noise(seed, 20_000)
        async with Servers(seed, **faults) as servers:
            async with Session(servers.urls, sample_rate=RATE, timing=QUICK) as session:
                events = await asyncio.wait_for(heard(session, audio, seed=seed), 30)
            said = [(final.from_frame, final.to_frame, final.text) for final in finals_of(events)]
            self.assertEqual(said, segments_of(audio), f"seed {seed}")
            self.assertEqual([final.segment for final in finals_of(events)], list(range(len(said))))
            for final in finals_of(events):
                self.assertAlmostEqual(final.start, final.from_frame / RATE)
                self.assertAlmostEqual(final.words[0]["end"], final.to_frame / RATE)
            self.assertEqual(events[-1], Done(len(said), 20_000))
            self.assertFalse([event for event in events if isinstance(event, Gap)])
            # What was heard by the server session that was done is the audio's end, each sample once.
            self.assertTrue(servers.done and all(map(audio.endswith, servers.done)), f"seed {seed}")
            return servers.happened, events

    async def test_every_final_comes_once_whatever_is_cut(self):
        total, replaced = dict.fromkeys(FAULTS, 0), 0
        for seed in range(25):
            happened, events = await self.disturbed(seed, **FAULTS)
            total = {fault: total[fault] + happened[fault] for fault in total}
            replaced += sum(isinstance(event, Reconnected) for event in events)
        self.assertTrue(all(total.values()), total)
        self.assertGreater(replaced, 25)

    async def test_a_session_that_every_server_lost_begins_anew_at_its_last_final(self):
        restarts = 0
        for seed in range(10):
            _, events = await self.disturbed(seed, forget=0.01, drop_heard=0.01)
            restarts += sum(isinstance(event, Reconnected) and event.restarted for event in events)
        self.assertGreater(restarts, 3)

    async def test_what_nobody_has_any_more_is_a_gap_between_finals(self):
        audio = noise(1, 20_000)
        small = Timing(**{**QUICK.__dict__, "ring": 0.05})
        gaps = 0
        for seed in range(5):
            async with Servers(seed, forget=0.02) as servers:
                async with Session(servers.urls, sample_rate=RATE, timing=small) as session:
                    events = await asyncio.wait_for(heard(session, audio), 30)
            at = 0
            for event in events:
                if isinstance(event, (Final, Gap)):
                    self.assertEqual(event.from_frame, at)
                    at = event.to_frame
                    gaps += isinstance(event, Gap)
                if isinstance(event, Final):
                    self.assertEqual(event.text, text_of(audio, event.from_frame, at))
            self.assertEqual(at, 20_000)
        self.assertGreater(gaps, 0)

    async def test_a_finalize_is_answered_across_connections(self):
        for seed in range(8):
            audio, places = noise(seed, 8_000), (700, 2_345, 6_000)
            async with Servers(seed, drop_unheard=0.05, drop_heard=0.05) as servers:
                async with Session(servers.urls, sample_rate=RATE, timing=QUICK) as session:
                    events = await asyncio.wait_for(heard(session, audio, finalize_at=places), 30)
            ends = [final.to_frame for final in finals_of(events)]
            self.assertTrue(set(places) <= set(ends), (seed, ends))
            self.assertEqual(ends, sorted(ends))

    async def test_a_node_that_is_named_is_asked_to_go_on(self):
        audio = noise(3, 20_000)
        async with Servers(3, drop_heard=0.05) as servers:
            servers.view = {"durable": True, "resume_at": [servers.addresses[1], "no address", "x:0"]}
            async with Session(servers.urls[:1], sample_rate=RATE, timing=QUICK) as session:
                events = heard(session, audio)
                events = await asyncio.wait_for(events, 30)
            self.assertEqual([final.text for final in finals_of(events)], [text for _, _, text in segments_of(audio)])
            self.assertIn(Durable(True), events)
            self.assertEqual(session._home, f"ws://{servers.addresses[1]}/v1/stream")

    async def test_finals_are_confirmed_when_they_were_taken(self):
        audio = noise(4, 5_000)
        async with Servers() as servers:
            async with Session(servers.urls, sample_rate=RATE, timing=QUICK) as session:
                events = await heard(session, audio)
                name = session._first["session"]
            for _ in range(100):
                if servers.confirmed.get(name) == len(finals_of(events)) - 1:
                    break
                await asyncio.sleep(0.02)
            self.assertEqual(servers.confirmed[name], len(finals_of(events)) - 1)

    async def test_sending_waits_while_the_ring_is_full(self):
        small = Timing(**{**QUICK.__dict__, "ring": 0.05})
        async with Servers() as servers:
            servers.acks = False
            async with Session(servers.urls, sample_rate=RATE, timing=small) as session:
                await session.send(bytes(2 * 400))
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(session.send(bytes(2)), 0.3)

    async def test_a_refusal_is_raised_with_its_code(self):
        async with Servers() as servers:
            servers.refuse = {"code": "unknown_model", "message": "no model nonsense here"}
            with self.assertRaises(StarlingError) as caught:
                await Session(servers.urls, model="nonsense", timing=QUICK).open()
            self.assertEqual(caught.exception.code, "unknown_model")
            self.assertIn("no model nonsense here", str(caught.exception))
            servers.refuse = {"code": "busy", "message": "no decoder is free", "retry_after_ms": 1}
            with self.assertRaises(StarlingError) as caught:
                await Session(servers.urls, timing=QUICK).open()
            self.assertEqual(caught.exception.code, "busy")

    async def test_it_gives_up_at_the_deadline_and_says_what_it_met(self):
        hasty = Timing(**{**QUICK.__dict__, "open_deadline": 0.2, "give_up": 0.2})
        with self.assertRaisesRegex(StarlingError, "no server answered"):
            await Session(["ws://127.0.0.1:9"], timing=hasty).open()
        async with Servers() as servers:
            session = Session(servers.urls, sample_rate=RATE, timing=hasty)
            await session.open()
        with self.assertRaisesRegex(StarlingError, "no server went on"):
            await heard(session, noise(0, 2_000))
        await session.close()


class Recordings(unittest.TestCase):
    def test_a_wav_file_says_what_its_samples_are(self):
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setparams((2, 3, 44_100, 0, "NONE", ""))
            writer.writeframes(bytes(12))
        sound = starling_client.read_head(io.BytesIO(file.getvalue()), starling_client._Sound(None))
        self.assertEqual((sound.encoding, sound.sample_rate, sound.channels), ("pcm_s24le", 44_100, 2))
        self.assertEqual(sound.size, 12)
        long = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<IQQQI", 28, 0, 5 << 32, 0, 0)
        long += b"fmt " + struct.pack("<IHHIIHH", 16, 3, 1, 8_000, 0, 0, 64) + b"data\xff\xff\xff\xff"
        sound = starling_client.read_head(io.BytesIO(long), starling_client._Sound(None))
        self.assertEqual((sound.encoding, sound.size), ("pcm_f64le", 5 << 32))
        odd = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 2, 1, 8_000, 0, 0, 4)
        with self.assertRaisesRegex(ValueError, "kind 2 with 4 bits"):
            starling_client.read_head(io.BytesIO(odd), starling_client._Sound(None))

    def test_addresses_that_cannot_be_used_are_named(self):
        for url in ("", "localhost:8080", "http://a", "ws://"):
            with self.assertRaisesRegex(ValueError, "ws://HOST:PORT"):
                Session([url])


if __name__ == "__main__":
    unittest.main()
