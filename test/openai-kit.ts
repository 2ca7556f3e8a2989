/** A model catalog of fakes for tests of the HTTP API: a byte-level text model and workers that do as they are told. */
import type { BusyThresholds, ModelCall, ModelCatalog, RoutingNote, ServedModel } from '../src/openai/catalog.ts'
import { createOpenAiServer, type OpenAiServer, type OpenAiServerOptions } from '../src/openai/openai-server.ts'
import type { Json, JsonObject, Log, LogFields } from '../src/ports.ts'
import { systemClock } from '../src/system-ports.ts'
import type { ChatTemplateInput, TextDecoderStream, TextModel } from '../src/text/text-model.ts'

export const eosId = 1
const firstByteId = 3

/** One token per UTF-8 byte. */
export const tokensOf = (text: string): number[] => [...new TextEncoder().encode(text)].map((byte) => byte + firstByteId)

export function byteTextModel(changes: Partial<TextModel> = {}): TextModel {
  return {
    eosTokenIds: [eosId],
    contextLength: 4096,
    vocabularySize: 256 + firstByteId,
    hasChatTemplate: true,
    renderChat: ({ messages, addGenerationPrompt }: ChatTemplateInput) =>
      messages.map((message) => `<${String(message['role'])}>${typeof message['content'] === 'string' ? message['content'] : JSON.stringify(message['content'])}`).join('') + (addGenerationPrompt ? '<assistant>' : ''),
    encode: (text) => Promise.resolve(Uint32Array.from(tokensOf(text))),
    decoder: () => byteDecoder(),
    tokenText: (id) => (id < firstByteId ? '' : String.fromCharCode(id - firstByteId)),
    tokenBytes: (id) => (id < firstByteId ? new Uint8Array() : Uint8Array.of(id - firstByteId)),
    counters: () => ({ engine: 'pure', encodes: 0, segmentHits: 0, segmentMisses: 0, segmentEvictions: 0, refused: 0 }),
    close: () => Promise.resolve(),
    ...changes,
  }
}

function byteDecoder(): TextDecoderStream {
  const decoder = new TextDecoder()
  return {
    push: (id) => (id < firstByteId ? '' : decoder.decode(Uint8Array.of(id - firstByteId), { stream: true })),
    end: () => '',
  }
}

type Output = { readonly [key: string]: Json | Uint8Array }
export type Script = (request: JsonObject, call: ModelCall, onRouted?: (note: RoutingNote) => void) => AsyncIterable<Output>

/** A model whose workers run `script`, and what it was asked. */
export class FakeModel implements ServedModel {
  readonly name: string
  readonly createdSeconds = 1_795_198_805
  readonly contextLength: number | null = null
  readonly supportsChat: boolean = true
  readonly supportsCompletions: boolean = true
  readonly text: TextModel
  readonly cardChecksum: string | null = 'card-sum'
  readonly requests: JsonObject[] = []
  readonly calls: ModelCall[] = []
  /** Iterations that were ended, by us or by themselves. */
  ended = 0
  script: Script

  constructor(script: Script, options: { readonly name?: string; readonly text?: TextModel; readonly changes?: Partial<ServedModel> } = {}) {
    this.name = options.name ?? 'tiny'
    this.text = options.text ?? byteTextModel()
    this.script = script
    Object.assign(this, options.changes)
  }

  async *generate(request: JsonObject, call: ModelCall, onRouted?: (note: RoutingNote) => void): AsyncIterable<readonly Output[]> {
    this.requests.push(request)
    this.calls.push(call)
    try {
      for await (const output of this.script(request, call, onRouted)) yield [output]
    } finally {
      this.ended += 1
    }
  }
}

