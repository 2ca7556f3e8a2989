/**
 * A decode worker's way to a remote prefill: the request goes to a prefill endpoint (a worker, or a router before many) for one
 * token, and what that hands over is put into the request. Source: the decode side of Dynamo's disaggregated vLLM worker.
 */
import { callStream, type RequestContext } from '../../dynamo/endpoint.ts'
import { InstanceDirectory } from '../../dynamo/instances/instance-directory.ts'
import { FailureError } from '../../model/failure.ts'
import type { Clock, Discovery, EndpointId, InstanceRecord, Log, RequestPlaneClient } from '../../ports.ts'
import type { BodyObject, BodyValue } from './preprocessed-request.ts'

export interface PrefillHopParts {
  readonly endpoint: EndpointId
  readonly discovery: Discovery
  readonly client: RequestPlaneClient
  readonly clock: Clock
  readonly log: Log
}

/** Hints that name places in the pool of decode workers and mean nothing to the prefill pool. */
const decodeHints = new Set(['dp_rank', 'decode_worker_id', 'backend_instance_id'])

const isMap = (value: BodyValue | undefined): value is BodyObject =>
  value !== null && typeof value === 'object' && !Array.isArray(value) && !(value instanceof Uint8Array)

/** Follows the instances of one prefill endpoint and asks them in turn. */
export class PrefillHop {
  readonly #parts: PrefillHopParts
  readonly #directory: InstanceDirectory
  #turn = 0

  constructor(parts: PrefillHopParts) {
    this.#parts = parts
    this.#directory = new InstanceDirectory({ discovery: parts.discovery, endpoint: parts.endpoint, clock: parts.clock, log: parts.log })
    this.#directory.onEvent((event) => {
      if (event.kind === 'removed') parts.client.forget(event.instance.record)
    })
  }

  /**
   * The request with `prefill_result`, or as it was when the prefill failed: decoding then computes the prompt itself.
   * Errors: only when the caller has left meanwhile.
   */
  async prefill(body: BodyObject, context: RequestContext): Promise<BodyObject> {
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

  close(): void {
    this.#directory.close()
  }

  async #ask(body: BodyObject, context: RequestContext): Promise<BodyObject> {
    await this.#directory.firstSync
    let result: BodyObject | null = null
    const request = prefillRequest(body)
    const call = callStream(this.#parts.client, this.#next(), request, { id: context.id, metadata: context.metadata, headers: context.headers, signal: context.signal })
    for await (const output of call) {
      if (!isMap(output)) continue
      const params = output['disaggregated_params']
      if (result === null && params !== undefined && params !== null) result = { disaggregated_params: params }
      const usage = output['completion_usage']
      if (result !== null && isMap(usage) && isMap(usage['prompt_tokens_details'])) result = { ...result, prompt_tokens_details: usage['prompt_tokens_details'] }
    }
    if (result !== null) return result
    throw new FailureError({ class: 'BackendProtocol', reason: 'backend.protocol', message: 'the prefill answer has no disaggregated_params' })
  }

  #next(): InstanceRecord {
    const instances = [...this.#directory.instances()]
    this.#turn += 1
    const chosen = instances[this.#turn % Math.max(1, instances.length)]
    if (chosen !== undefined) return chosen.record
    const { namespace, component, endpoint } = this.#parts.endpoint
    throw new FailureError({ class: 'Unavailable', reason: 'backend.unavailable', message: `nobody serves ${namespace}.${component}.${endpoint}` })
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
