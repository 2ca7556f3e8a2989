/** `dynamo_frontend_*`: the families of Dynamo's frontend that this API can fill truthfully, under the names and buckets its dashboards know. */
import { Counter, Gauge, Registry } from 'prom-client'
import { counterFamily, gaugeFamily, histogramFamily, type Family, type HistogramCell, type NumberCell } from '../observability/metric-families.ts'
import { StageMetrics, type RankFigures } from './stage-metrics.ts'
import type { Endpoint, FrontendMeter, RequestMeter, RequestOutcome } from './frontend-meter.ts'

const bounds = {
  duration: [0, 2, 4, 8, 16, 32, 64, 130, 260, 510],
  firstToken: [0, 0.0022, 0.0047, 0.01, 0.022, 0.047, 0.1, 0.22, 0.47, 1, 2.2, 4.7, 10, 22, 48, 100, 220, 480],
  interToken: [0, 0.0018, 0.0033, 0.0059, 0.011, 0.02, 0.035, 0.064, 0.12, 0.21, 0.38, 0.69, 1.2, 2.3, 4.1, 7.4, 13, 24, 44, 80],
  input: [0, 100, 210, 430, 870, 1800, 3600, 7400, 15_000, 31_000, 63_000, 130_000],
  output: [0, 100, 210, 430, 880, 1800, 3700, 7600, 16_000, 32_000],
  stage: [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5],
  preparation: [0.0001, 0.001, 0.01, 0.1, 1, 10],
  tokenizer: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000],
} as const

/** Tokens of one output that are observed one by one at most. */
const interTokenObservationsMax = 64

/** What a model's card tells of it; null: nothing. */
export interface ModelFigures {
  readonly name: string
  readonly contextLength: number | null
  /** Tokens. */
  readonly blockSize?: number | null
  /** Of one worker. */
  readonly totalKvBlocks?: number | null
  readonly maxNumSeqs?: number | null
  readonly maxNumBatchedTokens?: number | null
  readonly migrationLimit?: number
}

export interface FrontendMetricsOptions {
  /** Default `dynamo_frontend`. */
  readonly prefix?: string
  /** Models as they stand at a scrape. */
  readonly models?: () => readonly ModelFigures[]
  /** Ranks as they stand at a scrape. */
  readonly ranks?: () => Iterable<RankFigures>
  /** Pieces of prompts whose tokens were known, or not, since the models were loaded. */
  readonly tokenizerCache?: () => { readonly hits: number; readonly misses: number }
}

/** Owns its registry. Bounds: label sets grow with served models only. */
export class FrontendMetrics implements FrontendMeter {
  readonly #registry = new Registry()
  readonly #prefix: string
  readonly #started; readonly #total; readonly #failures; readonly #inflight; readonly #active; readonly #queued; readonly #disconnected
  readonly #duration; readonly #firstToken; readonly #interToken; readonly #input; readonly #output; readonly #cached; readonly #outputTokens
  readonly #template; readonly #tokenize; readonly #tokenizer; readonly #stage
  readonly #ranks: FrontendMetricsOptions['ranks']
  /** Of what lies behind the API; give its members to the observer of requests. */
  readonly stages: StageMetrics

