/** What is shown of the stages behind the API: how many requests are in each, and what each rank gave last. */
import { Gauge, type Registry } from 'prom-client'
import type { RequestObserver, ServedAttempt } from '../model/request-observer.ts'
import type { WorkerRole } from '../model/worker.ts'
import { gaugeFamily, type Family, type HistogramCell } from '../observability/metric-families.ts'

export interface StageMetricsParts {
  readonly registry: Registry
  readonly prefix: string
  /** `stage_duration_seconds`, by stage. */
  readonly durations: Family<HistogramCell>
}

/** Loads of one rank as they stand. */
export interface RankFigures {
  readonly workerId: bigint
  readonly dpRank: number
  readonly phase: WorkerRole
  readonly activeDecodeBlocks: number
  readonly activePrefillTokens: number
}

/** Ranks whose last attempt is remembered between two scrapes. */
const servedMax = 4096

type RankLabels = { readonly worker_id: string; readonly dp_rank: string; readonly worker_type: string }

/** Of one API. Bounds: gauges of ranks are those of the last `showRanks`. */
export class StageMetrics implements Required<Pick<RequestObserver, 'onStage' | 'onServed'>> {
  readonly #durations
  readonly #requests
  readonly #blocks; readonly #tokens; readonly #firstToken; readonly #input; readonly #interToken
  #served = new Map<string, ServedAttempt>()

  constructor({ registry, prefix, durations }: StageMetricsParts) {
    const gauge = <Label extends string>(name: string, help: string, labelNames: readonly Label[]): Gauge<Label> => new Gauge({ name: `${prefix}_${name}`, help, labelNames, registers: [registry] })
    const rank = ['worker_id', 'dp_rank', 'worker_type'] as const
    this.#durations = durations
    this.#requests = gaugeFamily({ name: `${prefix}_stage_requests`, help: 'Requests in a stage now', labels: ['phase', 'stage'], base: {}, registry })
    this.#blocks = gauge('worker_active_decode_blocks', 'KV blocks that running requests hold', rank)
    this.#tokens = gauge('worker_active_prefill_tokens', 'Prompt tokens that are still to be computed', rank)
    this.#firstToken = gauge('worker_last_time_to_first_token_seconds', 'Of the last attempt: from sending to its first output', rank)
    this.#input = gauge('worker_last_input_sequence_tokens', 'Of the last attempt: prompt tokens', rank)
    this.#interToken = gauge('worker_last_inter_token_latency_seconds', 'Of the last attempt: between outputs, on average', rank)
  }

  /** Template and tokens of one request. */
  preprocess(isIn: boolean): void {
    this.#requests.with('', 'preprocess').inc(isIn ? 1 : -1)
  }

  readonly onStage: NonNullable<RequestObserver['onStage']> = (stage, phase, { isIn, seconds }) => {
    this.#requests.with(phase, stage).inc(isIn ? 1 : -1)
    if (seconds !== null) this.#durations.with(stage === 'route' ? 'route' : 'transport_roundtrip').observe(seconds)
  }

  readonly onServed = (served: ServedAttempt): void => {
    const key = keyOf(served.rank)
    if (this.#served.size < servedMax || this.#served.has(key)) this.#served.set(key, served)
  }

  /** Before a scrape: ranks that are not among these are forgotten. */
  showRanks(ranks: Iterable<RankFigures>): void {
    for (const gauge of [this.#blocks, this.#tokens, this.#firstToken, this.#input, this.#interToken]) gauge.reset()
    const kept = new Map<string, ServedAttempt>()
    for (const figures of ranks) {
      const labels: RankLabels = { worker_id: figures.workerId.toString(), dp_rank: String(figures.dpRank), worker_type: figures.phase === 'prefill' ? 'prefill' : 'decode' }
      this.#blocks.set(labels, figures.activeDecodeBlocks)
      this.#tokens.set(labels, figures.activePrefillTokens)
      const key = keyOf(figures)
      const served = this.#served.get(key)
      if (served === undefined) continue
      kept.set(key, served)
      this.#firstToken.set(labels, served.firstOutputSeconds)
      this.#input.set(labels, served.promptTokens)
      if (served.interOutputSeconds !== null) this.#interToken.set(labels, served.interOutputSeconds)
    }
    this.#served = kept
  }
}

const keyOf = ({ workerId, dpRank }: { readonly workerId: bigint; readonly dpRank: number }): string => `${workerId}/${dpRank}`
