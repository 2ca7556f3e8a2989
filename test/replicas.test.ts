/** Goal: routers over the same workers see each other's load, sessions and index. Method: routers in one process, an event plane in memory. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import type { AssembledRouter } from '../src/cli/assemble-router.ts'
import { channelRecord, eventKey } from '../src/dynamo/event-plane/event-keys.ts'
import { decodeActiveSequences } from '../src/dynamo/wire/active-sequences.ts'
import type { WireValue } from '../src/dynamo/wire/body.ts'
import { encodeData } from '../src/dynamo/wire/items.ts'
import type { Discovery, EventEnvelope, EventPlane, EventPublisher, EventScope, RequestHandler } from '../src/ports.ts'
import { SmallDeployment } from './standalone-kit.ts'
import { until } from './until.ts'

/** Delivers at once to everybody; `lose` says what is lost. */
class Bus {
  lose: (topic: string) => boolean = () => false
  readonly payloads: { topic: string; payload: Uint8Array }[] = []
  readonly #listeners = new Map<string, Set<(envelope: EventEnvelope) => void>>()
  #publishers = 0n

  plane(discovery: Discovery): EventPlane {
    const placeOf = (scope: EventScope, topic: string): Set<(envelope: EventEnvelope) => void> => {
      const key = `${scope.namespace}/${scope.component}/${scope.endpoint}/${topic}`
      const place = this.#listeners.get(key) ?? new Set()
      this.#listeners.set(key, place)
      return place
    }
    return {
      kind: 'zmq',
      subscribe: (scope, topic, listener) => {
        placeOf(scope, topic).add(listener)
        return { close: () => void placeOf(scope, topic).delete(listener) }
      },
      publisher: async (scope, topic): Promise<EventPublisher> => {
        this.#publishers += 1n
        const publisherId = this.#publishers
        let sequence = 0n
        const key = eventKey(scope, topic, publisherId)
        await discovery.put('v1/event_channels', key, channelRecord({ ...scope, component: scope.component ?? '', endpoint: scope.endpoint ?? '' }, topic, publisherId, { kind: 'Memory' }))
        return {
          publisherId,
          publish: (payload) => {
            this.payloads.push({ topic, payload })
            const envelope = { publisherId, sequence: sequence++, publishedAtMs: 0, topic, payload }
            if (!this.lose(topic)) for (const listener of placeOf(scope, topic)) listener(envelope)
          },
          close: () => discovery.remove('v1/event_channels', key),
        }
      },
      close: () => Promise.resolve(),
    }
  }
}

let small: SmallDeployment
let bus: Bus
beforeEach(() => { small = new SmallDeployment(); bus = new Bus() })
afterEach(() => small.close())

const ask = (more: { readonly [key: string]: WireValue } = {}): WireValue => ({ token_ids: Array.from({ length: 40 }, (_, index) => index), ...more })
const router = (component: string, ...argv: string[]): Promise<AssembledRouter> => small.router(['--component', component, ...argv], {}, (discovery) => bus.plane(discovery))
const requestsOf = ({ service }: AssembledRouter): number[] => (service.workers.router?.loads() ?? []).map(({ activeRequests }) => activeRequests)
const shows = (assembled: AssembledRouter, requests: readonly number[]): Promise<true> =>
  until(`loads are ${requests.join()}`, () => requestsOf(assembled).join() === requests.join())

/** Answers when it is let go. */
function holding(): { handler: RequestHandler; letGo(): Promise<void> } {
  const waiting: (() => void)[] = []
  return {
    handler: (request, response) => {
      response.writeItem(encodeData({ token_ids: [7] }, request.codec))
      waiting.push(() => { response.writeItem(encodeData({ token_ids: [8], finish_reason: 'length' }, request.codec)); response.end() })
    },
    // A booking shows before its request has reached the worker.
    letGo: async () => {
      await until('a request is held', () => waiting.length > 0)
      for (const each of waiting.splice(0)) each()
    },
  }
}

