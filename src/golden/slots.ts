/** Slot cases: answers of the slot tracker, made by the active sequences. */
import { ActiveSequences } from '../load/active-sequences.ts'
import { hashListOf } from '../model/hash-list.ts'
import { WorkerDirectory } from '../router/worker-directory.ts'
import { difference } from './json-compare.ts'
import type { GoldenKind, GoldenOutcome } from './kind.ts'

type Integer = number | bigint

interface SlotRequest {
  readonly model_name: string
  readonly routing_group?: string
  readonly request_id: string
  readonly worker_id: Integer
  readonly dp_rank: number
  readonly block_size: number
  readonly dp_start: number
  readonly dp_size: number
  readonly sequence_hashes: readonly Integer[]
  readonly new_isl_tokens?: number
}

interface Step {
  readonly method: string
  readonly path: string
  readonly request?: SlotRequest
  readonly status: number
  readonly response: unknown
}

interface Answer {
  readonly status: number
  readonly body: unknown
}

const ok = (status = 200): Answer => ({ status, body: { status: 'ok' } })
const failure = (status: number, error: string): Answer => ({ status, body: { error } })

/** One model of the slot tracker. */
class Partition {
  readonly blockSize: number
  readonly #directory = new WorkerDirectory()
  readonly #sequences = new ActiveSequences({ expiryMs: 300_000 })

  constructor(blockSize: number) {
    this.blockSize = blockSize
  }

  register(request: SlotRequest): Answer {
    const workerId = BigInt(request.worker_id)
    if (request.block_size !== this.blockSize) return failure(409, `block_size mismatch for model=${request.model_name}`)
    if (this.#directory.get(workerId) !== undefined) return failure(409, `worker ${workerId} already registered for model=${request.model_name}`)
    this.#directory.upsert({
      workerId, dpStart: request.dp_start, dpSize: request.dp_size,
      totalKvBlocks: null, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map(),
    })
    this.#sequences.ensureSlots(this.#directory.slotEnd)
    return ok(201)
  }

  unregister(request: SlotRequest): Answer {
    const slots = this.#directory.remove(BigInt(request.worker_id))
    for (const slot of slots) {
      this.#sequences.dropSlot(slot)
      this.#directory.reuse(slot)
    }
    return slots.length > 0 ? ok() : failure(404, `worker ${request.worker_id} not found`)
  }

  add(request: SlotRequest): Answer {
    const slot = this.#directory.slotOf(BigInt(request.worker_id), request.dp_rank)
    if (slot < 0) {
      return failure(404, `Worker WorkerWithDpRank { worker_id: ${request.worker_id}, dp_rank: ${request.dp_rank} } not found`)
    }
    const isl = request.new_isl_tokens ?? 0
    const outcome = this.#sequences.add({
      requestId: request.request_id, slot, sequence: hashListOf(request.sequence_hashes.map(BigInt)),
      prefillTokens: isl, promptTokens: isl, expectedOutputTokens: null,
    }, this.blockSize, 0)
    return outcome === 'booked' ? ok(201) : failure(409, `Request ${request.request_id} already exists`)
  }

  prefillComplete(requestId: string): Answer {
    return this.#sequences.prefillCompleted(requestId) ? ok() : failure(404, `Request ${requestId} not found`)
  }

  free(requestId: string): Answer {
    this.#sequences.free(requestId)
    return ok()
  }

  potentialLoads(request: SlotRequest): Answer {
    const sequence = hashListOf(request.sequence_hashes.map(BigInt))
    this.#sequences.match(sequence)
    const body = [...this.#directory.slots].map((slot) => {
      const { workerId, dpRank } = this.#directory.rankOf(slot)
      return {
        worker_id: workerId, dp_rank: dpRank,
        potential_prefill_tokens: this.#sequences.prefillTokens[slot]! + (request.new_isl_tokens ?? 0),
        potential_decode_blocks: this.#sequences.activeBlocks(slot) + request.sequence_hashes.length - this.#sequences.livePrefix(slot),
        active_requests: this.#sequences.requests[slot]!,
      }
    })
    return { status: 200, body }
  }

  loads(model: string, group: string): unknown[] {
    return [...this.#directory.slots].map((slot) => {
      const { workerId, dpRank } = this.#directory.rankOf(slot)
      return {
        model_name: model, routing_group: group, worker_id: workerId, dp_rank: dpRank,
        active_prefill_tokens: this.#sequences.prefillTokens[slot]!, active_decode_blocks: this.#sequences.activeBlocks(slot),
      }
    })
  }
}

class SlotTracker {
  readonly #partitions = new Map<string, Partition>()

  answer(step: Step): Answer {
    const url = new URL(step.path, 'http://tracker')
    const { request } = step
    const model = request?.model_name ?? url.searchParams.get('model_name') ?? ''
    const group = request?.routing_group ?? url.searchParams.get('routing_group') ?? 'default'
    const key = JSON.stringify([model, group])
    if (url.pathname === '/loads') return { status: 200, body: this.#partitions.get(key)?.loads(model, group) ?? [] }
    if (request === undefined) return failure(400, 'a body is needed')
    if (url.pathname === '/register') return this.#register(key, request)
    const partition = this.#partitions.get(key)
    if (partition === undefined) return failure(404, `no workers registered for model=${model} routing_group=${group}`)
    switch (url.pathname) {
      case '/unregister': return partition.unregister(request)
      case '/add': return partition.add(request)
      case '/prefill_complete': return partition.prefillComplete(request.request_id)
      case '/free': return partition.free(request.request_id)
      case '/potential_loads': return partition.potentialLoads(request)
      default: return failure(404, 'route not found')
    }
  }

  #register(key: string, request: SlotRequest): Answer {
    if (request.block_size === 0) return failure(400, 'block_size must be greater than 0')
    if (request.dp_size === 0) return failure(400, 'dp_size must be greater than 0')
    if (request.dp_start + request.dp_size > 2 ** 32) return failure(400, 'dp range is too large')
    let partition = this.#partitions.get(key)
    if (partition === undefined) this.#partitions.set(key, (partition = new Partition(request.block_size)))
    return partition.register(request)
  }
}

function runCase(steps: readonly Step[]): GoldenOutcome {
  const tracker = new SlotTracker()
  for (const [index, step] of steps.entries()) {
    const { status, body } = tracker.answer(step)
    if (status !== step.status) {
      return { kind: 'failed', message: `step ${index} ${step.path}: status ${status}, expected ${step.status} ${JSON.stringify(step.response)}` }
    }
    // Error texts only inform.
    if (status >= 400) continue
    const differs = difference(step.response, body, true)
    if (differs !== null) return { kind: 'failed', message: `step ${index} ${step.path}: ${differs}` }
  }
  return { kind: 'passed' }
}

export const golden: GoldenKind = {
  name: 'slots',
  *run(document) {
    for (const item of document['cases'] as readonly { readonly id: number; readonly steps: readonly Step[] }[]) {
      yield { id: `${item.id}`, outcome: runCase(item.steps) }
    }
  },
}
