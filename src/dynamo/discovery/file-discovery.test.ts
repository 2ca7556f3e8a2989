import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, readdir, rename, rm, stat, unlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { TestContext } from 'node:test'
import type { Bucket } from '../../ports.ts'
import { Recorder, discoveryContract, started } from '../../../test/discovery-contract.ts'
import { FakeClock, rememberingLog, systemClock } from '../../../test/discovery-kit.ts'
import { FileDiscovery } from './file-discovery.ts'
import { encodeFileKey } from './file-key.ts'
import { until } from '../../../test/until.ts'

const bucket: Bucket = 'v1/instances'
const newRoot = (): Promise<string> => mkdtemp(join(tmpdir(), 'warmpath-discovery-'))

async function putRaw(root: string, bucket: Bucket, key: string, text: string): Promise<string> {
  await mkdir(join(root, bucket), { recursive: true })
  const path = join(root, bucket, encodeFileKey(key))
  await writeFile(`${join(root, bucket)}/.tmp_raw`, text)
  await rename(`${join(root, bucket)}/.tmp_raw`, path)
  return path
}

discoveryContract({
  name: 'file',
  skip: false,
  holdsAnyText: true,
  createStore: async () => {
    const root = await newRoot()
    const handles: FileDiscovery[] = []
    return {
      open: async () => {
        const handle = new FileDiscovery({ root, clock: systemClock, log: rememberingLog() })
        handles.push(handle)
        return handle
      },
      putRaw: async (bucket, key, text) => void (await putRaw(root, bucket, key, text)),
      close: async () => {
        for (const handle of handles) await handle.close(1_000)
        await rm(root, { recursive: true, force: true })
      },
    }
  },
})

interface Bench {
  readonly root: string
  readonly clock: FakeClock
  readonly log: ReturnType<typeof rememberingLog>
  open(clock?: FakeClock): Promise<FileDiscovery>
}

/** A directory, and processes on it whose time stands still. */
async function bench(context: TestContext): Promise<Bench> {
  const root = await newRoot()
  const [clock, log] = [new FakeClock(), rememberingLog()]
  const handles: FileDiscovery[] = []
  context.after(async () => {
    for (const handle of handles) {
      const closed = handle.close(1_000)
      clock.advance(2_000)
      await closed
    }
    await rm(root, { recursive: true, force: true })
  })
  return {
    root, clock, log,
    open: async (own = clock) => {
      const handle = new FileDiscovery({ root, clock: own, log })
      handles.push(handle)
      await started(handle)
      return handle
    },
  }
}

test('the record of a dead process expires by whoever is there', async (context) => {
  const { root, clock, open } = await bench(context)
  const reader = await open()
  const dead = await putRaw(root, bucket, 'ns/c/e/1', '{"n":1}')
  await writeFile(join(root, bucket, '.tmp_0123456789abcdef'), 'left over')
  await reader.put(bucket, 'ns/c/e/2', { n: 2 })
  const seen = new Recorder()
  reader.watch(bucket, '', seen.listener)
  await until('synced', () => seen.lines.includes('synced'))
  const before = clock.nowMs()
  await until('swept', () => !existsSync(dead), 5_000, () => clock.advance(500))
  assert.ok(clock.nowMs() - before >= 9_000, 'not before the time to live')
  await until('delete told', () => seen.lines.includes('delete ns/c/e/1'), 5_000, () => clock.advance(500))
  await until('only ours is left', async () => (await readdir(join(root, bucket))).length === 1, 5_000, () => clock.advance(500))
  assert.deepEqual([...(await reader.list(bucket, '')).keys()], ['ns/c/e/2'])
})

test('a live record is touched at least every 3.3 s and survives', async (context) => {
  const { root, clock, open } = await bench(context)
  const [owner, other] = [await open(), await open()]
  await owner.put(bucket, 'ns/c/e/1', { n: 1 })
  await other.list(bucket, '')
  const path = join(root, bucket, encodeFileKey('ns/c/e/1'))
  for (let step = 0; step < 20; step += 1) {
    clock.advance(1_700)
    await until('touched', async () => clock.epochMs() - (await stat(path)).mtimeMs < 3_334)
  }
  assert.equal((await other.list(bucket, '')).size, 1)
})

