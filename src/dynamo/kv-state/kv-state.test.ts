/** Goal: worker publisher and router follower agree, over real sockets. Method: memory discovery, ZMQ and TCP on loopback. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { TestContext } from 'node:test'
import { rememberingLog, systemClock } from '../../../test/discovery-kit.ts'
import { hashListOf, hashesToBigints } from '../../model/hash-list.ts'
import type { RouterEvent } from '../../model/kv-event.ts'
import type { WorkerRank } from '../../model/worker.ts'
import type { Codec, EventEnvelope, EventPlane } from '../../ports.ts'
import { systemRandom } from '../../system-ports.ts'
import { MemoryDiscovery, MemoryStore } from '../discovery/memory-discovery.ts'
import { componentScope } from '../event-plane/event-keys.ts'
import { createZmqEventPlane } from '../event-plane/zmq-event-plane.ts'
import { createTcpRequestClient } from '../request-plane/tcp-client.ts'
import { createTcpRequestServer } from '../request-plane/tcp-server.ts'
import { encodeKvEvent } from '../wire/kv-events.ts'
import { createKvEventPublisher } from './kv-event-publisher.ts'
import type { KvEventPublisher } from './kv-event-publisher.ts'
import type { KvChange } from './kv-event-log.ts'
import { createKvStateFollower } from './kv-state-follower.ts'
import type { KvStateFollower, KvStateLimits } from './kv-state-follower.ts'
import { until } from '../../../test/until.ts'

const endpoint = { namespace: 'dyn', component: 'backend', endpoint: 'generate' }
const signal = () => AbortSignal.timeout(5000)

/** Blocks and mode per rank, as a router would hold them. */
class Sink {
  readonly blocks = new Map<string, Set<bigint>>()
  readonly modes = new Map<string, string>()
  blocksOf(rank: WorkerRank): Set<bigint> {
    const key = `${rank.workerId}/${rank.dpRank}`
    let blocks = this.blocks.get(key)
    if (blocks === undefined) this.blocks.set(key, (blocks = new Set()))
    return blocks
  }
  applyEvent(event: RouterEvent): 'ok' {
    const blocks = this.blocksOf(event)
    if (event.data.kind === 'cleared') blocks.clear()
    else for (const hash of hashesToBigints(event.data.blockHashes)) {
      if (event.data.kind === 'stored') blocks.add(hash)
      else blocks.delete(hash)
    }
    return 'ok'
  }
  resetRank(rank: WorkerRank): void {
    this.blocksOf(rank).clear()
  }
  setIndexMode(rank: WorkerRank, mode: string): void {
    this.modes.set(`${rank.workerId}/${rank.dpRank}`, mode)
  }
}

async function machines(t: TestContext) {
  const log = rememberingLog()
  const store = new MemoryStore(log)
  const machine = async (workerId?: bigint) => {
    const discovery = workerId === undefined ? new MemoryDiscovery(store) : new MemoryDiscovery(store, workerId)
    await discovery.start(signal())
    const plane = createZmqEventPlane({ discovery, clock: systemClock, random: systemRandom(), log })
    t.after(() => plane.close())
    return { discovery, plane }
  }
  const worker = async (workerId: bigint, codec: Codec = 'msgpack') => {
    const { discovery, plane } = await machine(workerId)
    const server = createTcpRequestServer({ clock: systemClock, log, host: '127.0.0.1' })
    await server.start(signal())
    t.after(() => server.close())
    const publisher = (dpRank = 0, canRecover = true, ringMax = 1024) =>
      createKvEventPublisher({ plane, discovery, log, endpoint, rank: { workerId, dpRank }, server: canRecover ? server : null, codec, ringMax })
    return { discovery, plane, publisher, closePort: () => server.close() }
  }
  const router = async (limits: Partial<KvStateLimits> = {}, isLost: (envelope: EventEnvelope) => boolean = () => false) => {
    const { discovery, plane } = await machine()
    const client = createTcpRequestClient({ clock: systemClock, log, host: '127.0.0.1' })
    await client.start(signal())
    t.after(() => client.close())
    const resumed: (() => void)[] = []
    const lossy: EventPlane = {
      kind: plane.kind, publisher: plane.publisher, close: plane.close,
      subscribe: (scope, topic, listener, onResumed) => {
        if (onResumed !== undefined) resumed.push(onResumed)
        return plane.subscribe(scope, topic, (envelope) => { if (!isLost(envelope)) listener(envelope) })
      },
    }
    const sink = new Sink()
    const follower = createKvStateFollower({
      endpoint, discovery, plane: lossy, client, clock: systemClock, random: systemRandom(), log, sink,
      limits: { quietMs: 100, backoffMs: 10, ...limits },
    })
    t.after(() => follower.close())
    follower.start()
    return { follower, sink, plane, resume: () => resumed.forEach((tell) => tell()) }
  }
  return { log, worker, router }
}

