"""A client of vosk-server as there are many: one message, one reply, and on.

Usage: python vosk_lockstep.py ws://HOST:PORT FILE.wav
"""

import json
import sys
import wave

from websockets.sync.client import connect

url, path = sys.argv[1:]
texts, result, replies = [], [], 0

with wave.open(path) as recording, connect(url) as socket:
    rate = recording.getframerate()
    socket.send(json.dumps({"config": {"sample_rate": rate}}))
    messages = iter(lambda: recording.readframes(rate // 5), b"")
    for message in [*messages, '{"eof" : 1}']:
        socket.send(message)
        reply = json.loads(socket.recv(timeout=60))
        replies += 1
        if reply.get("text"):
            texts.append(reply["text"])
            result += reply.get("result", [])

print(json.dumps({"text": " ".join(texts), "result": result, "replies": replies}, indent=2))
