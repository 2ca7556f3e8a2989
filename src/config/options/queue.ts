/** Options of requests that wait for a worker with room. */
import { maybeNumber, numberOption, textOption } from '../option.ts'

const queue = 'Queue'

export const queueOptions = {
  queueThreshold: maybeNumber({
    name: 'router-queue-threshold', env: ['DYN_ROUTER_QUEUE_THRESHOLD'], minimum: 0, isNullable: true, isDeprecatedInDynamo: true, section: queue,
    defaultText: 'requests do not wait',
    help: 'Requests wait in the router while every worker has more active prompt tokens than this fraction of its max_num_batched_tokens. Policy classes of --router-policy-config have thresholds of their own.',
  }),
  queuePolicy: textOption('fcfs', {
    name: 'router-queue-policy', env: ['DYN_ROUTER_QUEUE_POLICY'], choices: ['fcfs', 'wspt'], isDeprecatedInDynamo: true, section: queue,
    help: 'Order of waiting requests: first come, or those with the least prompt work for their priority.',
  }),
  queueTimeoutSeconds: numberOption(0, {
    origin: 'warmpath', since: 'Warmpath 0.2', name: 'router-queue-timeout', env: ['WARMPATH_ROUTER_QUEUE_TIMEOUT'], minimum: 0, unit: 'seconds', section: queue,
    defaultText: 'no limit', help: 'Longest wait; then the request is refused with router.queue_deadline_exceeded. Other time limits begin when a request is sent to a worker.',
  }),
  overlapRefreshSeconds: numberOption(10, {
    name: 'router-overlap-refresh-after', isFlag: false, env: ['DYN_ROUTER_OVERLAP_REFRESH_AFTER_SECS'], minimum: 0, unit: 'seconds', section: queue,
    help: 'A request that waited this long has its cache overlap looked up again before a worker is chosen; 0: never.',
  }),
}