const describe = (workerId: bigint, dpSize = 1, publishesKvEvents: boolean | null = null) => ({
  workerId, dpStart: 0, dpSize, totalKvBlocks: null, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map(), publishesKvEvents,
})

function stored(...blocks: number[]): KvChange {
  const hashes = hashListOf(blocks.map(BigInt))
  return { storageTier: 'device', data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes: hashes, tokensHashes: hashes, mmInfos: null } }
}
const removed = (...blocks: number[]): KvChange => ({ storageTier: 'device', data: { kind: 'removed', blockHashes: hashListOf(blocks.map(BigInt)) } })

const holds = (sink: Sink, rank: WorkerRank, ...blocks: number[]) => () =>
  [...sink.blocksOf(rank)].sort((a, b) => Number(a - b)).join() === blocks.join()

const nextSequence = (publisher: KvEventPublisher): bigint => BigInt(publisher.stats.batches)

/** Publishes until the subscription carries: the first messages of a fresh connection may be lost. Then nothing is on its way. */
async function carry(publisher: KvEventPublisher, follower: KvStateFollower, sink: Sink, rank: WorkerRank, block: number): Promise<void> {
  const marker = 1_000_000
  const knows = (each: number): boolean => sink.blocksOf(rank).has(BigInt(each))
  // The block may come with the first dump; what is published after that comes over the subscription.
  await until('the source is known', () => knows(block), 30_000, () => publisher.publish([stored(block)]))
  await until('events flow', () => knows(marker), 30_000, () => publisher.publish([stored(marker)]))
  publisher.publish([removed(marker)])
  await until('all that was published is known', () => {
    const { buffered, queuedBatches, recoveries } = follower.stats()
    return !knows(marker) && buffered + queuedBatches + recoveries.running + recoveries.waiting === 0
  })
}

for (const codec of ['msgpack', 'json'] as const) {
  test(`a router that starts late learns what the worker holds (${codec})`, async (t) => {
    const { worker, router } = await machines(t)
    const rank = { workerId: 7n, dpRank: 0 }
    const publisher = await (await worker(7n, codec)).publisher()
    publisher.publish([stored(1, 2), stored(3), removed(3)])
    const { follower, sink } = await router()
    follower.upsertWorker(describe(7n))
    await until('the dump was applied', holds(sink, rank, 1, 2))
    publisher.publish([stored(4)])
    await until('a later event, live or asked for', holds(sink, rank, 1, 2, 4))
    const { recoveries, sources, applied, dropped } = follower.stats()
    assert.equal(sources, 1)
    assert.equal(recoveries.failed + recoveries.attemptsFailed, 0)
    assert.ok(applied.stored.ok >= 2)
    assert.equal(dropped.malformed + dropped.foreign_rank, 0)
    assert.equal(publisher.stats.refusals, 0)
  })
}

