/**
 * A decode worker's way to a remote prefill: the request goes to a prefill endpoint (a worker, or a router before many) for one
 * token, and what that hands over is put into the request. Source: the decode side of Dynamo's disaggregated vLLM worker.
 */
import { FailureError } from '../../model/failure.ts'
import type { Clock, Log } from '../../ports.ts'
import type { Client } from '../../worker/client.ts'
import { Context } from '../../worker/context.ts'
import type { BodyObject, BodyValue } from './preprocessed-request.ts'

/** Hints that name places in the pool of decode workers and mean nothing to the prefill pool. */
const decodeHints = new Set(['dp_rank', 'decode_worker_id', 'backend_instance_id'])

const isMap = (value: BodyValue | undefined): value is BodyObject =>
  value !== null && typeof value === 'object' && !Array.isArray(value) && !(value instanceof Uint8Array)

/** Asks the instances of one prefill endpoint in turn. */
export class PrefillHop {
  readonly #client: Client
  readonly #parts: { readonly clock: Clock; readonly log: Log }

  /** The client is closed by its owner. */
  constructor(client: Client, parts: { readonly clock: Clock; readonly log: Log }) {
    this.#client = client
    this.#parts = parts
  }

  /**
   * The request with `prefill_result`, or as it was when the prefill failed: decoding then computes the prompt itself.
   * Errors: only when the caller has left meanwhile.
   */
  async prefill(body: BodyObject, context: Context): Promise<BodyObject> {
    const startedMs = this.#parts.clock.nowMs()
    try {
      const result = await this.#ask(body, context)
      this.#parts.log.info({ request_id: context.id, stage: 'prefill', duration_ms: Math.round(this.#parts.clock.nowMs() - startedMs) }, 'prefill handed over')
      return { ...body, prefill_result: result }
    } catch (error) {
      context.signal.throwIfAborted()
      this.#parts.log.warn({ request_id: context.id, stage: 'prefill', reason: error instanceof Error ? error.message : String(error) }, 'remote prefill failed; the prompt is computed here')
      return body
    }
  }

  async #ask(body: BodyObject, context: Context): Promise<BodyObject> {
    let result: BodyObject | null = null
    // A caller that stops needs no prompt any more.
    const own = new Context(context)
    const end = (): void => own.kill()
    context.signal.addEventListener('abort', end, { once: true })
    if (context.isStopped()) end()
    try {
      for await (const output of await this.#client.roundRobin(prefillRequest(body), { context: own })) {
        if (!isMap(output)) continue
        const params = output['disaggregated_params']
        if (result === null && params !== undefined && params !== null) result = { disaggregated_params: params }
        const usage = output['completion_usage']
        if (result !== null && isMap(usage) && isMap(usage['prompt_tokens_details'])) result = { ...result, prompt_tokens_details: usage['prompt_tokens_details'] }
      }
    } finally {
      context.signal.removeEventListener('abort', end)
    }
    if (result !== null) return result
    throw new FailureError({ class: 'BackendProtocol', reason: 'backend.protocol', message: 'the prefill answer has no disaggregated_params' })
  }
}

function prefillRequest(body: BodyObject): BodyObject {
  const stop = isMap(body['stop_conditions']) ? body['stop_conditions'] : {}
  const routing = isMap(body['routing']) ? body['routing'] : null
  return {
    ...body,
    stop_conditions: { ...stop, max_tokens: 1, min_tokens: null },
    ...(routing === null ? {} : { routing: Object.fromEntries(Object.entries(routing).filter(([name]) => !decodeHints.has(name))) }),
  }
}
