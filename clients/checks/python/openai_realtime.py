"""OpenAI's library, unmodified, speaks to a Starling node live: with its own commits, and in turns that the node finds.

Usage: python openai_realtime.py http://HOST:PORT FILE.wav (16-bit mono; OpenAI itself takes 24 kHz alone)
"""

import asyncio
import base64
import json
import sys
import wave

from openai import AsyncOpenAI

base, path = sys.argv[1:]
client = AsyncOpenAI(base_url=f"{base}/v1", api_key="none", timeout=60, max_retries=0)


async def item(connection, told):
    """Notes what comes, up to the next item's transcript."""
    async for event in connection:
        told["events"].append(event.type)
        if event.type == "conversation.item.input_audio_transcription.delta":
            told["deltas"][event.item_id] = told["deltas"].get(event.item_id, "") + event.delta
        elif event.type == "conversation.item.input_audio_transcription.completed":
            told["items"].append(event.transcript)
            return
        elif event.type == "error" or event.type.endswith(".failed"):
            raise SystemExit(f"error: {event.error}")
    raise SystemExit(f"the connection ended after {told['events']}")


async def spoken(turns):
    told = {"items": [], "deltas": {}, "events": []}
    with wave.open(path) as recording:
        rate, pcm = recording.getframerate(), recording.readframes(recording.getnframes())
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        audio = {
            "format": {"type": "audio/pcm", "rate": rate},
            "transcription": {"model": "gpt-4o-transcribe"},
            "turn_detection": turns and {"type": turns},
        }
        await connection.session.update(session={"type": "transcription", "audio": {"input": audio}})
        for at in range(0, len(pcm), rate // 5):
            await connection.input_audio_buffer.append(audio=base64.b64encode(pcm[at : at + rate // 5]).decode())
        if turns:
            # The pause after the first sentence ends a turn by itself; nothing but a commit ends the last one here.
            await item(connection, told)
        await connection.input_audio_buffer.commit()
        await item(connection, told)
    told["deltas"] = list(told["deltas"].values())
    told["events"] = list(dict.fromkeys(told["events"]))
    return told


async def main():
    print(json.dumps({"commits": await spoken(None), "turns": await spoken("server_vad")}, indent=2))


asyncio.run(main())
