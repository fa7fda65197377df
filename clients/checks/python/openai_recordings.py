"""OpenAI's library, unmodified, with a Starling node as its address: a recording in three of its formats.

Usage: python openai_recordings.py http://HOST:PORT FILE.wav (where keys are asked for, with one in OPENAI_API_KEY)
"""

import json
import os
import sys

from openai import OpenAI

base, path = sys.argv[1:]
client = OpenAI(base_url=f"{base}/v1", api_key=os.environ.get("OPENAI_API_KEY", "none"), timeout=60, max_retries=0)


def transcribe(**how):
    with open(path, "rb") as recording:
        return client.audio.transcriptions.create(model="whisper-1", file=recording, **how)


verbose = transcribe(response_format="verbose_json")
events = list(transcribe(stream=True))
print(
    json.dumps(
        {
            "models": [client.models.retrieve(model.id).id for model in client.models.list()],
            "json": transcribe().text,
            "verbose_json": verbose.text,
            "segments": [segment.text for segment in verbose.segments],
            "duration": verbose.duration,
            "language": verbose.language,
            "stream": events[-1].text,
            "deltas": "".join(event.delta for event in events if event.type == "transcript.text.delta"),
        },
        indent=2,
    )
)
