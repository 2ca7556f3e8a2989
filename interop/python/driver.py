#!/usr/bin/env python3
"""A real Dynamo client driven over standard input and output, one JSON document per line.

in:  {"op": "call", "n": 1, "endpoint": "ns.comp.ep", "payload": any, "context_id"?: str, "metadata"?: {}, "instance"?: int,
      "cancel_after"?: outputs, "drop_after"?: outputs, "annotated"?: bool, "timeout"?: seconds, "quiet"?: bool}
     {"op": "instances", "n": 2, "endpoint": "ns.comp.ep"} | {"op": "quit"}
out: {"n": 1, "event": "output", "output": any, "dt": s} (left out when quiet), then
     {"n": 1, "event": "end", "outputs": count, "error"?: {"type", "message"}, "elapsed": s}
Calls run side by side.
"""
import asyncio, json, os, sys, time
import uvloop
from dynamo.common.utils.runtime import create_runtime
from dynamo.runtime import Context

lock = asyncio.Lock()


def say(document):
    sys.stdout.write(json.dumps(document, default=lambda o: {"$bytes": o.hex()} if isinstance(o, (bytes, bytearray)) else repr(o)) + "\n")
    sys.stdout.flush()


async def client_of(runtime, clients, endpoint):
    async with lock:
        if endpoint not in clients:
            clients[endpoint] = await runtime.endpoint(endpoint).client()
        return clients[endpoint]


async def call(runtime, clients, request):
    n, started, count = request["n"], time.time(), 0
    result = {"n": n, "event": "end"}
    try:
        client = await client_of(runtime, clients, request["endpoint"])
        await asyncio.wait_for(client.wait_for_instances(), request.get("wait", 15))
        named = "context_id" in request or "metadata" in request
        context = Context(request.get("context_id"), request.get("metadata")) if named or "cancel_after" in request else None
        options = {"annotated": request.get("annotated", False)}
        if context is not None:
            options["context"] = context

        async def run():
            nonlocal count
            if "instance" in request:
                stream = await client.direct(request["payload"], request["instance"], **options)
            else:
                stream = await client.round_robin(request["payload"], **options)
            async for output in stream:
                if hasattr(output, "data"):
                    output = {"data": output.data(), "event": output.event() if hasattr(output, "event") else None}
                count += 1
                if not request.get("quiet"):
                    say({"n": n, "event": "output", "output": output, "dt": round(time.time() - started, 4)})
                if request.get("cancel_after") == count:
                    context.stop_generating()
                if request.get("drop_after") == count:
                    result["dropped"] = True
                    break
        await asyncio.wait_for(run(), request.get("timeout", 20))
    except BaseException as error:
        result["error"] = {"type": type(error).__name__, "message": str(error)}
    result.update(outputs=count, elapsed=round(time.time() - started, 4))
    say(result)


async def main():
    runtime, _ = create_runtime(os.environ["DYN_DISCOVERY_BACKEND"], os.environ["DYN_REQUEST_PLANE"], os.environ.get("DYN_EVENT_PLANE"))
    clients, tasks = {}, set()
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say({"event": "ready"})
    while line := await reader.readline():
        request = json.loads(line)
        if request["op"] == "quit":
            break
        if request["op"] == "instances":
            client = await client_of(runtime, clients, request["endpoint"])
            say({"n": request["n"], "event": "end", "instances": list(client.instance_ids())})
            continue
        task = asyncio.create_task(call(runtime, clients, request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in list(tasks):
        task.cancel()
    os._exit(0)


uvloop.run(main())