  constructor(options: FrontendMetricsOptions = {}) {
    this.#prefix = options.prefix ?? 'dynamo_frontend'
    this.#started = this.#counted('requests_started_total', 'Requests taken up', ['endpoint', 'model', 'request_type'])
    this.#total = this.#counted('requests_total', 'Requests ended', ['endpoint', 'error_type', 'model', 'request_type', 'status'])
    this.#failures = this.#counted('failures_total', 'Failed requests by class and reason', ['class', 'reason'])
    this.#inflight = this.#level('inflight_requests', 'Requests taken up and not ended', ['model'])
    this.#active = this.#level('active_requests', 'Requests from arrival to the end of the answer', ['model'])
    this.#queued = this.#level('queued_requests', 'Requests without a first token', ['model'])
    this.#disconnected = this.#level('disconnected_clients', 'Clients that left before their answer was complete', []).with()
    this.#duration = this.#observed('request_duration_seconds', 'From arrival to the end of the answer', ['model'], bounds.duration)
    this.#firstToken = this.#observed('time_to_first_token_seconds', 'From arrival to the first token', ['model'], bounds.firstToken)
    this.#interToken = this.#observed('inter_token_latency_seconds', 'Between tokens', ['model'], bounds.interToken)
    this.#input = this.#observed('input_sequence_tokens', 'Tokens of the prompts', ['model'], bounds.input)
    this.#output = this.#observed('output_sequence_tokens', 'Tokens of the answers', ['model'], bounds.output)
    this.#cached = this.#observed('cached_tokens', 'Prompt tokens found in a cache, as engines report them', ['model'], bounds.input)
    this.#outputTokens = this.#counted('output_tokens_total', 'Tokens generated so far', ['model'])
    this.#template = this.#observed('template_seconds', 'Chat template', [], bounds.preparation).with()
    this.#tokenize = this.#observed('tokenize_seconds', 'Tokenization', [], bounds.preparation).with()
    this.#tokenizer = this.#observed('tokenizer_latency_ms', 'Tokenization, in milliseconds', ['operation'], bounds.tokenizer)
    this.#stage = this.#observed('stage_duration_seconds', 'Stages of a request; preprocess: template and tokens', ['stage'], bounds.stage)
    this.stages = new StageMetrics({ registry: this.#registry, prefix: this.#prefix, durations: this.#stage })
    this.#ranks = options.ranks
    if (options.tokenizerCache !== undefined) this.#addTokenizerCache(options.tokenizerCache)
    if (options.models !== undefined) this.#addModels(options.models)
  }

  begin(model: string, endpoint: Endpoint, requestType: 'stream' | 'unary'): RequestMeter {
    this.#started.with(endpoint, model, requestType).inc()
    for (const gauge of [this.#inflight, this.#active, this.#queued]) gauge.with(model).inc()
    return this.#request(model, endpoint, requestType)
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  /** Prometheus text, to stand behind that of others. */
  text(): Promise<string> {
    if (this.#ranks !== undefined) this.stages.showRanks(this.#ranks())
    return this.#registry.metrics()
  }

  #request(model: string, endpoint: Endpoint, requestType: string): RequestMeter {
    let queued = true
    let outputTokens = 0
    // Counted with every output: looked up once.
    let interToken: HistogramCell | null = null
    let generated: NumberCell | null = null
    // Embeddings are not prepared here.
    let preparing = endpoint !== 'embeddings'
    if (preparing) this.stages.preprocess(true)
    const isPrepared = (): void => {
      if (preparing) this.stages.preprocess(false)
      preparing = false
    }
    const dequeue = (): void => {
      if (queued) this.#queued.with(model).inc(-1)
      queued = false
    }
    return {
      prepared: (templateSeconds, tokenizeSeconds) => {
        isPrepared()
        this.#template.observe(templateSeconds)
        this.#tokenizer.with('tokenize').observe(tokenizeSeconds * 1000)
        this.#tokenize.observe(tokenizeSeconds)
        this.#stage.with('preprocess').observe(templateSeconds + tokenizeSeconds)
      },
      inputTokens: (count) => this.#input.with(model).observe(count),
      firstToken: (seconds) => {
        dequeue()
        this.#firstToken.with(model).observe(seconds)
      },
      nextTokens: (count, seconds) => {
        const each = seconds / count
        interToken ??= this.#interToken.with(model)
        for (let index = 0; index < Math.min(count, interTokenObservationsMax); index += 1) interToken.observe(each)
      },
      outputTokens: (count) => {
        outputTokens += count
        generated ??= this.#outputTokens.with(model)
        generated.inc(count)
      },
      cachedTokens: (count) => this.#cached.with(model).observe(count),
      disconnected: () => this.#disconnected.inc(),
      end: (outcome) => {
        isPrepared()
        dequeue()
        for (const gauge of [this.#inflight, this.#active]) gauge.with(model).inc(-1)
        if (outputTokens > 0) this.#output.with(model).observe(outputTokens)
        this.#duration.with(model).observe(outcome.seconds)
        this.#count(outcome, { endpoint, model, request_type: requestType })
      },
    }
  }

  #count(outcome: RequestOutcome, labels: { readonly endpoint: string; readonly model: string; readonly request_type: string }): void {
    const failed = outcome.status === 'error'
    this.#total.with(labels.endpoint, failed ? outcome.errorType : '', labels.model, labels.request_type, outcome.status).inc()
    if (failed) this.#failures.with(outcome.class, outcome.reason).inc()
  }

  #addModels(models: NonNullable<FrontendMetricsOptions['models']>): void {
    const shown: readonly (readonly [name: string, help: string, value: (model: ModelFigures) => number | null | undefined])[] = [
      ['model_ready', 'The model can serve: 1', () => 1],
      ['model_context_length', 'Tokens that the context holds', (model) => model.contextLength],
      ['model_kv_cache_block_size', 'Tokens of one KV cache block', (model) => model.blockSize],
      ['model_total_kv_blocks', 'KV cache blocks of one worker', (model) => model.totalKvBlocks],
      ['model_max_num_seqs', 'Requests that one worker runs at once', (model) => model.maxNumSeqs],
      ['model_max_num_batched_tokens', 'Tokens that one worker computes in one step', (model) => model.maxNumBatchedTokens],
      ['model_migration_limit', 'How often a request may go on elsewhere', (model) => model.migrationLimit],
    ]
    for (const [name, help, value] of shown) {
      const gauge: Gauge<'model'> = this.#gauge(name, help, ['model'])
      const get = gauge.get.bind(gauge)
      gauge.get = () => {
        gauge.reset()
        for (const model of models()) {
          const figure = value(model)
          if (figure != null) gauge.set({ model: model.name }, figure)
        }
        return get()
      }
    }
  }

  #addTokenizerCache(counts: NonNullable<FrontendMetricsOptions['tokenizerCache']>): void {
    for (const [name, help, value] of [['hits', 'found', (): number => counts().hits], ['misses', 'not found', (): number => counts().misses]] as const) {
      const counter = this.#counter(`tokenizer_cache_${name}_total`, `Pieces of long prompts that were ${help} in the tokenizer's cache`, [])
      const get = counter.get.bind(counter)
      counter.get = () => {
        counter.reset()
        counter.inc(value())
        return get()
      }
    }
  }

  #family(name: string, help: string, labels: readonly string[]) {
    return { name: `${this.#prefix}_${name}`, help, labels, base: {}, registry: this.#registry }
  }

  #counted(name: string, help: string, labels: readonly string[]): Family<NumberCell> {
    return counterFamily(this.#family(name, help, labels))
  }

  #level(name: string, help: string, labels: readonly string[]): Family<NumberCell> {
    return gaugeFamily(this.#family(name, help, labels))
  }

  #observed(name: string, help: string, labels: readonly string[], buckets: readonly number[]): Family<HistogramCell> {
    return histogramFamily({ ...this.#family(name, help, labels), bounds: buckets })
  }

  #counter<Label extends string>(name: string, help: string, labelNames: readonly Label[]): Counter<Label> {
    return new Counter({ name: `${this.#prefix}_${name}`, help, labelNames, registers: [this.#registry] })
  }

  #gauge<Label extends string>(name: string, help: string, labelNames: readonly Label[]): Gauge<Label> {
    return new Gauge({ name: `${this.#prefix}_${name}`, help, labelNames, registers: [this.#registry] })
  }
}
