"""Callers that speak, one recording after the other, until it is enough; and the judgement on what they were told.

Must never know what is done to the nodes meanwhile.
"""

import subprocess
import threading

# A recording of 72 s at the pace of speech, and a lost node.
CALL_S = 240


class Lost(RuntimeError):
    """A caller was told something else than an undisturbed one, or nothing."""


def transcribe(program, servers, key, model, recording, live):
    """One call; what was said in it, and what the program said of it."""
    pace = ["--realtime"] if live else []
    command = [str(program), "transcribe", *pace, *servers, "--model", model, str(recording)]
    done = subprocess.run(
        command, env={"STARLING_API_KEY": key, "HOME": "/nonexistent"}, capture_output=True, text=True, timeout=CALL_S
    )
    if done.returncode or not done.stdout.strip():
        raise Lost(f"a call to {model} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout, done.stderr


class Callers:
    """One at each node for the first model, and one for each further model."""

    def __init__(self, program, servers, key, spoken, expected):
        self.begin, self.servers, self.spoken, self.expected = (program, key), servers, spoken, expected
        self.enough, self.lock, self.calls, self.wrong = threading.Event(), threading.Lock(), 0, []
        first, *further = spoken
        places = [(first, number) for number in range(len(servers))] + [(model, 0) for model in further]
        self.threads = [threading.Thread(target=self._speak, args=place) for place in places]
        for thread in self.threads:
            thread.start()

    def _speak(self, model, number):
        program, key = self.begin
        servers, recording = self.servers[number:] + self.servers[:number], self.spoken[model]
        while not self.enough.is_set() and not self.wrong:
            try:
                told, aside = transcribe(program, servers, key, model, recording, True)
                if told != self.expected[recording]:
                    raise Lost(f"a caller was told\n{told}\nand undisturbed\n{self.expected[recording]}\n{aside[-2000:]}")
            except (Lost, subprocess.TimeoutExpired) as lost:
                self.wrong.append(lost)
                return
            with self.lock:
                self.calls += 1

    def end(self):
        """Lets everybody finish, and judges."""
        self.leave()
        if self.wrong:
            raise self.wrong[0]

    def leave(self):
        """Lets everybody finish."""
        self.enough.set()
        for thread in self.threads:
            thread.join()