test('a dropped batch is fetched from the worker with the next one', async (t) => {
  const { worker, router } = await machines(t)
  const rank = { workerId: 7n, dpRank: 0 }
  const publisher = await (await worker(7n)).publisher()
  const lost = new Set<bigint>()
  const { follower, sink } = await router({ quietMs: 1_000_000 }, ({ sequence }) => lost.has(sequence))
  follower.upsertWorker(describe(7n))
  await carry(publisher, follower, sink, rank, 1)
  const { gaps } = follower.stats().cursor
  lost.add(nextSequence(publisher))
  publisher.publish([stored(2), removed(1)])
  publisher.publish([stored(3)])
  await until('the gap is closed', holds(sink, rank, 2, 3))
  assert.equal(follower.stats().cursor.gaps, gaps + 1)
  assert.ok(publisher.stats.replays > 0)
})

test('a dropped batch is fetched from the worker, also when nothing follows it', async (t) => {
  const { worker, router } = await machines(t)
  const rank = { workerId: 7n, dpRank: 0 }
  const publisher = await (await worker(7n)).publisher()
  const lost = new Set<bigint>()
  const { follower, sink } = await router({}, ({ sequence }) => lost.has(sequence))
  follower.upsertWorker(describe(7n))
  await carry(publisher, follower, sink, rank, 1)
  const { gaps } = follower.stats().cursor
  lost.add(nextSequence(publisher))
  publisher.publish([stored(4)])
  await until('the tail was asked for', holds(sink, rank, 1, 4))
  assert.equal(follower.stats().cursor.gaps, gaps)
  assert.ok(publisher.stats.replays > 0)
})

test('an answer with less in the cache than expected has the source asked at once, and so has a plane that is back', async (t) => {
  const { worker, router } = await machines(t)
  const rank = { workerId: 7n, dpRank: 0 }
  const publisher = await (await worker(7n)).publisher()
  const lost = new Set<bigint>()
  // A first quiet check that never comes due.
  const { follower, sink, resume } = await router({ quietMs: 1_000_000 }, ({ sequence }) => lost.has(sequence))
  follower.upsertWorker(describe(7n))
  await carry(publisher, follower, sink, rank, 1)
  const lose = (change: KvChange): void => {
    lost.add(nextSequence(publisher))
    publisher.publish([change])
  }
  lose(removed(1))
  follower.reused(rank, { expectedTokens: 64, reportedTokens: 64, blockSize: 16 })
  assert.deepEqual(follower.stats().shortfalls, { tail: 0, dump: 0, lose: 0 })
  assert.ok(holds(sink, rank, 1)(), 'nobody has heard of it')
  await until('no other question runs', () => {
    follower.reused(rank, { expectedTokens: 64, reportedTokens: 0, blockSize: 16 })
    return follower.stats().shortfalls.tail === 1
  })
  assert.deepEqual(follower.stats().shortfalls, { tail: 1, dump: 0, lose: 0 })
  await until('the lost event was asked for', holds(sink, rank), 5000)
  lose(stored(9))
  resume()
  await until('the plane is back: the lost event was asked for', holds(sink, rank, 9), 5000)
})

test('a live-only source whose worker finds nothing of what is expected loses its blocks', async (t) => {
  const { worker, router } = await machines(t)
  const rank = { workerId: 7n, dpRank: 0 }
  const publisher = await (await worker(7n)).publisher(0, false)
  const { follower, sink } = await router()
  follower.upsertWorker(describe(7n))
  await carry(publisher, follower, sink, rank, 1)
  for (const reportedTokens of [64, 0, 0]) follower.reused(rank, { expectedTokens: 64, reportedTokens, blockSize: 16 })
  assert.ok(holds(sink, rank, 1)())
  follower.reused(rank, { expectedTokens: 64, reportedTokens: 0, blockSize: 16 })
  assert.ok(holds(sink, rank)())
  assert.equal(follower.stats().shortfalls.lose, 1)
  publisher.publish([stored(2)])
  await until('what comes next counts', () => sink.blocksOf(rank).has(2n))
})

