"""Speaks one line of text for each line of standard input through libespeak-ng.

Arguments: the library, the folder that holds espeak-ng-data, the voice. For each line it writes the number of
samples and the rate in Hz as two little-endian 32-bit integers, and then the samples as 16-bit integers.
"""

import ctypes
import struct
import sys

SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS
UTF8 = 1  # espeakCHARS_UTF8
POS_CHARACTER = 1

library, data, voice = sys.argv[1:]
espeak = ctypes.CDLL(library)
samples = []


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
def receive(wave, count, _events):
    if wave and count > 0:
        samples.append(ctypes.string_at(wave, count * 2))
    return 0


rate = espeak.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), 0)
if rate <= 0:
    sys.exit(f"espeak-ng cannot start with the data in {data}")
espeak.espeak_SetSynthCallback(receive)
if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
    sys.exit(f"espeak-ng has no voice {voice}")

for line in sys.stdin.buffer:
    samples.clear()
    text = line.strip() + b"\0"
    status = espeak.espeak_Synth(text, len(text), 0, POS_CHARACTER, 0, UTF8, None, None)
    if status != 0:
        sys.exit(f"espeak-ng cannot speak {line!r}: status {status}")
    espeak.espeak_Synchronize()
    pcm = b"".join(samples)
    sys.stdout.buffer.write(struct.pack("<II", len(pcm) // 2, rate) + pcm)
