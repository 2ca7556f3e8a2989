/** Probes tell the truth; the port says clearly when it cannot be had. */
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { startSystemServer } from './system-server.ts'

const metrics = { contentType: 'text/plain; version=0.0.4; charset=utf-8', text: () => Promise.resolve('up 1\n') }

async function withServer(isReady: () => boolean, use: (get: (path: string, init?: RequestInit) => Promise<Response>) => Promise<void>, paths = {}): Promise<void> {
  const server = await startSystemServer({ host: '127.0.0.1', port: 0, isReady, endpoints: () => new Map([['generate', isReady()]]), metrics, ...paths })
  try {
    await use((path, init) => fetch(`http://127.0.0.1:${server.port}${path}`, { ...init, signal: AbortSignal.timeout(5000) }))
  } finally {
    await server.close()
  }
}

test('health is ready exactly while requests are served, live always is', async () => {
  let ready = false
  await withServer(() => ready, async (get) => {
    const starting = await get('/health')
    assert.equal(starting.status, 503)
    const body = await starting.json() as { status: string; uptime: { secs: number; nanos: number }; endpoints: Record<string, string> }
    assert.equal(body.status, 'notready')
    assert.ok(Number.isInteger(body.uptime.secs) && body.uptime.nanos >= 0 && body.uptime.nanos < 1e9)
    assert.deepEqual(body.endpoints, { generate: 'notready' })
    assert.equal((await get('/live')).status, 200)
    ready = true
    const served = await get('/health?verbose=1')
    assert.equal(served.status, 200)
    assert.deepEqual((await served.json() as { status: string; endpoints: object }).endpoints, { generate: 'ready' })
    ready = false
    assert.equal((await get('/health')).status, 503)
  })
})

test('metrics, unknown routes, other methods, own paths', async () => {
  await withServer(() => true, async (get) => {
    const scraped = await get('/metrics')
    assert.equal(scraped.headers.get('content-type'), metrics.contentType)
    assert.equal(await scraped.text(), 'up 1\n')
    assert.deepEqual([(await get('/nope')).status, (await get('/health')).status, (await get('/metrics', { method: 'POST' })).status], [404, 404, 405])
    assert.equal((await get('/readyz')).status, 200)
  }, { healthPath: '/readyz' })
})

test('a scrape that fails is answered and the server goes on', async () => {
  await withServer(() => true, async (get) => {
    assert.equal((await get('/metrics')).status, 500)
    assert.equal((await get('/live')).status, 200)
  }, { metrics: { contentType: 'text/plain', text: () => Promise.reject(new Error('broken')) } })
})

test('a taken port is named with what to set', async () => {
  const other = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => other.once('listening', resolve))
  const { port } = other.address() as AddressInfo
  await assert.rejects(
    startSystemServer({ host: '127.0.0.1', port, isReady: () => true, endpoints: () => new Map(), metrics }),
    new RegExp(`^Error: 127\\.0\\.0\\.1:${port} is in use; set DYN_SYSTEM_PORT`),
  )
  await new Promise((resolve) => other.close(resolve))
})
