"""Wyoming's own client classes, unmodified, as Home Assistant uses them: what there is, and a recording twice on a connection.

Usage: python wyoming_utterances.py tcp://HOST:PORT FILE.wav
"""

import asyncio
import json
import sys
import wave

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStop
from wyoming.audio import AudioStop, wav_to_chunks
from wyoming.client import AsyncClient
from wyoming.info import Describe, Info

uri, path = sys.argv[1:]


async def until(client, kind):
    """All events up to one of the kind."""
    events = []
    while not (events and kind.is_type(events[-1].type)):
        event = await client.read_event()
        if event is None:
            raise SystemExit(f"the connection ended after {[event.type for event in events]}")
        events.append(event)
        if event.type == "error":
            raise SystemExit(f"error: {event.data}")
    return events


async def utterance(client):
    """What came for the recording: the events' types, the parts and the whole."""
    await client.write_event(Transcribe(language="en").event())
    with wave.open(path) as recording:
        for event in wav_to_chunks(recording, 1024, start_event=True):
            await client.write_event(event.event())
    # The first sentence's text is there before the utterance is over.
    events = await until(client, TranscriptChunk)
    await client.write_event(AudioStop().event())
    events += await until(client, TranscriptStop)
    chunks = [TranscriptChunk.from_event(event).text for event in events if TranscriptChunk.is_type(event.type)]
    [text] = [Transcript.from_event(event).text for event in events if Transcript.is_type(event.type)]
    return {"events": [event.type for event in events], "chunks": chunks, "text": text}


async def main():
    async with AsyncClient.from_uri(uri, connect_timeout=10, read_timeout=60) as client:
        await client.write_event(Describe().event())
        [program] = Info.from_event((await until(client, Info))[-1]).asr
        print(
            json.dumps(
                {
                    "program": program.name,
                    "streams": program.supports_transcript_streaming,
                    "models": {model.name: model.languages for model in program.models if model.installed},
                    "utterances": [await utterance(client) for _ in range(2)],
                },
                indent=2,
            )
        )


asyncio.run(main())
