/** A deployment of simulated workers in this process with a frontend over it, for tests. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { assembleFrontend, type AssembledFrontend } from '../src/cli/assemble-frontend.ts'
import { LiveSettings } from '../src/cli/live-settings.ts'
import { parseCommand } from '../src/config/parse-command.ts'
import { MemoryDiscovery, MemoryStore } from '../src/dynamo/discovery/memory-discovery.ts'
import { createTcpRequestClient } from '../src/dynamo/request-plane/tcp-client.ts'
import { createTcpRequestServer } from '../src/dynamo/request-plane/tcp-server.ts'
import { outputVocabularySize, writeDemoModel } from '../src/engines/simulated/demo-model.ts'
import type { SimulatedRole } from '../src/engines/simulated/model-card.ts'
import { readModelFiles } from '../src/worker/model-files.ts'
import { engineSettings, type EngineSettings } from '../src/engines/simulated/settings.ts'
import { startSimulatedWorker, type SimulatedWorker } from '../src/engines/simulated/worker.ts'
import { createLog, type ProcessLog } from '../src/observability/log.ts'
import { createOpenAiServer, type OpenAiServer } from '../src/openai/openai-server.ts'
import type { EventPlane, RequestPlaneServer } from '../src/ports.ts'
import { systemClock, systemRandom } from '../src/system-ports.ts'
import { until } from './until.ts'

/** Caches are known by what was routed; events have tests of their own. */
const silentPlane: EventPlane = {
  kind: 'zmq', subscribe: () => ({ close() {} }), publisher: async () => ({ publisherId: 1n, publish() {}, async close() {} }), close: () => Promise.resolve(),
}

export interface WorkerInput {
  readonly role: SimulatedRole
  readonly namespace?: string
  readonly component?: string
  readonly model?: string
  readonly settings?: Partial<EngineSettings>
}

export interface DeployedWorker {
  readonly worker: SimulatedWorker
  /** As a process that is stopped. */
  leave(): Promise<void>
  /** As a process that dies: streams break, records stay. */
  die(): Promise<void>
}

export interface RunningFrontend {
  readonly assembled: AssembledFrontend
  readonly server: OpenAiServer
  readonly url: string
  /** Resolves when the API lists so many models. */
  ready(count?: number): Promise<true>
  post(path: string, body: object, init?: { readonly signal?: AbortSignal }): Promise<Response>
}

export class FrontendDeployment {
  readonly clock = systemClock()
  readonly lines: string[] = []
  readonly log: ProcessLog = createLog({ level: 'info', jsonl: false, stream: { write: (text: string) => { this.lines.push(text); return true } } as never })
  readonly store = new MemoryStore(this.log)
  readonly #closing: (() => Promise<void>)[] = []
  #folder: string | null = null

  /** The model folder that workers name in their cards. */
  async modelFolder(): Promise<string> {
    if (this.#folder === null) {
      const folder = await mkdtemp(join(tmpdir(), 'warmpath-test-model-'))
      this.#folder = folder
      this.#closing.push(() => rm(folder, { recursive: true, force: true }))
      await writeDemoModel(folder, 8192)
    }
    return this.#folder
  }

  async worker({ role, namespace = 'dynamo', component = role, model = 'tiny', settings = {} }: WorkerInput): Promise<DeployedWorker> {
    const files = await readModelFiles(await this.modelFolder())
    const discovery = new MemoryDiscovery(this.store)
    await discovery.start(AbortSignal.timeout(5000))
    const server: RequestPlaneServer = createTcpRequestServer({ clock: this.clock, log: this.log, host: '127.0.0.1' })
    await server.start(AbortSignal.timeout(5000))
    const worker = await startSimulatedWorker({
      endpoint: { namespace, component, endpoint: 'generate' }, modelName: model, role, files, kvEvents: false,
      settings: engineSettings({ contextLength: 8192, vocabularySize: outputVocabularySize, stepBaseMs: 1, prefillTokenMs: 0, decodeSequenceMs: 0, ...settings }),
    }, { discovery, server, eventPlane: silentPlane, clock: this.clock, log: this.log })
    const leave = async (): Promise<void> => {
      await worker.drain({ graceMs: 0, timeoutMs: 100 })
      await server.close()
    }
    this.#closing.push(leave)
    return { worker, leave, die: () => server.close() }
  }

  /** `argv`: flags of `warmpath frontend`. */
  /** Its settings can change while it runs: `live`. */
  async liveFrontend(argv: readonly string[] = []): Promise<RunningFrontend & { readonly live: LiveSettings<'frontend'> }> {
    const made: LiveSettings<'frontend'>[] = []
    const running = await this.frontend(argv, async (live) => {
      made.push(live)
      this.#closing.push(async () => live.close())
      await live.start()
      return live
    })
    return { ...running, live: made[0]! }
  }

  async frontend(argv: readonly string[] = [], liveOf: ((live: LiveSettings<'frontend'>) => Promise<LiveSettings<'frontend'>>) | null = null): Promise<RunningFrontend> {
    const all = ['--http-host', '127.0.0.1', '--http-port', '0', ...argv]
    const env = { DYN_RUNTIME_GRACEFUL_SHUTDOWN_TIMEOUT_SECS: '2' }
    const config = await parseCommand('frontend', all, env, () => new Uint8Array())
    if (config.kind !== 'config') throw new Error('no configuration')
    const discovery = new MemoryDiscovery(this.store)
    await discovery.start(AbortSignal.timeout(5000))
    const assembled = assembleFrontend(config, {
      discovery, clock: this.clock, log: this.log, random: systemRandom(), eventPlane: silentPlane,
      client: createTcpRequestClient({ clock: this.clock, log: this.log, host: '127.0.0.1', connectTimeoutMs: 1000, ackTimeoutMs: 1000 }),
    }, liveOf === null ? null : await liveOf(new LiveSettings({ config, argv: all, env, log: this.log })))
    await assembled.service.start(AbortSignal.timeout(5000))
    const server = await createOpenAiServer(assembled.httpOptions())
    this.#closing.push(async () => {
      await server.close(200)
      await assembled.service.drain()
    })
    return {
      assembled, server, url: server.url,
      ready: (count = 1) => until(() => assembled.service.models.list().length >= count),
      post: (path, body, init) => fetch(`${server.url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), ...init }),
    }
  }

  async close(): Promise<void> {
    for (const close of this.#closing.reverse()) await close()
  }
}

