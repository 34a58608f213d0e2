"""A killed evaluation goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from evaluation_shop import ShopFiles, make_shop

SLOW = """
import sys, time
from pathlib import Path
from eval.rankers import Ranked, registry
from eval.run import evaluate
from evaluation_shop import ShopFiles, no_models, request_of
from reranker.settings import Settings

seconds, folder = float(sys.argv[1]), Path(sys.argv[2])
asked = []

class Slow:
    concurrency = 1
    def rank(self, case):
        time.sleep(seconds)
        asked.append(case.case_id)
        return Ranked(product_ids=tuple(sorted(case.candidates)))

registry._BUILT_IN["slow"] = registry.RankerEntry(lambda bench: Slow(), "slowly")
shop = ShopFiles(*(folder / name for name in ("products.jsonl", "cases.jsonl", "histories.jsonl")))
settings = Settings.load(None, {"evaluation.permutations": 100})
request = request_of(shop, folder, "slow", proof_cases=0)
result = evaluate(request, settings, no_models(settings))
print(len(asked), result.rankers[0].measures[0].value)
"""


def start(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    tests = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(seconds), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": tests},
    )


def lines_of(folder: Path) -> list[str]:
    return [
        line
        for file in (folder / "work" / "ranked").glob("slow-*.jsonl")
        for line in file.read_text().splitlines()
    ]


def test_a_run_killed_in_the_middle_goes_on(tmp_path: Path) -> None:
    shop: ShopFiles = make_shop(tmp_path)
    killed = start(tmp_path, 0.1)
    deadline = time.monotonic() + 60
    while len(lines_of(tmp_path)) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = len(lines_of(tmp_path))
    assert 5 <= done < 60
    asked, value = start(tmp_path, 0.0).communicate()[0].split()
    assert int(asked) in {60 - done, 60 - done + 1}  # the line that was being written
    assert len(lines_of(tmp_path)) == 60
    whole, again = start(tmp_path, 0.0).communicate()[0].split()
    assert (whole, again) == ("0", value)
    cases = [json.loads(line) for line in shop.cases.read_text().splitlines()]
    cases[0]["targets"] = cases[0]["candidates"][:1]
    shop.cases.write_text("".join(f"{json.dumps(case)}\n" for case in cases))
    assert start(tmp_path, 0.0).communicate()[0].split()[0] == "60"  # another file: anew
