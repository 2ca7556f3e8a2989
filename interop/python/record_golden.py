"""Records new golden cases from the real library and services: OUT_DIR SEED COUNT. Ports are given as SLOT_PORT PUBLIC_PORT KEYED_PORT of running services."""
import json
import random
import sys
import urllib.error
import urllib.request

from dynamo.llm import RadixTree, compute_block_hash_for_seq

OUT, SEED, COUNT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
SLOT_PORT, PUBLIC_PORT, KEYED_PORT, KEY_HEX, KEY_ID = sys.argv[4:9]
WORKER_IDS = [1, 7, 2**32, 2**63 + 5, 2**64 - 1]


def write(kind, cases):
    with open(f"{OUT}/{kind}.json", "w") as file:
        json.dump({"kind": kind, "cases": [{"id": number, **case} for number, case in enumerate(cases)]}, file)


def call(port, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            text = response.read()
            return response.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text else None


def prompt(dice):
    block_size = dice.choice([1, 2, 4, 7, 16, 64])
    tokens = [dice.choice([dice.randrange(50), dice.randrange(2**32)]) for _ in range(dice.choice([0, 1, block_size, block_size + 1, dice.randrange(6 * block_size + 2)]))]
    infos = None
    if dice.random() < 0.3:
        infos = [
            None if dice.random() < 0.3 else {"mm_objects": [{"mm_hash": dice.getrandbits(64), "offsets": [[0, 1]]} for _ in range(dice.randrange(3))]}
            for _ in range(dice.randrange(5))
        ]
    return {
        "block_size": block_size, "tokens": tokens, "lora_name": dice.choice([None, None, "", "adapter-é", "l" * dice.randrange(1, 40)]),
        "cache_namespace": dice.choice([None, None, "", "tenant", "n" * dice.randrange(1, 40)]), "is_eagle": dice.choice([None, False, True]), "block_mm_infos": infos,
    }


def hashing(dice):
    for _ in range(COUNT):
        case = prompt(dice)
        local = compute_block_hash_for_seq(
            case["tokens"], case["block_size"], case["block_mm_infos"], lora_name=case["lora_name"], is_eagle=case["is_eagle"], cache_namespace=case["cache_namespace"])
        yield {**case, "expect": {"local_block_hashes": [str(value) for value in local]}}


def tracking(dice, port, mode, key_hex, key_id):
    for number in range(COUNT // 2):
        case = prompt(dice)
        if not case["tokens"]:
            case["tokens"] = [1, 2, 3]
        model, group = f"{mode}-{SEED}-{number}", dice.choice(["default", "team-a", "é"])
        worker = 1000 * (SEED % 1000) + number
        place = {"model_name": model, "routing_group": group}
        status, _ = call(port, "POST", "/workers", {"worker_id": worker, "endpoint": "http://w", "block_size": case["block_size"], "is_eagle": case["is_eagle"], **place})
        assert status == 201, status
        body = {"token_ids": case["tokens"], "selection_id": f"{mode}{number}", **place}
        for field, name in (("lora_name", "lora_name"), ("cache_namespace", "cache_salt"), ("is_eagle", "is_eagle"), ("block_mm_infos", "block_mm_infos")):
            if case[field] is not None:
                body[name] = case[field]
        status, answer = call(port, "POST", "/select_and_reserve", body)
        assert status == 200, (status, answer)
        call(port, "DELETE", f"/workers/{worker}")
        yield {**case, "mode": mode, "key_hex": key_hex, "key_id": key_id, **place, "expect": {"sequence_hashes": [str(value % 2**64) for value in answer["sequence_hashes"]]}}


def radix_case(dice):
    """A stream that correct engines could send: names follow content, parents are held, and only ends of prompts go."""
    tree = RadixTree()
    owners = [(worker, rank) for worker in dice.sample(WORKER_IDS, dice.randrange(1, 4)) for rank in range(dice.randrange(1, 3))]
    held = {owner: set() for owner in owners}
    names, contents = {}, [dice.getrandbits(64) for _ in range(4)]

    def name_of(path):
        return names.setdefault(path, dice.getrandbits(64))

    steps = []

    def apply(owner, data, step):
        event = {"event_id": len(steps), "data": data, "dp_rank": owner[1]}
        tree.apply_event(owner[0], json.dumps(event).encode())
        steps.append({"op": "event", "worker_id": owner[0], "dp_rank": owner[1], "event_id": len(steps), **step, "error": None})

    for _ in range(dice.randrange(5, 40)):
        owner, kind = dice.choice(owners), dice.random()
        mine = held[owner]
        if kind < 0.5:
            parent = dice.choice(sorted(mine)) if mine and dice.random() < 0.7 else ()
            path, blocks = parent, []
            for _ in range(dice.randrange(1, 6)):
                path = (*path, dice.choice(contents))
                blocks.append({"tokens_hash": path[-1], "block_hash": name_of(path)})
                mine.add(path)
            parent_hash = name_of(parent) if parent else None
            shown = [{key: str(value) for key, value in block.items()} for block in blocks]
            apply(owner, {"stored": {"parent_hash": parent_hash, "blocks": blocks}}, {"stored": {"parent_hash": None if parent_hash is None else str(parent_hash), "blocks": shown}})
        elif kind < 0.65 and mine:
            path = dice.choice(sorted(mine))
            gone = sorted((other for other in mine if other[:len(path)] == path), key=len, reverse=True)
            mine.difference_update(gone)
            hashes = [name_of(each) for each in gone]
            apply(owner, {"removed": {"block_hashes": hashes}}, {"removed": {"block_hashes": [str(value) for value in hashes]}})
        elif kind < 0.68:
            mine.clear()
            apply(owner, "cleared", {"cleared": True})
        elif kind < 0.7:
            tree.remove_worker(owner[0])
            steps.append({"op": "remove_worker", "worker_id": owner[0]})
            for other in owners:
                if other[0] == owner[0]:
                    held[other].clear()
        else:
            everything = sorted(set().union(*held.values()))
            base = list(dice.choice(everything)) if everything and dice.random() < 0.8 else []
            sequence = [*base, *(dice.choice(contents) for _ in range(dice.randrange(3)))]
            scores = tree.find_matches(sequence, False).scores
            steps.append({"op": "find", "sequence": [str(value) for value in sequence], "early_exit": False, "expect": [
                {"worker_id": worker, "dp_rank": rank, "score": score} for (worker, rank), score in sorted(scores.items())]})
    return {"class": "wellformed", "steps": steps, "expect_dump_block_counts": {f"{worker}:{rank}": len(paths) for (worker, rank), paths in held.items() if paths}}


def slots_case(dice, number):
    model, block_size = f"fresh-{SEED}-{number}", dice.choice([1, 4, 16])
    steps, requests, workers = [], [], []

    def step(method, path, body=None):
        status, response = call(SLOT_PORT, method, path, body)
        steps.append({"method": method, "path": path, "status": status, "response": response, **({} if body is None else {"request": body})})

    chain = [dice.getrandbits(63) - 2**62 for _ in range(12)]
    for made in range(dice.randrange(8, 45)):
        kind = dice.random()
        place = {"model_name": model}
        if kind < 0.12 or not workers:
            worker = dice.choice(WORKER_IDS)
            workers.append(worker)
            step("POST", "/register", {"worker_id": worker, **place, "block_size": dice.choice([block_size] * 6 + [block_size + 1, 0]), "dp_start": dice.choice([0, 0, 3]), "dp_size": dice.choice([1, 1, 2, 4, 0])})
        elif kind < 0.45:
            sequence = [*chain[:dice.randrange(len(chain))], *(dice.getrandbits(63) - 2**62 for _ in range(dice.randrange(4)))]
            request = f"r{dice.choice([made, made, made, max(0, made - 3)])}"
            requests.append(request)
            step("POST", "/add", {**place, "request_id": request, "worker_id": dice.choice([*workers, 42]), "dp_rank": dice.choice([0, 0, 1, 3]), "sequence_hashes": sequence, "new_isl_tokens": dice.randrange(200)})
        elif kind < 0.65:
            step("POST", dice.choice(["/prefill_complete", "/free"]), {**place, "request_id": dice.choice([*requests, "nobody"])})
        elif kind < 0.68:
            step("POST", "/unregister", {**place, "worker_id": dice.choice(workers)})
        elif kind < 0.85:
            step("POST", "/potential_loads", {**place, "sequence_hashes": chain[:dice.randrange(len(chain))], "new_isl_tokens": dice.randrange(100)})
        else:
            step("GET", f"/loads?model_name={model}")
    return {"class": "fresh", "model": model, "block_size": block_size, "steps": steps}


dice = random.Random(SEED)
write("hashing", list(hashing(dice)))
write("tracking_hash", [*tracking(dice, PUBLIC_PORT, "public-xxh3-v1", None, None), *tracking(dice, KEYED_PORT, "keyed-xxh3-v1", KEY_HEX, KEY_ID)])
write("radix_tree", [radix_case(dice) for _ in range(COUNT)])
write("slots", [slots_case(dice, number) for number in range(COUNT)])