test('a restarted source begins anew; a vanished one loses its blocks', async (t) => {
  const { worker, router } = await machines(t)
  const rank = { workerId: 7n, dpRank: 0 }
  const { publisher } = await worker(7n)
  const { follower, sink } = await router({ graceMs: 1500 })
  follower.upsertWorker(describe(7n))
  const first = await publisher()
  await carry(first, follower, sink, rank, 1)
  const second = await publisher()
  second.publish([stored(8)])
  await until('two sources are ambiguous', () => follower.stats().ambiguousRanks === 1)
  first.publish([stored(2)])
  await until('ignored', () => follower.stats().dropped.ambiguous_source > 0, 5000, () => first.publish([stored(3)]))
  assert.ok(holds(sink, rank, 1)(), 'the blocks stay while it is open who is right')
  await first.close()
  await until('cold start from the one that is left', holds(sink, rank, 8))
  await second.close()
  await until('gone', holds(sink, rank))
  await until('approximate', () => sink.modes.get('7/0') === 'approximate')
})

test('a live-only source is followed from its first event on and reset at a gap', async (t) => {
  const { worker, router } = await machines(t)
  const rank = { workerId: 7n, dpRank: 0 }
  const publisher = await (await worker(7n)).publisher(0, false)
  const lost = new Set<bigint>()
  const { follower, sink } = await router({}, ({ sequence }) => lost.has(sequence))
  follower.upsertWorker(describe(7n))
  await carry(publisher, follower, sink, rank, 1)
  publisher.publish([stored(2)])
  await until('live', holds(sink, rank, 1, 2))
  lost.add(nextSequence(publisher))
  publisher.publish([stored(3)])
  publisher.publish([stored(4)])
  await until('reset at the gap', holds(sink, rank, 4))
  assert.equal(follower.stats().recoveries.started, 0)
})

test('ranks of one worker are followed apart; unknown workers wait', async (t) => {
  const { worker, router } = await machines(t)
  const { publisher } = await worker(7n)
  const ranks = await Promise.all([publisher(0), publisher(1)])
  ranks[0].publish([stored(1)])
  ranks[1].publish([stored(2)])
  const { follower, sink } = await router()
  await until('found', () => follower.stats().unexpectedSources === 2)
  assert.equal(sink.blocks.size, 0)
  follower.upsertWorker(describe(7n, 2))
  await until('both', () => holds(sink, { workerId: 7n, dpRank: 0 }, 1)() && holds(sink, { workerId: 7n, dpRank: 1 }, 2)())
  follower.upsertWorker(describe(7n, 1))
  assert.equal(follower.stats().unexpectedSources, 1)
  follower.removeWorker(7n)
  assert.equal(follower.stats().unexpectedSources, 2)
})

test('workers without events are indexed approximately, with one line each, until a source appears', async (t) => {
  const { log, worker, router } = await machines(t)
  const { follower, sink } = await router({ graceMs: 60 })
  follower.upsertWorker(describe(7n, 2))
  follower.upsertWorker(describe(8n, 1, false))
  assert.deepEqual([...sink.modes], [['8/0', 'approximate']])
  await until('after the grace time', () => follower.stats().approximateRanks === 3)
  assert.equal(log.lines.filter((line) => line.message.includes('approximately')).length, 2)
  const publisher = await (await worker(7n)).publisher(0)
  await until('by events', () => sink.modes.get('7/0') === 'events')
  assert.equal(follower.stats().approximateRanks, 2)
  await carry(publisher, follower, sink, { workerId: 7n, dpRank: 0 }, 5)
})

test('a flood beyond the queue drops batches and is made good', async (t) => {
  const { worker, router } = await machines(t)
  const rank = { workerId: 7n, dpRank: 0 }
  const publisher = await (await worker(7n)).publisher(0, true, 64)
  const { follower, sink } = await router({ queuedBatchesMax: 4 })
  follower.upsertWorker(describe(7n))
  await carry(publisher, follower, sink, rank, 1)
  for (let block = 2; block <= 500; block += 1) publisher.publish([stored(block)])
  await until('all there', () => sink.blocksOf(rank).size === 500, 8000)
  assert.ok(follower.stats().dropped.queue_full > 0)
  assert.equal(follower.stats().queuedBatches, 0)
})

