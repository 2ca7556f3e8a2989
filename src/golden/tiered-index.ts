/** Fixture kind `tiered_index`: raw engine batches into all tiers, answers of `/query`. Source: router-algorithm 3.6, 4, 5 and 16.2. */
import { stringifyJson } from '../dynamo/wire/json.ts'
import type { Answer } from '../services/answer.ts'
import { createFeedStats, EngineFeed } from '../services/engine-feed.ts'
import { IndexerService, indexerRoutes } from '../services/indexer/indexer-service.ts'
import { Routes } from '../services/routes.ts'
import { difference } from './json-compare.ts'
import type { GoldenKind } from './kind.ts'

interface RankFields {
  readonly worker_id: number | bigint
  readonly dp_rank: number
}

interface BatchStep {
  readonly batch: RankFields & { readonly payload_hex: string }
}

interface QueryStep {
  readonly path: '/query'
  readonly status: number
  readonly request: { readonly token_ids: readonly number[]; readonly lora_name?: string | null; readonly cache_salt?: string | null }
  readonly response: unknown
}

interface TieredCase {
  readonly id: number
  readonly model: string
  readonly block_size: number
  readonly ranks: readonly RankFields[]
  readonly steps: readonly (BatchStep | QueryStep)[]
}

class TieredScript {
  readonly #routes: Routes
  /** One per registered rank. */
  readonly #feeds = new Map<string, EngineFeed>()
  readonly #sequences = new Map<string, bigint>()

  constructor(item: TieredCase) {
    const service = new IndexerService({
      listen: ({ rank, blockSize, onEvent }) => {
        this.#feeds.set(`${rank.workerId}.${rank.dpRank}`, new EngineFeed(rank, blockSize, createFeedStats(), onEvent))
        return { status: 'active', lastError: null, close: () => undefined }
      },
    })
    this.#routes = new Routes(indexerRoutes(service))
    for (const { worker_id, dp_rank } of item.ranks) {
      this.#call('/register', { instance_id: worker_id, dp_rank, model_name: item.model, block_size: item.block_size, endpoint: 'tcp://127.0.0.1:1' })
    }
  }

  #call(path: string, body: unknown): Answer {
    const answer = this.#routes.answer({ method: 'POST', path, query: new Map(), headers: { 'content-type': 'application/json' }, body: stringifyJson(body) })
    if (answer instanceof Promise) throw new Error('no answer at once')
    return answer
  }

  /** What differs, or null. */
  run(step: BatchStep | QueryStep): string | null {
    if ('path' in step) {
      const { status, body } = this.#call(step.path, step.request)
      return status === step.status ? difference(step.response, body) : `status ${status} instead of ${step.status}`
    }
    const { batch } = step
    const key = `${batch.worker_id}.${batch.dp_rank}`
    const sequence = this.#sequences.get(key) ?? 0n
    this.#sequences.set(key, sequence + 1n)
    this.#feeds.get(key)?.accept(sequence, Buffer.from(batch.payload_hex, 'hex'))
    return null
  }
}

function failureOf(item: TieredCase): string | null {
  const script = new TieredScript(item)
  for (const [at, step] of item.steps.entries()) {
    const message = script.run(step)
    if (message !== null) return `step ${at}: ${message}`
  }
  return null
}

export const golden: GoldenKind = {
  name: 'tiered_index',
  *run(document) {
    for (const item of document['cases'] as readonly TieredCase[]) {
      const message = failureOf(item)
      yield { id: `${item.id}`, outcome: message === null ? { kind: 'passed' } : { kind: 'failed', message } }
    }
  },
}
