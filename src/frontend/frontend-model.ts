/** A ready model: its text side, and requests to one of its entries. */
import { FailureError } from '../model/failure.ts'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import type { Clock, Json, JsonObject, Random } from '../ports.ts'
import { isObject } from '../dynamo/wire/json.ts'
import type { ModelCall, RoutingNote, ServedModel } from '../openai/catalog.ts'
import type { TextModel } from '../text/text-model.ts'
import type { ParserNames } from '../parsers/output-parser.ts'
import { cardChecksum } from './card-checksum.ts'
import { parserNames, showsUnusedTools } from './parser-names.ts'
import { callInBatches } from '../standalone/in-process-call.ts'
import type { ServedEntry } from './served-entry.ts'
import type { SingleCalls } from './single-call.ts'
import { differences, type WorkerPoolState } from './worker-pools.ts'

export interface FrontendModelParts {
  readonly name: string
  readonly createdSeconds: number
  readonly text: TextModel
  /** The pool that the model is described by. */
  readonly state: WorkerPoolState
  readonly clock: Clock
  readonly random: Random
  readonly singleCalls: SingleCalls
  /** Entries that can take requests now. */
  entries(): readonly ServedEntry[]
}

export class FrontendModel implements ServedModel {
  readonly name: string
  readonly createdSeconds: number
  readonly contextLength: number | null
  readonly supportsChat: boolean
  readonly supportsCompletions: boolean
  readonly supportsEmbeddings: boolean
  readonly takesText: boolean
  readonly text: TextModel
  readonly cardChecksum: string | null
  readonly parsers: ParserNames
  readonly showsUnusedTools: boolean
  /** Of the pool that the model is described by. */
  readonly poolKey: string
  readonly #parts: FrontendModelParts

  constructor(parts: FrontendModelParts) {
    const { card } = parts.state
    this.#parts = parts
    this.name = parts.name
    this.createdSeconds = parts.createdSeconds
    this.text = parts.text
    this.contextLength = card.contextLength ?? parts.text.contextLength
    this.supportsChat = card.modelType.includes('Chat')
    this.supportsCompletions = card.modelType.includes('Completions')
    this.supportsEmbeddings = card.modelType.includes('Embedding')
    this.takesText = card.modelInput === 'Text'
    this.cardChecksum = cardChecksum(card)
    this.parsers = parserNames(card)
    this.showsUnusedTools = showsUnusedTools(card)
    this.poolKey = parts.state.key
  }

  /** What the card of its pool says, for the metrics. */
  get figures(): Pick<ModelCard, 'blockSize' | 'totalKvBlocks' | 'maxNumSeqs' | 'maxNumBatchedTokens'> {
    return this.#parts.state.card
  }

  /** Still true of a pool that has changed since. */
  describes({ key, traits }: WorkerPoolState): boolean {
    return key === this.poolKey && differences(traits, this.#parts.state.traits).length === 0
  }

  generate(request: JsonObject, call: ModelCall, onRouted?: (note: RoutingNote) => void): AsyncIterable<readonly { readonly [key: string]: Json | Uint8Array }[]> {
    const { loraName } = this.#parts.state
    const outgoing = loraName === null ? request : withAdapter(request, loraName)
    const handle: Parameters<typeof callInBatches>[0] = (incoming, response) => this.#choose(request).generate.handle(incoming, response, onRouted)
    return callInBatches(handle, outgoing, call, this.#parts.clock, 'msgpack') as AsyncIterable<readonly { readonly [key: string]: Json | Uint8Array }[]>
  }

  async ask(request: JsonObject, call: ModelCall): Promise<{ readonly [key: string]: Json | Uint8Array }> {
    const answer = await this.#parts.singleCalls.ask(this.#parts.entries().map(({ pool }) => pool), request, call)
    if (isObject(answer)) return answer as { readonly [key: string]: Json | Uint8Array }
    throw new FailureError({ class: 'BackendProtocol', reason: 'backend.protocol', message: 'the worker answered with something that is no map' })
  }

  /** By the number of workers, so that namespaces share the load as their sizes are; a worker that is named decides. */
  #choose(request: JsonObject): ServedEntry {
    const entries = this.#parts.entries()
    const named = namedWorker(request)
    const holder = named === null ? undefined : entries.find(({ pool }) => pool.routed.lookup(named) !== undefined)
    if (holder !== undefined) return holder
    let at = this.#parts.random.float() * entries.reduce((sum, { pool }) => sum + pool.workerCount, 0)
    for (const entry of entries) {
      at -= entry.pool.workerCount
      if (at < 0) return entry
    }
    const last = entries.at(-1)
    if (last !== undefined) return last
    throw new FailureError({ class: 'Unavailable', reason: 'backend.unavailable', message: `no worker of model ${this.name} is alive; start one, or retry shortly` })
  }
}

function namedWorker(request: JsonObject): bigint | null {
  const { routing } = request
  if (!isObject(routing)) return null
  const { decode_worker_id: decode, backend_instance_id: backend } = routing as JsonObject
  const id = decode ?? backend
  return typeof id === 'bigint' || typeof id === 'number' ? BigInt(id) : null
}

function withAdapter(request: JsonObject, loraName: string): JsonObject {
  const routing = isObject(request['routing']) ? (request['routing'] as JsonObject) : {}
  return { ...request, routing: { lora_name: loraName, ...routing } }
}
