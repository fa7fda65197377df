"""Deepgram's library, unmodified, with a Starling node as its address: a recording, and the same spoken live.

Usage: python deepgram_listen.py HOST:PORT FILE.wav (where keys are asked for, with one in DEEPGRAM_API_KEY)
"""

import json
import os
import sys
import threading
import wave

from deepgram import DeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment

address, path = sys.argv[1:]
here = DeepgramClientEnvironment(
    base=f"http://{address}", production=f"ws://{address}", agent=f"ws://{address}", agent_rest=f"http://{address}"
)
client = DeepgramClient(api_key=os.environ.get("DEEPGRAM_API_KEY", "none"), environment=here)


def of_recording():
    with open(path, "rb") as recording:
        answer = client.listen.v1.media.transcribe_file(request=recording.read(), model="nova-3")
    return answer.results.channels[0].alternatives[0].transcript


def live():
    finals, kinds = [], []

    def on_message(message):
        kinds.append(message.type)
        if message.type == "Results" and message.is_final:
            finals.append(message.channel.alternatives[0].transcript)

    with wave.open(path) as recording:
        rate = recording.getframerate()
        how = {"model": "nova-3", "encoding": "linear16", "sample_rate": rate, "interim_results": True}
        with client.listen.v1.connect(**how) as connection:
            connection.on(EventType.MESSAGE, on_message)
            connection.on(EventType.ERROR, lambda error: print(f"error: {error}", file=sys.stderr))
            listening = threading.Thread(target=connection.start_listening)
            listening.start()
            while piece := recording.readframes(rate // 10):
                connection.send_media(piece)
            connection.send_close_stream()
            listening.join(60)
    return " ".join(final for final in finals if final), kinds


text, kinds = live()
print(json.dumps({"recording": of_recording(), "live": text, "last": kinds[-1:]}, indent=2))