test('an own file that was swept is written again', async (context) => {
  const { root, clock, log, open } = await bench(context)
  const owner = await open()
  await owner.put(bucket, 'ns/c/e/1', { n: 7n })
  const path = join(root, bucket, encodeFileKey('ns/c/e/1'))
  await unlink(path)
  await until('back', () => existsSync(path), 5_000, () => clock.advance(500))
  assert.equal(await readFile(path, 'utf8'), '{"n":7}')
  assert.ok(log.lines.some((line) => line.level === 'warn' && line.message.includes('written again')))
  await owner.remove(bucket, 'ns/c/e/1')
  clock.advance(20_000)
  await owner.list(bucket, '')
  assert.ok(!existsSync(path), 'a removed record does not come back')
})

test('after a stall the peers get time to touch before they are swept', async (context) => {
  const { root, clock, open } = await bench(context)
  const reader = await open()
  const peer = await putRaw(root, bucket, 'ns/c/e/1', '{"n":1}')
  await reader.put(bucket, 'ns/c/e/2', { n: 2 })
  clock.advance(60_000, true)
  const own = join(root, bucket, encodeFileKey('ns/c/e/2'))
  await until('own file touched', async () => Math.abs((await stat(own)).mtimeMs - clock.epochMs()) < 5)
  assert.ok(existsSync(peer))
  const now = clock.epochMs() / 1_000
  await utimes(peer, now, now)
  for (let step = 0; step < 4; step += 1) {
    clock.advance(1_700)
    await reader.list(bucket, '')
  }
  assert.ok(existsSync(peer))
})

test('sub-directories and foreign names are ignored', async (context) => {
  const { root, open } = await bench(context)
  await mkdir(join(root, bucket, 'folder'), { recursive: true })
  await writeFile(join(root, bucket, '%ZZ'), '{}')
  await writeFile(join(root, bucket, '.tmp_1'), '{}')
  await putRaw(root, bucket, 'ns/c/e/1', '{"n":1}')
  const reader = await open()
  const seen = new Recorder()
  reader.watch(bucket, '', seen.listener)
  await until('synced', () => seen.lines.includes('synced'))
  assert.deepEqual(seen.lines, ['put ns/c/e/1', 'synced'])
  assert.deepEqual([...(await reader.list(bucket, '')).keys()], ['ns/c/e/1'])
})

test('an unreadable file is warned of once', async (context) => {
  const { root, clock, log, open } = await bench(context)
  await putRaw(root, bucket, 'ns/c/e/1', '{"n"')
  const reader = await open()
  const seen = new Recorder()
  reader.watch(bucket, '', seen.listener)
  await until('synced', () => seen.lines.includes('synced'))
  const warnings = (): number => log.lines.filter((line) => line.level === 'warn' && line.fields['key'] === 'ns/c/e/1').length
  await until('warned', () => warnings() === 1)
  for (let step = 0; step < 3; step += 1) {
    clock.advance(1_000)
    await reader.watch(bucket, '', () => {}).close()
  }
  await putRaw(root, bucket, 'ns/c/e/2', '{"n":2}')
  await until('later record', () => seen.lines.includes('put ns/c/e/2'), 5_000, () => clock.advance(100))
  assert.equal(warnings(), 1)
})

test('a bucket directory that is removed and made again is followed on', async (context) => {
  const { root, clock, open } = await bench(context)
  const reader = await open()
  await putRaw(root, bucket, 'ns/c/e/1', '{"n":1}')
  const seen = new Recorder()
  reader.watch(bucket, '', seen.listener)
  await until('synced', () => seen.lines.includes('synced'))
  await rm(join(root, bucket), { recursive: true })
  await until('gone', () => seen.lines.includes('delete ns/c/e/1'), 5_000, () => clock.advance(100))
  await putRaw(root, bucket, 'ns/c/e/2', '{"n":2}')
  await until('new record', () => seen.lines.includes('put ns/c/e/2'), 5_000, () => clock.advance(100))
})

test('a name that no file system takes is refused with its length', async (context) => {
  const { open } = await bench(context)
  await assert.rejects((await open()).put(bucket, `ns/${'_'.repeat(100)}/e/1`, {}), /3\d\d bytes/)
})