test('load of one router is load of the other, of one that comes later too, and ends with its request or its router', async () => {
  const { handler, letGo } = holding()
  await small.worker(handler)
  const [a, b] = [await router('a', '--router-replica-sync'), await router('b', '--router-replica-sync')]
  const first = small.call('dynamo.a.generate', ask())
  await shows(b, [1])
  await until('the prompt is done there, too', () => b.service.workers.router?.loads()[0]?.activePrefillTokens === 0)
  assert.equal(b.service.workers.router?.loads()[0]?.activeDecodeBlocks, 2)
  const c = await router('c', '--router-replica-sync')
  await shows(c, [1])
  assert.match(await c.metrics.text(), /warmpath_replica_states_total\{step="applied"\} 1/)
  await letGo()
  await first
  await shows(b, [0])
  await shows(c, [0])
  // Messages that were lost are missed with the next ones.
  bus.lose = (topic) => topic === 'active_sequences_events'
  const second = small.call('dynamo.a.generate', ask())
  await shows(a, [1])
  bus.lose = () => false
  await shows(b, [1])
  void second.catch(() => {})
  const gone = a.service.drain()
  await letGo()
  await gone
  await shows(b, [0])
  await shows(c, [0])
  const adds = bus.payloads.filter(({ topic }) => topic === 'active_sequences_events').flatMap(({ payload }) => decodeActiveSequences(payload)).filter(({ data }) => data.kind === 'add_request')
  assert.equal(adds.length, 2, 'nobody repeats what others say')
})

test('without the option nothing is shared', async () => {
  const { handler, letGo } = holding()
  await small.worker(handler)
  const [a, b] = [await router('a', '--router-replica-sync'), await router('b')]
  const answer = small.call('dynamo.a.generate', ask())
  await shows(a, [1])
  assert.deepEqual(requestsOf(b), [0])
  await letGo()
  await answer
})

test('a session that one router has bound is bound for the other', async () => {
  const answers: RequestHandler = (request, response) => { response.writeItem(encodeData({ token_ids: [7], finish_reason: 'length' }, request.codec)); response.end() }
  const workers = [await small.worker(answers), await small.worker(answers), await small.worker(answers)]
  const flags = ['--router-replica-sync', '--router-session-affinity-ttl-secs', '60', '--no-router-kv-events', '--router-kv-overlap-score-credit', '0']
  const [a, b] = [await router('a', ...flags), await router('b', ...flags)]
  await until('both know all workers', () => [a, b].every(({ service }) => service.workers.router?.workerCount === 3))
  await small.call('dynamo.a.generate', ask({ agent_context: { session_id: 's' } }))
  await until('the binding is known', () => b.service.workers.affinity?.table.size === 1)
  for (let round = 0; round < 6; round += 1) await small.call(`dynamo.${round % 2 === 0 ? 'b' : 'a'}.generate`, ask({ agent_context: { session_id: 's' } }))
  assert.deepEqual(workers.map(({ seen }) => seen.length).sort(), [0, 0, 7])
})

test('one index for two routers, by what both route; without it requests go by load alone', async () => {
  const answers: RequestHandler = (request, response) => { response.writeItem(encodeData({ token_ids: [7], finish_reason: 'length' }, request.codec)); response.end() }
  const workers = [await small.worker(answers), await small.worker(answers), await small.worker(answers)]
  const a = await router('a', '--no-router-kv-events', '--serve-indexer')
  const b = await router('b', '--no-router-kv-events', '--use-remote-indexer')
  await until('all workers are known', () => b.service.workers.router?.workerCount === 3)
  const blocks = async (component: string): Promise<number[]> => {
    const [scores] = await small.call(`dynamo.${component}.get_overlap_scores`, ask()) as [{ workers: { device_blocks: number }[] }]
    return scores.workers.map((row) => row.device_blocks).sort()
  }
  await small.call('dynamo.b.generate', ask())
  await until('the index has the prompt', async () => (await blocks('b')).join() === '0,0,2')
  assert.deepEqual(await blocks('a'), [0, 0, 2])
  for (let round = 0; round < 5; round += 1) await small.call(`dynamo.${round % 2 === 0 ? 'b' : 'a'}.generate`, ask())
  assert.deepEqual(workers.map(({ seen }) => seen.length).sort(), [0, 0, 6])
  await a.service.drain()
  await small.call('dynamo.b.generate', ask())
  assert.match(await b.metrics.text(), /router_remote_indexer_query_failures_total\{[^}]*\} [1-9]/)
  assert.ok(small.lines.some((line) => line.includes('remote index not asked')))
})
