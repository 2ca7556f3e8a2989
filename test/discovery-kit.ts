/** What discovery tests share: clocks, a log that remembers, conditions to wait for, a real etcd. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock, Log, LogFields } from '../src/ports.ts'
import { freePort } from './free-port.ts'
import { until } from './until.ts'

export { freePort }

/** The machine's clock; its timers keep no process alive. */
export const systemClock: Clock = {
  nowMs: () => performance.now(),
  epochMs: () => Date.now(),
  setTimer(delayMs, callback) {
    const timer = setTimeout(callback, delayMs)
    timer.unref()
    return { cancel: () => clearTimeout(timer) }
  },
}

/** A clock that stands until it is moved. */
export class FakeClock implements Clock {
  #now: number
  readonly #epochOffset: number
  readonly #timers = new Set<{ at: number; callback: () => void }>()

  constructor(epochMs = Date.now()) {
    this.#now = 0
    this.#epochOffset = epochMs
  }

  nowMs(): number {
    return this.#now
  }

  epochMs(): number {
    return this.#epochOffset + this.#now
  }

  setTimer(delayMs: number, callback: () => void): { cancel(): void } {
    const timer = { at: this.#now + delayMs, callback }
    this.#timers.add(timer)
    return { cancel: () => this.#timers.delete(timer) }
  }

  /** Moves on, running timers in order. `jump` runs them only once, at the end, as after a stall. */
  advance(byMs: number, jump = false): void {
    const end = this.#now + byMs
    if (jump) this.#now = end
    for (;;) {
      const [next] = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)
      if (next === undefined) break
      this.#timers.delete(next)
      if (!jump) this.#now = next.at
      next.callback()
    }
    this.#now = end
  }
}

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly fields: LogFields
  readonly message: string
}

/** A log that keeps its lines. */
export function rememberingLog(): Log & { readonly lines: LogLine[] } {
  const lines: LogLine[] = []
  const at = (level: LogLine['level']) => (fields: LogFields, message: string) => void lines.push({ level, fields, message })
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

const etcdBinary = ['/usr/bin/etcd', '/usr/local/bin/etcd', ...(process.env['PATH'] ?? '').split(':').map((folder) => join(folder, 'etcd'))].find((path) => existsSync(path))

/** Reason to skip tests against etcd, or false. Throws instead when skipping is not allowed. */
export function etcdMissing(): string | false {
  if (etcdBinary !== undefined) return false
  const reason = 'etcd is not installed (Debian: apt install etcd-server)'
  if (process.env['WARMPATH_REQUIRE_INTEROP'] === '1') throw new Error(`${reason}, and WARMPATH_REQUIRE_INTEROP=1 forbids to skip`)
  return reason
}

/** Paths of a server's certificate and key, and of the authority that clients must be of when `asksClients`. */
export interface EtcdServerTls {
  readonly cert: string
  readonly key: string
  readonly ca: string
  readonly asksClients: boolean
}

/** A real etcd of its own on loopback. */
export class EtcdServer {
  readonly url: string
  readonly #peerUrl: string
  /** Plain HTTP, for its health alone. */
  readonly #healthUrl: string
  readonly #folder: string
  readonly #arguments: readonly string[]
  #child: ChildProcess | null = null

  private constructor(folder: string, ports: readonly [client: number, peer: number, health: number], extra: readonly string[], tls: EtcdServerTls | null) {
    const [port, peerPort, healthPort] = ports
    this.url = `${tls === null ? 'http' : 'https'}://127.0.0.1:${port}`
    this.#peerUrl = `http://127.0.0.1:${peerPort}`
    this.#healthUrl = tls === null ? this.url : `http://127.0.0.1:${healthPort}`
    this.#folder = folder
    this.#arguments = tls === null ? extra : [
      ...extra, '--cert-file', tls.cert, '--key-file', tls.key, '--listen-metrics-urls', this.#healthUrl,
      ...(tls.asksClients ? ['--client-cert-auth', '--trusted-ca-file', tls.ca] : []),
    ]
  }

  static async start(extra: readonly string[] = [], port?: number, tls: EtcdServerTls | null = null): Promise<EtcdServer> {
    const ports = [port ?? (await freePort()), await freePort(), await freePort()] as const
    const server = new EtcdServer(await mkdtemp(join(tmpdir(), 'warmpath-etcd-')), ports, extra, tls)
    await server.run()
    return server
  }

  /** Starts (again) on the same address and data. */
  async run(): Promise<void> {
    if (etcdBinary === undefined) throw new Error('no etcd')
    this.#child = spawn(etcdBinary, [
      '--data-dir', this.#folder, '--listen-client-urls', this.url, '--advertise-client-urls', this.url,
      '--listen-peer-urls', this.#peerUrl, '--initial-advertise-peer-urls', this.#peerUrl,
      '--initial-cluster', `default=${this.#peerUrl}`, '--log-level', 'error', ...this.#arguments,
    ], { stdio: 'ignore' })
    await until('etcd is healthy', async () => {
      try {
        const reply = await fetch(`${this.#healthUrl}/health`)
        return reply.ok && (await reply.text()).includes('true')
      } catch {
        return false
      }
    })
  }

  /** SIGSTOP: the sockets stay open and nothing answers. */
  pause(): void {
    this.#child?.kill('SIGSTOP')
  }

  resume(): void {
    this.#child?.kill('SIGCONT')
  }

  /** Ends the process and keeps the data. */
  async halt(): Promise<void> {
    const child = this.#child
    this.#child = null
    if (child === null || child.exitCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await ended
  }

  async stop(): Promise<void> {
    await this.halt()
    await rm(this.#folder, { recursive: true, force: true })
  }
}
