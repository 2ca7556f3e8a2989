/** The shape of one interop scenario. */
import type { Deployment } from './deployment.ts'
import type { OlderVersion } from './dynamo-venv.ts'

export interface Scenario {
  readonly name: string
  /** Environment of every process of the scenario. */
  readonly env?: NodeJS.ProcessEnv
  readonly timeoutSeconds?: number
  /** Earlier releases that take part; installed when the first scenario asks for them. */
  readonly older?: readonly OlderVersion[]
  /** Runs only when it is named. */
  readonly onDemand?: boolean
  /** Throws when something is not as it should be. */
  run(deployment: Deployment): Promise<void>
}

/** Endpoints of the router in the usual namespace. */
export const routerEndpoint = {
  generate: 'dynamo.router.generate',
  bestWorkerId: 'dynamo.router.best_worker_id',
  overlapScores: 'dynamo.router.get_overlap_scores',
} as const

/** Numbers of a small linear generator: the same in every run of one seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 0x1_0000_0000
  }
}

/** `count` token ids below 500. */
export const randomTokens = (random: () => number, count: number): number[] => Array.from({ length: count }, () => Math.floor(random() * 500))

export interface OutputMap {
  readonly token_ids: readonly number[]
  readonly finish_reason?: unknown
  readonly routing_data?: {
    readonly worker_id?: { readonly prefill_worker_id: number | bigint; readonly decode_worker_id: number | bigint; readonly decode_dp_rank: number }
    readonly timing?: Readonly<Record<string, number>>
  }
}

/** The worker that the first output names. */
export function workerOf(outputs: readonly unknown[]): bigint {
  const worker = (outputs[0] as OutputMap | undefined)?.routing_data?.worker_id
  if (worker === undefined) throw new Error(`the first output names no worker: ${JSON.stringify(outputs[0], (_key, value: unknown) => (typeof value === 'bigint' ? `${value}` : value))}`)
  return BigInt(worker.decode_worker_id)
}

export interface OverlapAnswer {
  readonly block_size: number
  readonly num_blocks: number
  readonly workers: readonly { readonly worker_id: number | bigint; readonly dp_rank: number; readonly device_blocks: number }[]
}
