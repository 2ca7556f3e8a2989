/** What every discovery backend must do; each backend's test runs all of it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Bucket, Discovery, DiscoveryEvent, JsonObject } from '../src/ports.ts'
import { until } from './until.ts'

/** A store of its own, and handles on it that are processes of their own to each other. */
export interface DiscoveryStore {
  open(): Promise<Discovery>
  /** Puts bytes that no process of ours would write. Left out by a backend that cannot hold them. */
  readonly putRaw?: (bucket: Bucket, key: string, text: string) => Promise<void>
  /** Ends all handles and the store. */
  close(): Promise<void>
}

export interface ContractOptions {
  readonly name: string
  readonly skip: string | false
  /** The store keeps any text, not only records. */
  readonly holdsAnyText: boolean
  readonly createStore: () => Promise<DiscoveryStore>
  /** The largest integer that the store keeps whole; left out: any u64. */
  readonly integerMax?: bigint
  /** Everything is followed from the start on, so a watch may begin before a record of another process has come here. */
  readonly followsFromStart?: boolean
}

const bucket: Bucket = 'v1/instances'
const never = new AbortController().signal
const anyBig = 13_428_561_255_892_356_228n

/** Starts a handle. */
export async function started(discovery: Discovery): Promise<Discovery> {
  await discovery.start(never)
  return discovery
}

/** Keeps what a watch told. */
export class Recorder {
  readonly events: DiscoveryEvent[] = []
  readonly listener = (event: DiscoveryEvent): void => void this.events.push(event)

  /** `put KEY`, `delete KEY` or `synced`, in order. */
  get lines(): string[] {
    return this.events.map((event) => (event.kind === 'synced' ? 'synced' : `${event.kind} ${event.key}`))
  }

  last(key: string): JsonObject | undefined {
    const event = this.events.findLast((event) => event.kind === 'put' && event.key === key)
    return event?.kind === 'put' ? event.value : undefined
  }
}