/** Outputs one token each, the last one with `finish`. */
export function saying(text: string, finish: Json = 'stop', last: JsonObject = {}): Script {
  return async function* (_request, _call, onRouted) {
    onRouted?.({ prefill: 'none' })
    const tokens = tokensOf(text)
    for (const [index, token] of tokens.entries()) {
      const atEnd = index === tokens.length - 1
      yield { token_ids: [token], finish_reason: atEnd ? finish : null, ...(atEnd ? last : {}) }
    }
  }
}

/** Fails before the first output. */
export const failing = (error: Error): Script => () => ({ [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }) })

/** Ends without an output. */
export const saysNothing: Script = () => ({ [Symbol.asyncIterator]: () => ({ next: () => Promise.resolve({ done: true, value: undefined }) }) })

/** Outputs `text`, then waits until the call is aborted. */
export function sayingAndWaiting(text: string): Script {
  return async function* (_request, call) {
    for (const token of tokensOf(text)) yield { token_ids: [token] }
    if (!call.signal.aborted) await new Promise<void>((resolve) => call.signal.addEventListener('abort', () => resolve()))
  }
}

export class FakeCatalog implements ModelCatalog {
  readonly models: ServedModel[]
  readonly notReady = new Map<string, { readonly notReady: string; readonly retryAfterSeconds: number }>()
  readonly thresholds = new Map<string, BusyThresholds>()

  constructor(...models: ServedModel[]) {
    this.models = models
    for (const { name } of models) this.thresholds.set(name, { activeDecodeBlocks: null, activePrefillTokens: null, activePrefillTokensFraction: null })
  }
  list(): readonly ServedModel[] {
    return this.models
  }
  find(name: string): ReturnType<ModelCatalog['find']> {
    return this.models.find((model) => model.name === name) ?? this.notReady.get(name)
  }
  health(): ReturnType<ModelCatalog['health']> {
    return { ready: this.models.length > 0, endpoints: ['dyn://dynamo.backend.generate'], instances: [{ instance_id: 8_892_272_219_485_335_855n }] }
  }
  busyThresholds(model: string): BusyThresholds | undefined {
    return this.thresholds.get(model)
  }
  setBusyThresholds(model: string, thresholds: Partial<BusyThresholds>): boolean {
    const now = this.thresholds.get(model)
    if (now === undefined) return false
    this.thresholds.set(model, { ...now, ...thresholds })
    return true
  }
}

export class RecordedLog implements Log {
  readonly lines: { readonly level: string; readonly fields: LogFields; readonly message: string }[] = []
  debug(fields: LogFields, message: string): void {
    this.lines.push({ level: 'debug', fields, message })
  }
  info(fields: LogFields, message: string): void {
    this.lines.push({ level: 'info', fields, message })
  }
  warn(fields: LogFields, message: string): void {
    this.lines.push({ level: 'warn', fields, message })
  }
  error(fields: LogFields, message: string): void {
    this.lines.push({ level: 'error', fields, message })
  }
}

export interface StartedServer {
  readonly server: OpenAiServer
  readonly log: RecordedLog
  post(path: string, body: unknown, headers?: Readonly<Record<string, string>>): Promise<Response>
  get(path: string, init?: RequestInit): Promise<Response>
}

export async function startOpenAi(catalog: ModelCatalog, options: Partial<OpenAiServerOptions> = {}): Promise<StartedServer> {
  const log = new RecordedLog()
  const server = await createOpenAiServer({ host: '127.0.0.1', port: 0, catalog, log, clock: systemClock(), ...options })
  return {
    server,
    log,
    post: (path, body, headers = {}) =>
      fetch(`${server.url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: typeof body === 'string' ? body : JSON.stringify(body) }),
    get: (path, init) => fetch(`${server.url}${path}`, init),
  }
}

/** `data:` events of a stream's text; the end mark as the string `[DONE]`. */
export const eventsOf = (text: string): unknown[] =>
  text.split('\n\n').filter((part) => part.startsWith('data: ')).map((part) => (part === 'data: [DONE]' ? '[DONE]' : JSON.parse(part.slice(6))))
