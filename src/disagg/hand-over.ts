/**
 * The hand-over from a prefill worker to a decode worker as one state machine.
 *
 * What is handed over depends on the engine. Pull engines (vLLM with NIXL, TensorRT-LLM): the prefill's
 * `disaggregated_params`, verbatim, when its stream has ended. SGLang: a bootstrap triple that both legs share; the router makes
 * it when the prefill worker advertises its bootstrap server, else the prefill's first output names it.
 */
import type { MsgpackValue } from '../msgpack/cursor.ts'
import type { Failure } from '../model/failure.ts'
import type { Random } from '../ports.ts'

type ValueMap = { readonly [key: string]: MsgpackValue }

const isMap = (value: MsgpackValue | undefined): value is ValueMap =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)

/** One output of a prefill worker, as far as the hand-over cares. `Params`: the encoded form that travels on. */
export interface PrefillOutput<Params> {
  readonly params: MsgpackValue | undefined
  readonly encodedParams: Params | null
  readonly finishReason: MsgpackValue | undefined
  /** `completion_usage.prompt_tokens_details`, or null. */
  readonly promptTokensDetails: MsgpackValue
}

/** What the decode request gets. */
export type DecodePayload<Params> =
  | { readonly kind: 'params'; readonly params: Params; readonly promptTokensDetails: MsgpackValue }
  | { readonly kind: 'bootstrap'; readonly info: ValueMap }

/** `decode`: the decode leg may start; `prefillGoesOn`: its end decides over success. `terminal`: the prefill output is the answer. */
export type HandOverStep<Params> =
  | { readonly kind: 'wait' }
  | { readonly kind: 'decode'; readonly payload: DecodePayload<Params>; readonly prefillGoesOn: boolean }
  | { readonly kind: 'terminal' }
  | { readonly kind: 'failed'; readonly failure: Failure }

const wait = { kind: 'wait' } as const
const terminalReasons = new Set(['eos', 'stop', 'content_filter', 'cancelled', 'abort'])

const broken = (message: string): { readonly kind: 'failed'; readonly failure: Failure } =>
  ({ kind: 'failed', failure: { class: 'Internal', reason: 'backend.unknown', message } })

/**
 * A room in [0, 2^63) for one hand-over. With several prefill ranks `room % dpSize` is the rank, which SGLang relies on.
 */
export function bootstrapRoom(random: Random, dpRank: number | null, dpSize: number): bigint {
  const [low, high] = random.u64()
  const any = ((BigInt(high) << 32n) | BigInt(low)) & 0x7fffffffffffffffn
  if (dpRank === null || dpSize <= 1) return any
  const size = BigInt(dpSize)
  const room = (any / size) * size + BigInt(dpRank)
  return room > 0x7fffffffffffffffn ? room - size : room
}

/** 16 bytes of a version 4 UUID. */
export function handOverId(random: Random): Uint8Array {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  for (const offset of [0, 8]) {
    const [low, high] = random.u64()
    view.setUint32(offset, low)
    view.setUint32(offset + 4, high)
  }
  view.setUint8(6, (view.getUint8(6) & 0x0f) | 0x40)
  view.setUint8(8, (view.getUint8(8) & 0x3f) | 0x80)
  return bytes
}

export interface HandOverOptions {
  /** What the prefill worker's card advertises. */
  readonly bootstrap: { readonly host: string; readonly port: number } | null
  /** Null: the engine chooses it. */
  readonly dpRank: number | null
  readonly dpSize: number
  readonly random: Random
}

/** One attempt's hand-over: a new room and id for every attempt. */
export class HandOver<Params> {
  readonly #options: HandOverOptions
  #started = false
  #params: { readonly params: Params; readonly promptTokensDetails: MsgpackValue } | null = null
  #outputs = 0
  #contextOnly = false
  /** Goes into the prefill request of the bootstrap flow. */
  readonly bootstrapInfo: ValueMap | null

  constructor(options: HandOverOptions) {
    this.#options = options
    const { bootstrap, dpRank, dpSize, random } = options
    this.bootstrapInfo = bootstrap === null ? null : {
      bootstrap_host: bootstrap.host, bootstrap_port: bootstrap.port, bootstrap_room: bootstrapRoom(random, dpRank, dpSize), handoff_id: handOverId(random),
    }
  }

  /** The decode leg has been started: from here on no other worker can take over this attempt. */
  get handedOver(): boolean {
    return this.#started
  }

  /** When the prefill request is sent. */
  begin(): HandOverStep<Params> {
    if (this.bootstrapInfo === null) return wait
    this.#started = true
    return { kind: 'decode', payload: { kind: 'bootstrap', info: this.bootstrapInfo }, prefillGoesOn: true }
  }

  output(output: PrefillOutput<Params>): HandOverStep<Params> {
    this.#outputs += 1
    const { finishReason, params } = output
    if (isMap(finishReason) && typeof finishReason['error'] === 'string') return broken(finishReason['error'])
    if (finishReason === 'error') return broken('the prefill worker ended with an error')
    if (this.#started) return wait
    if (typeof finishReason === 'string' && terminalReasons.has(finishReason)) return { kind: 'terminal' }
    if (isMap(params) && params['bootstrap_room'] !== undefined && params['bootstrap_room'] !== null) return this.#startFromTriple(params)
    if (params !== undefined && params !== null && this.#params === null && output.encodedParams !== null) {
      if (isMap(params) && params['request_type'] === 'context_only' && (params['ctx_request_id'] ?? null) === null) this.#contextOnly = true
      this.#params = { params: output.encodedParams, promptTokensDetails: output.promptTokensDetails }
    }
    return wait
  }

  /** The prefill stream has ended well. */
  end(): HandOverStep<Params> {
    if (this.#started) return wait
    if (this.#outputs === 0) return broken('the prefill worker ended without an output')
    if (this.#params === null) return broken('the prefill worker handed nothing over: its output has no disaggregated_params')
    if (this.#contextOnly) return broken('the prefill worker handed over a context without ctx_request_id')
    this.#started = true
    return { kind: 'decode', payload: { kind: 'params', ...this.#params }, prefillGoesOn: false }
  }

  #startFromTriple(params: ValueMap): HandOverStep<Params> {
    this.#started = true
    const info = {
      bootstrap_host: params['bootstrap_host'] ?? null, bootstrap_port: params['bootstrap_port'] ?? null, bootstrap_room: params['bootstrap_room'] as MsgpackValue,
      handoff_id: handOverId(this.#options.random),
    }
    return { kind: 'decode', payload: { kind: 'bootstrap', info }, prefillGoesOn: true }
  }
}
