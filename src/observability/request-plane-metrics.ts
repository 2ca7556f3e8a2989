/** What Dynamo counts per served endpoint, under its names. */
import type { MetricSet } from './metric-set.ts'
import type { NumberCell } from './metric-families.ts'

const durationBounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600]

/** Counts the requests of one endpoint. `ended` once for each `started`. */
export interface EndpointMeter {
  started(requestBytes: number): void
  responseBytes(count: number): void
  /** `errorType`: the label of `errors_total` when it ended with an error. */
  ended(seconds: number, end: { readonly errorType?: string; readonly cancelled?: boolean }): void
}

export interface EndpointMetricsOptions {
  readonly namespace: string
  readonly component: string
  /** Lower-case hex. */
  readonly instanceHex: string
  /** Label `service`; none when left out. */
  readonly service?: string
  readonly labels?: Readonly<Record<string, string>>
}

/** Gives the meter of an endpoint by its name; the same name gives the same meter. */
export function createEndpointMetrics(metrics: MetricSet, options: EndpointMetricsOptions): (endpoint: string) => EndpointMeter {
  const base = {
    dynamo_namespace: options.namespace, dynamo_component: options.component, worker_id: options.instanceHex,
    ...(options.service === undefined ? {} : { service: options.service }), ...options.labels,
  }
  const name = (suffix: string): string => `dynamo_component_${suffix}`
  const labels = ['dynamo_endpoint']
  const requests = metrics.counter(name('requests_total'), 'Requests taken by the endpoint', base, labels)
  const durations = metrics.histogram(name('request_duration_seconds'), 'From a request to the end of its response', durationBounds, base, labels)
  const inflight = metrics.gauge(name('inflight_requests'), 'Requests whose response has not ended', base, labels)
  const received = metrics.counter(name('request_bytes_total'), 'Bytes of request bodies', base, labels)
  const sent = metrics.counter(name('response_bytes_total'), 'Bytes of responses', base, labels)
  const errors = metrics.counter(name('errors_total'), 'Requests that ended with an error', base, [...labels, 'error_type'])
  const cancellations = metrics.counter(name('cancellation_total'), 'Requests that their caller ended', base, labels)
  const meters = new Map<string, EndpointMeter>()
  return (endpoint) => {
    const known = meters.get(endpoint)
    if (known !== undefined) return known
    const requestCell: NumberCell = requests.with(endpoint)
    const durationCell = durations.with(endpoint)
    const inflightCell = inflight.with(endpoint)
    const receivedCell = received.with(endpoint)
    const sentCell = sent.with(endpoint)
    const cancelCell = cancellations.with(endpoint)
    const meter: EndpointMeter = {
      started: (requestBytes) => {
        requestCell.inc()
        inflightCell.inc()
        receivedCell.inc(requestBytes)
      },
      responseBytes: (count) => sentCell.inc(count),
      ended: (seconds, { errorType, cancelled }) => {
        inflightCell.inc(-1)
        durationCell.observe(seconds)
        if (cancelled === true) cancelCell.inc()
        if (errorType !== undefined) errors.with(endpoint, errorType).inc()
      },
    }
    meters.set(endpoint, meter)
    return meter
  }
}
