/** A worker made with the worker SDK, as a process: caches prompt blocks per rank, publishes them, answers scripted tokens. Settings: JSON in the first argument. */
import {
  createRuntime, HttpError, InvalidArgument, EngineShutdown, KvEventPublisher, ModelInput, ModelType, registerModel, unregisterModel, updateModelTaints, WorkerMetricsPublisher,
  WorkerType, type Context, type LlmEngineOutput, type PreprocessedRequest, type WireValue,
} from '../src/worker.ts'

export interface SdkWorkerSettings {
  readonly endpoint: string
  readonly modelPath: string
  readonly role: 'aggregated' | 'prefill' | 'decode'
  readonly dpSize?: number
  /** Publish KV events. */
  readonly kv?: boolean
  readonly delayMs?: number
  readonly bootstrapPort?: number
  readonly taints?: readonly string[]
  readonly drain?: boolean
  /** The card as `scripted_worker.py` makes it without `kv_event_publishing_enabled`. */
  readonly plainCard?: boolean
}

const settings = JSON.parse(process.argv[2] ?? '{}') as SdkWorkerSettings
const { endpoint: path, role, dpSize = 1, delayMs = 5 } = settings
const blockSize = 16
const say = (event: Record<string, unknown>): void => {
  process.stdout.write(`${JSON.stringify(event, (_key, value: unknown) => (typeof value === 'bigint' ? value.toString() : value))}\n`)
}

const runtime = await createRuntime()
if (settings.drain !== false) runtime.drainOnSignals()
const endpoint = runtime.endpoint(path)
const loads = new WorkerMetricsPublisher()

/** One rank's cache: hashes of prompt blocks, a chain per prompt. */
class RankCache {
  readonly held = new Set<bigint>()
  readonly publisher: KvEventPublisher | null
  readonly dpRank: number
  constructor(dpRank: number, publisher: KvEventPublisher | null) {
    this.dpRank = dpRank
    this.publisher = publisher
  }

  chain(tokens: readonly number[]): bigint[] {
    let hash = 0xcbf29ce484222325n
    return Array.from({ length: Math.floor(tokens.length / blockSize) }, (_, block) => {
      for (const token of tokens.slice(block * blockSize, (block + 1) * blockSize)) hash = BigInt.asUintN(64, (hash ^ BigInt(token + 1)) * 0x100000001b3n)
      return hash
    })
  }

  /** Takes a prompt in; gives how many of its tokens were there. */
  take(tokens: readonly number[]): number {
    const chain = this.chain(tokens)
    let known = 0
    while (known < chain.length && this.held.has(chain[known] as bigint)) known += 1
    const fresh = chain.slice(known)
    if (fresh.length > 0) {
      for (const hash of fresh) this.held.add(hash)
      this.publisher?.publishStored({ tokenIds: tokens.slice(known * blockSize, chain.length * blockSize), blockHashes: fresh, parentHash: known === 0 ? null : (chain[known - 1] as bigint) })
      loads.publish({ dpRank: this.dpRank, kvUsedBlocks: this.held.size })
    }
    return known * blockSize
  }

  /** Drops the last blocks of a prompt. */
  drop(tokens: readonly number[], count: number): void {
    const gone = this.chain(tokens).slice(-count).filter((hash) => this.held.delete(hash))
    this.publisher?.publishRemoved(gone)
  }

  clear(): void {
    this.held.clear()
    this.publisher?.allBlocksCleared()
  }
}

const ranks: RankCache[] = []
for (let dpRank = 0; dpRank < dpSize; dpRank += 1) {
  ranks.push(new RankCache(dpRank, settings.kv === true ? await KvEventPublisher.create({ endpoint, kvBlockSize: blockSize, dpRank }) : null))
}
await loads.createEndpoint(endpoint)
const firstTokens = await endpoint.firstTokenSource(role)

interface Extra { readonly drop?: number; readonly clear?: boolean; readonly raise?: string; readonly lora?: string; readonly taints?: readonly string[]; readonly held?: boolean }

