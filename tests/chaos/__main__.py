"""Thousands of emails, writers that roll back, a Truncus full of faults, workers that are killed.

``python -m tests.chaos --database postgresql --seed 7``. At the end Truncus must have
accepted each committed email exactly once and no other, and every row must be final and agree. With
``--all-features`` that is Truncus or the fallback mailer; nobody is reached whom the guard does not
let through or who is suppressed; and an email may be unknown whose worker died while it handed it
over.
Exit status 1, with what differs, if not.
"""

import argparse
import random
import signal
import sys
import time

from tests.chaos import pace
from tests.chaos.run import DATABASES, RUNNERS, Plan, run, run_pace


def main() -> int:
    """Run once on each database that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--runner", choices=RUNNERS, default="worker")
    parser.add_argument("--broker", default="redis://127.0.0.1:6379/9", help="of Celery")
    parser.add_argument("--mails", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--fault-rate", type=float, default=0.05, help="of each fault")
    parser.add_argument("--replay", choices=["first", "duplicate"], default="first")
    parser.add_argument(
        "--all-features",
        action="store_true",
        help="with a guard, suppressed recipients and a fallback mailer",
    )
    parser.add_argument("--write-seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--pace", action="store_true", help="measure the use of the limits")
    parser.add_argument("--seconds", type=float, default=120.0, help="of --pace")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds, of --pace")
    # Whoever ends this run ends its processes with it, which are in sessions of their own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    told = vars(parser.parse_args())
    is_pace, seconds, latency_s = told.pop("pace"), told.pop("seconds"), told.pop("latency")
    if is_pace:
        return _measure_pace(told["database"], seconds, told["workers"], latency_s)
    plan = Plan(**told)
    print(f"chaos: {plan}", flush=True)
    began = time.monotonic()
    differences, numbers = run(plan)
    for name, value in numbers.items():
        print(f"  {name}: {value}")
    print(f"  seconds: {time.monotonic() - began:.0f}")
    for difference in differences[:50]:
        print(f"DIFFERS: {difference}", file=sys.stderr)
    if differences:
        print(f"{len(differences)} differences; seed {plan.seed}", file=sys.stderr)
        return 1
    print("Each committed email was sent once, none that was rolled back; all rows agree.")
    return 0


def _measure_pace(database: str, seconds: float, workers: int, latency_s: float) -> int:
    use = run_pace(database, seconds=seconds, workers=workers, latency_s=latency_s)
    print(
        f"pace on {database}: {workers} workers, {seconds:g} s, answers after {latency_s:g} s: "
        f"{use.accepted} of {use.allowed} allowed requests, {use.used:.1%}; {use.refused} of "
        f"{use.requests} were answered 429 ({use.refused_share:.1%}); {use.minute_s:.2f} s for "
        f"each {pace.PER_MINUTE} requests"
    )
    return 0 if use.used >= 0.95 and use.refused_share < 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