export function discoveryContract(options: ContractOptions): void {
  const big = options.integerMax ?? anyBig
  const contract = (what: string, body: (store: DiscoveryStore) => Promise<void>): void => {
    test(`${options.name}: ${what}`, { skip: options.skip }, async () => {
      const store = await options.createStore()
      try {
        await body(store)
      } finally {
        await store.close()
      }
    })
  }

  contract('the instance id is there after start only, and differs between processes', async (store) => {
    const [first, second] = [await store.open(), await store.open()]
    assert.throws(() => first.instanceId, /start/)
    await started(first)
    await started(second)
    assert.equal(typeof first.instanceId, 'bigint')
    assert.notEqual(first.instanceId, second.instanceId)
    assert.ok(first.instanceId > 0n && first.instanceId < 2n ** 64n)
  })

  contract('start rejects when aborted', async (store) => {
    await assert.rejects((await store.open()).start(AbortSignal.abort(new Error('not wanted'))), /not wanted/)
  })

  contract('list gives the records under whole parts of a prefix, integers kept whole', async (store) => {
    const discovery = await started(await store.open())
    await discovery.put(bucket, 'ns/comp/ep/1', { id: big })
    await discovery.put(bucket, 'ns/comp2/ep/1', { id: 2 })
    await discovery.put('v1/mdc', 'ns/comp/ep/1', { id: 3 })
    assert.deepEqual([...(await discovery.list(bucket, 'ns/comp'))], [['ns/comp/ep/1', { id: big }]])
    assert.deepEqual([...(await discovery.list(bucket, 'ns/comp/ep/1'))], [['ns/comp/ep/1', { id: big }]])
    assert.deepEqual([...(await discovery.list(bucket, '')).keys()].sort(), ['ns/comp/ep/1', 'ns/comp2/ep/1'])
    assert.equal((await discovery.list(bucket, 'ns/com')).size, 0)
  })

  contract('a watch tells standing records, then synced, then create, replace and delete of another process', async (store) => {
    const [owner, reader] = [await started(await store.open()), await started(await store.open())]
    await owner.put(bucket, 'ns/comp/ep/1', { n: 1 })
    await owner.put(bucket, 'ns/other/ep/1', { n: 1 })
    if (options.followsFromStart === true) {
      const early = new Recorder()
      const watch = reader.watch(bucket, 'ns', early.listener)
      await until('the records are here', () => early.lines.filter((line) => line.startsWith('put')).length === 2)
      watch.close()
    }
    const seen = new Recorder()
    reader.watch(bucket, 'ns/comp/ep', seen.listener)
    assert.deepEqual(seen.lines, [], 'nothing is delivered before watch returns')
    await until('synced', () => seen.lines.includes('synced'))
    assert.deepEqual(seen.lines, ['put ns/comp/ep/1', 'synced'])
    await owner.put(bucket, 'ns/comp/ep/2', { n: big })
    await until('created', () => seen.last('ns/comp/ep/2')?.['n'] === big)
    await owner.put(bucket, 'ns/comp/ep/1', { n: 3 })
    await until('replaced', () => seen.last('ns/comp/ep/1')?.['n'] === 3)
    await owner.remove(bucket, 'ns/comp/ep/1')
    await until('deleted', () => seen.lines.includes('delete ns/comp/ep/1'))
    assert.deepEqual(seen.lines.slice(2), ['put ns/comp/ep/2', 'put ns/comp/ep/1', 'delete ns/comp/ep/1'])
  })

  contract('a watch of an empty place is synced, and an empty prefix watches the bucket', async (store) => {
    const discovery = await started(await store.open())
    const seen = new Recorder()
    discovery.watch('v1/event_sources', '', seen.listener)
    await until('synced', () => seen.lines.length === 1)
    await discovery.put('v1/event_sources', 'namespace/a%2Eb/topic/kv-events/1', { n: 1 })
    await until('own record seen', () => seen.lines.length === 2)
    assert.deepEqual(seen.lines, ['synced', 'put namespace/a%2Eb/topic/kv-events/1'])
  })

  contract('a closed watch is silent while another on the same place goes on', async (store) => {
    const discovery = await started(await store.open())
    const [closed, open] = [new Recorder(), new Recorder()]
    const watch = discovery.watch(bucket, 'ns', closed.listener)
    discovery.watch(bucket, 'ns', open.listener)
    await until('both synced', () => closed.lines.length === 1 && open.lines.length === 1)
    watch.close()
    watch.close()
    await discovery.put(bucket, 'ns/c/e/1', { n: 1 })
    await until('seen by the other', () => open.lines.length === 2)
    assert.deepEqual(closed.lines, ['synced'])
  })

  contract('a listener that throws or puts disturbs no one', async (store) => {
    const discovery = await started(await store.open())
    const seen = new Recorder()
    let puts = 0
    let depth = 0
    discovery.watch(bucket, '', (event) => {
      depth += 1
      assert.equal(depth, 1, 'never two calls at once')
      if (event.kind === 'put' && puts < 2) void discovery.put(bucket, `ns/c/e/${(puts += 1)}a`, { n: puts })
      depth -= 1
      throw new Error('of the listener')
    })
    discovery.watch(bucket, '', seen.listener)
    await discovery.put(bucket, 'ns/c/e/0', { n: 0 })
    await until('all three', () => seen.lines.filter((line) => line !== 'synced').length === 3)
    assert.deepEqual(seen.lines.filter((line) => line !== 'synced'), ['put ns/c/e/0', 'put ns/c/e/1a', 'put ns/c/e/2a'])
  })

  contract('a record of another process is not replaced, and not removed', async (store) => {
    const [owner, other] = [await started(await store.open()), await started(await store.open())]
    await owner.put(bucket, 'ns/c/e/1', { by: 'owner' })
    await assert.rejects(other.put(bucket, 'ns/c/e/1', { by: 'other' }), /another process/)
    await other.remove(bucket, 'ns/c/e/1')
    assert.deepEqual([...(await other.list(bucket, ''))], [['ns/c/e/1', { by: 'owner' }]])
    await other.put(bucket, 'ns/c/e/2', { by: 'other' })
  })

  contract('close removes the own records, and only those', async (store) => {
    const [leaver, stayer] = [await started(await store.open()), await started(await store.open())]
    await leaver.put(bucket, 'ns/c/e/1', { n: 1 })
    await leaver.put('v1/mdc', 'ns/c/e/1', { n: 1 })
    await stayer.put(bucket, 'ns/c/e/2', { n: 2 })
    const seen = new Recorder()
    stayer.watch(bucket, '', seen.listener)
    // A record that has not come here yet cannot be seen to go.
    await until('both are here', () => [1, 2].every((id) => seen.lines.includes(`put ns/c/e/${id}`)))
    await leaver.close(2_000)
    await until('left', () => seen.lines.includes('delete ns/c/e/1'))
    assert.deepEqual([...(await stayer.list(bucket, '')).keys()], ['ns/c/e/2'])
    assert.equal((await stayer.list('v1/mdc', '')).size, 0)
    await assert.rejects(leaver.put(bucket, 'ns/c/e/3', { n: 1 }), /closed/)
  })

  contract('keys with every kind of byte survive', async (store) => {
    const discovery = await started(await store.open())
    const keys = ['namespace/a%2Eb/component/c_d/topic/kv-events/f', 'ns/é-.~ %/ep/1', 'ns/c/e/1/lora adapter']
    for (const key of keys) await discovery.put('v1/event_channels', key, { key })
    const found = await discovery.list('v1/event_channels', '')
    assert.deepEqual([...found.keys()].sort(), [...keys].sort())
    for (const key of keys) assert.deepEqual(found.get(key), { key })
  })

  if (options.holdsAnyText) contract('a record that cannot be read is skipped, and a known good value is kept', async (store) => {
    assert.ok(store.putRaw)
    const reader = await started(await store.open())
    const seen = new Recorder()
    await store.putRaw(bucket, 'ns/c/e/1', '{"n":')
    await store.putRaw(bucket, 'ns/c/e/2', '{"n":2}')
    await store.putRaw(bucket, 'ns/c/e/3', '[1]')
    reader.watch(bucket, '', seen.listener)
    await until('synced', () => seen.lines.includes('synced'))
    assert.deepEqual(seen.lines, ['put ns/c/e/2', 'synced'])
    assert.deepEqual([...(await reader.list(bucket, '')).keys()], ['ns/c/e/2'])
    await store.putRaw(bucket, 'ns/c/e/2', 'nonsense')
    await store.putRaw(bucket, 'ns/c/e/1', '{"n":1}')
    await until('mended', () => seen.last('ns/c/e/1')?.['n'] === 1)
    assert.deepEqual(seen.lines, ['put ns/c/e/2', 'synced', 'put ns/c/e/1'])
  })
}