async function* generate(request: PreprocessedRequest, context: Context): AsyncGenerator<LlmEngineOutput | WireValue> {
  const extra = (request.extra_args ?? {}) as Extra
  const dpRank = request.routing?.dp_rank ?? 0
  say({ ev: 'request', id: context.id, metadata: context.metadata, dpRank, prefillResult: request.prefill_result ?? null, bootstrap: request.bootstrap_info ?? null, lora: request.routing?.lora_name ?? null })
  const rank = ranks[dpRank]
  if (rank === undefined) throw new InvalidArgument(`routing.dp_rank is ${dpRank}; this worker has ${dpSize} ranks`)
  if (extra.taints !== undefined) await updateModelTaints(endpoint, extra.taints)
  if (extra.lora !== undefined) await (extra.lora.startsWith('-') ? unregisterModel(endpoint, extra.lora.slice(1)) : registerModel({ ...model, loraName: extra.lora, baseModelPath: settings.modelPath }))
  if (extra.clear === true) rank.clear()
  if (extra.drop !== undefined) rank.drop(request.token_ids, extra.drop)
  firstTokens?.bind(context, dpRank)
  const fresh = extra.drop === undefined && extra.clear !== true && request.prefill_result === undefined
  const cached = fresh ? rank.take(request.token_ids) : 0
  const count = role === 'prefill' ? 1 : (request.stop_conditions?.max_tokens ?? 8)
  const usage = { prompt_tokens: request.token_ids.length, completion_tokens: count, total_tokens: request.token_ids.length + count, prompt_tokens_details: { cached_tokens: cached } }
  for (let index = 0; index < count; index += 1) {
    if (context.isStopped()) {
      say({ ev: 'cancelled', id: context.id, i: index, killed: context.isKilled() })
      return
    }
    if (index === 1 && extra.raise !== undefined) throw raised(extra.raise)
    const isLast = index === count - 1
    yield {
      token_ids: [5 + (index % 20)],
      ...(role === 'prefill' ? { disaggregated_params: { kv_transfer_params: { remote_engine_id: runtime.instanceId.toString(16), remote_block_ids: [1, 2] } } } : {}),
      ...(isLast ? { finish_reason: 'length' as const, completion_usage: usage } : {}),
    }
    if (!isLast) await new Promise((resolve) => setTimeout(resolve, delayMs))
  }
  say({ ev: 'done', id: context.id })
}

function raised(name: string): Error {
  if (name === 'InvalidArgument') return new InvalidArgument('InvalidArgument on purpose')
  if (name === 'EngineShutdown') return new EngineShutdown('EngineShutdown on purpose')
  if (name === 'HttpError') return new HttpError(422, 'HttpError on purpose')
  return name === 'TypeError' ? new TypeError('TypeError on purpose') : new Error(`${name} on purpose`)
}

const model = {
  endpoint,
  modelInput: ModelInput.Tokens,
  modelType: role === 'prefill' ? ModelType.Empty : ModelType.Chat | ModelType.Completions,
  modelPath: settings.modelPath,
  modelName: 'tiny',
  workerType: role,
  needs: role === 'aggregated' ? [] : role === 'prefill' ? [[WorkerType.Decode]] : [[WorkerType.Prefill]],
  kvCacheBlockSize: blockSize,
  runtimeConfig: {
    totalKvBlocks: 1000, maxNumSeqs: 16, maxNumBatchedTokens: 8192, dataParallelSize: dpSize, taints: settings.taints ?? [],
    ...(settings.plainCard === true ? {} : { kvEventPublishingEnabled: settings.kv === true }),
    ...(settings.bootstrapPort === undefined ? {} : { disaggregatedEndpoint: { bootstrapHost: '127.0.0.1', bootstrapPort: settings.bootstrapPort } }),
  },
}
await registerModel(model)
const served = endpoint.serveEndpoint(generate, { metricsLabels: { model: 'tiny' } })
await endpoint.registered()
say({ ev: 'ready', instance_id: runtime.instanceId })
await served
say({ ev: 'ended' })
