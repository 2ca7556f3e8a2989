/** Metrics of waiting requests: Dynamo's families of its frontend, and how fairly the classes are served. */
import type { ParkedNote, QueueListener } from '../router/admission.ts'
import type { MetricSet } from './metric-set.ts'

const waitBounds = [0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300]
const names = ['model', 'worker_type', 'policy_class']

/** `labelsOf`: values of `model` and `worker_type` for a model's request. */
export function queueListener(set: MetricSet, labelsOf: (model: string) => readonly [model: string, workerType: string]): Required<QueueListener> {
  const dynamo = 'dynamo_frontend_router_queue_'
  const requests = set.gauge(`${dynamo}pending_requests`, 'Requests that wait for a worker with room', {}, names)
  const promptTokens = set.gauge(`${dynamo}pending_isl_tokens`, 'Prompt tokens of waiting requests', {}, names)
  const cachedTokens = set.gauge(`${dynamo}pending_cached_tokens`, 'Prompt tokens of waiting requests that a worker had cached on arrival', {}, names)
  const rejections = set.counter(`${dynamo}backpressure_total`, 'Requests refused because a limit of their class was reached', {}, [...names, 'reason'])
  const waits = set.histogram('warmpath_queue_wait_seconds', 'How long requests waited that had to', waitBounds, {}, [...names, 'outcome'])
  const served = set.counter('warmpath_queue_dispatched_prompt_tokens_total', 'Prompt tokens of requests that waited and were dispatched: the share of each class', {}, names)
  const count = ({ policyClass, request, cachedTokens: cached }: ParkedNote, sign: 1 | -1): void => {
    const [model, workerType] = labelsOf(request.model)
    requests.with(model, workerType, policyClass).inc(sign)
    promptTokens.with(model, workerType, policyClass).inc(sign * request.tokens.length)
    cachedTokens.with(model, workerType, policyClass).inc(sign * cached)
  }
  return {
    onParked: (note) => count(note, 1),
    onUnparked: (note, outcome, waitedSeconds) => {
      count(note, -1)
      const [model, workerType] = labelsOf(note.request.model)
      waits.with(model, workerType, note.policyClass, outcome).observe(waitedSeconds)
      if (outcome === 'dispatched') served.with(model, workerType, note.policyClass).inc(note.request.tokens.length)
    },
    onQueueRejected: (policyClass, reason, request) => {
      const [model, workerType] = labelsOf(request.model)
      rejections.with(model, workerType, policyClass, reason).inc()
    },
  }
}