test('a worker of an earlier release is followed by what its events say; one that counts anew loses its blocks within moments', async (t) => {
  const { worker, router } = await machines(t)
  const rank = { workerId: 7n, dpRank: 0 }
  const { plane } = await worker(7n)
  const publisher = await plane.publisher(componentScope(endpoint), 'kv-events')
  const { follower, sink } = await router()
  follower.upsertWorker(describe(7n))
  const publish = (eventId: bigint, block: number): void => {
    publisher.publish(encodeKvEvent({ ...rank, residencyDomain: 'absent', eventId, ...stored(block) } as RouterEvent))
  }
  let eventId = 0n
  await until('events flow', () => sink.blocksOf(rank).has(1n), 5000, () => publish((eventId += 1n), 1))
  publish(eventId + 1n, 2)
  await until('both', holds(sink, rank, 1, 2))
  assert.equal(follower.stats().approximateRanks, 0)
  publish(1n, 9)
  await until('the engine was started anew in place', holds(sink, rank, 9), 2000)
  assert.equal(follower.stats().cursor.restarts, 1)
  publish(2n, 10)
  await until('and goes on', holds(sink, rank, 9, 10), 2000)
  follower.removeWorker(7n)
  assert.equal(follower.stats().sources, 0)
})

test('a worker that failed keeps its blocks when it answers, and loses them at once when nobody does', async (t) => {
  const { worker, router } = await machines(t)
  const rank = { workerId: 7n, dpRank: 0 }
  const { publisher: publisherOf, closePort } = await worker(7n)
  const publisher = await publisherOf()
  const { follower, sink } = await router({ quietMs: 0 })
  follower.upsertWorker(describe(7n))
  publisher.publish([stored(1), stored(2)])
  await carry(publisher, follower, sink, rank, 3)
  const { resets } = follower.stats()
  const { started } = follower.stats().recoveries
  follower.doubt(7n, 'failed')
  follower.doubt(7n, 'unreachable')
  await until('it was asked, once', () => follower.stats().recoveries.succeeded === started + 1)
  assert.deepEqual([follower.stats().resets, follower.stats().recoveries.started], [resets, started + 1])
  assert.ok(holds(sink, rank, 1, 2, 3)())
  await closePort()
  follower.doubt(7n, 'disconnected')
  await until('nobody answers', holds(sink, rank), 2000)
})

test('quiet checks that reach nobody cost a worker its blocks', async (t) => {
  const { worker, router } = await machines(t)
  const rank = { workerId: 7n, dpRank: 0 }
  const { publisher: publisherOf, closePort } = await worker(7n)
  const publisher = await publisherOf()
  const { follower, sink } = await router()
  follower.upsertWorker(describe(7n))
  await carry(publisher, follower, sink, rank, 1)
  await closePort()
  await until('gone', holds(sink, rank), 4000)
  assert.equal(follower.stats().sources, 1)
})

test('of a worker that cannot be asked, what it reported goes when nobody listens, what was assumed when a connection ends', async (t) => {
  const { worker, router } = await machines(t)
  const { publisher: publisherOf } = await worker(7n)
  const publisher = await publisherOf(0, false)
  const { follower, sink } = await router()
  follower.upsertWorker(describe(7n))
  follower.upsertWorker(describe(8n, 1, false))
  const [reported, assumed] = [{ workerId: 7n, dpRank: 0 }, { workerId: 8n, dpRank: 0 }]
  await carry(publisher, follower, sink, reported, 1)
  sink.blocksOf(assumed).add(5n)
  for (const workerId of [7n, 8n, 9n]) follower.doubt(workerId, 'failed')
  assert.ok(holds(sink, reported, 1)() && holds(sink, assumed, 5)())
  for (const workerId of [7n, 8n]) follower.doubt(workerId, 'disconnected')
  assert.ok(holds(sink, reported, 1)() && holds(sink, assumed)())
  follower.doubt(7n, 'unreachable')
  assert.ok(holds(sink, reported)())
  publisher.publish([stored(2)])
  await until('it is followed on', () => sink.blocksOf(reported).has(2n))
})
