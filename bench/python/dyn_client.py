"""Closed-loop load over Dynamo's own request plane, on a worker or a router. Prints one JSON line.

Prompts share one of 16 prefixes for their first half. A request that was under way when measuring began counts by the
share of its time that was measured, so that CPU and requests cover the same work.
"""
import argparse
import asyncio
import json
import os
import random
import sys
import time

import uvloop
from dynamo.runtime import DistributedRuntime, dynamo_worker

parser = argparse.ArgumentParser()
parser.add_argument("--endpoint", required=True, help="namespace.component.endpoint")
parser.add_argument("--mode", choices=["generate", "best"], default="generate")
parser.add_argument("--concurrency", type=int, required=True)
parser.add_argument("--input-tokens", type=int, default=512)
parser.add_argument("--output-tokens", type=int, default=16)
parser.add_argument("--seconds", type=float, default=3)
parser.add_argument("--warm-seconds", type=float, default=1)
parser.add_argument("--prefixes", type=int, default=16)
parser.add_argument("--watch-pid", type=int, required=True, help="its process tree's CPU time and memory are reported")
args = parser.parse_args()


def stat_fields(pid):
    """The fields of /proc/PID/stat after the name."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()


def process_tree(pid):
    """The process and all its descendants: a router may work in several processes."""
    children = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            children.setdefault(int(stat_fields(name)[1]), []).append(int(name))
        except OSError:
            pass  # ended meanwhile
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def cpu_seconds(pid):
    total = 0
    for member in process_tree(pid):
        fields = stat_fields(member)
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def rss_mib(pid):
    pages = 0
    for member in process_tree(pid):
        with open(f"/proc/{member}/statm") as file:
            pages += int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def quantile_ms(values, share):
    ordered = sorted(values)
    return round(1000 * ordered[int((len(ordered) - 1) * share)], 3) if ordered else None


@dynamo_worker()
async def main(runtime: DistributedRuntime):
    client = await runtime.endpoint(args.endpoint).client()
    await client.wait_for_instances()
    chance = random.Random(os.getpid())
    half = args.input_tokens // 2
    prefixes = [[random.Random(index).randrange(1000) for _ in range(half)] for index in range(args.prefixes)]
    first_s, whole_s, tokens, errors, served = [], [], 0, 0, 0.0
    begin = time.perf_counter() + args.warm_seconds
    end = begin + args.seconds

    async def send_one_after_another():
        nonlocal tokens, errors, served
        while (sent := time.perf_counter()) < end:
            prompt = chance.choice(prefixes) + [chance.randrange(1000) for _ in range(args.input_tokens - half)]
            request = prompt if args.mode == "best" else {
                "model": "tiny", "token_ids": prompt, "stop_conditions": {"max_tokens": args.output_tokens, "ignore_eos": True},
                "sampling_options": {}, "output_options": {}, "eos_token_ids": [], "annotations": [],
            }
            first, count = None, 0
            try:
                async for item in await client.round_robin(request):
                    data = item.data()
                    if first is None:
                        first = time.perf_counter()
                    if args.mode == "generate" and isinstance(data, dict):
                        count += len(data.get("token_ids") or [])
            except Exception as error:
                errors += 1
                if errors < 3:
                    print("error", repr(error)[:300], file=sys.stderr)
                await asyncio.sleep(0.05)
                continue
            done = time.perf_counter()
            if first is None or done < begin:
                continue
            served += min(1.0, (done - begin) / (done - sent))
            if sent >= begin:
                first_s.append(first - sent)
                whole_s.append(done - sent)
                tokens += count

    cpu_before = None

    async def begin_measuring():
        nonlocal cpu_before
        await asyncio.sleep(begin - time.perf_counter())
        cpu_before = cpu_seconds(args.watch_pid)

    await asyncio.gather(begin_measuring(), *[send_one_after_another() for _ in range(args.concurrency)])
    measured_s = time.perf_counter() - begin
    cpu = cpu_seconds(args.watch_pid) - cpu_before
    print(json.dumps({
        "completed": len(whole_s), "errors": errors, "tokensPerRequest": tokens / max(1, len(whole_s)),
        "requestsPerSecond": round(served / measured_s, 1), "cpuUsPerRequest": round(1e6 * cpu / max(served, 1), 1),
        "firstP50Ms": quantile_ms(first_s, 0.5), "firstP99Ms": quantile_ms(first_s, 0.99),
        "latencyP50Ms": quantile_ms(whole_s, 0.5), "latencyP99Ms": quantile_ms(whole_s, 0.99), "rssMiB": round(rss_mib(args.watch_pid), 1),
    }), flush=True)
    os._exit(0)


uvloop.run(main())
