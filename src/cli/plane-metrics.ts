/** What the planes of a process count, shown at each scrape. */
import type { CallTimes } from '../dynamo/request-plane/call.ts'
import type { MetricSet } from '../observability/metric-set.ts'
import type { Planes } from '../planes/planes.ts'

/** Registers the families; those of NATS are there once it is used. */
export function showPlaneMetrics(set: MetricSet, { server, client, eventPlane, link }: Planes): void {
  const inflight = set.gauge('dynamo_request_plane_inflight_requests', 'Requests sent to workers whose answer has not ended', {}).with()
  const sent = set.counter('warmpath_request_plane_sent_total', 'Requests sent to workers', {}, ['transport'])
  const tcpErrors = set.counter('warmpath_request_plane_refused_total', 'Requests that were not taken or not answered for', {}, ['side', 'reason'])
  const transportErrors = set.counter('dynamo_transport_tcp_errors_total', 'Requests that could not be handed to their worker over TCP, or were not acknowledged', {}).with()
  client.observe(timesOf(set))
  const tlsFailures = set.counter('warmpath_tls_handshake_failures_total', 'Connections to us that ended before TLS was established', {}, ['listener'])
  const events = set.counter('warmpath_event_plane_messages_total', 'Event messages, by direction', {}, ['direction'])
  const drops = set.counter('warmpath_event_plane_drops_total', 'Event messages that were dropped', {}, ['reason'])
  const channels = set.gauge('warmpath_event_plane_subscriptions', 'Open subscriptions of events, by transport', {}, ['transport'])
  const showNats = natsMetrics(set, link)
  const waiting = set.gauge('warmpath_nats_requests_waiting', 'Requests that wait for the connection to NATS; absent when NATS is not used', {})
  const resent = set.counter('warmpath_nats_requests_resent_total', 'Requests sent again after the connection to NATS had been lost; absent when NATS is not used', {})
  set.onScrape(() => {
    const { calls, openCalls, poolFull, tcpErrors: notSent, nats, handshakeFailures } = client.stats()
    inflight.set(openCalls)
    transportErrors.set(notSent)
    sent.with('nats').set(nats?.sent ?? 0)
    sent.with('tcp').set(calls - (nats?.sent ?? 0))
    tcpErrors.with('client', 'pool_full').set(poolFull + (nats?.full ?? 0))
    tcpErrors.with('client', 'no_responders').set(nats?.noResponders ?? 0)
    tcpErrors.with('client', 'nats_timeout').set(nats?.timeouts ?? 0)
    tcpErrors.with('client', 'nats_lost').set(nats?.lost ?? 0)
    const incoming = server.stats()
    tcpErrors.with('server', 'unknown_endpoint').set(incoming.refusedUnknown)
    tcpErrors.with('server', 'overloaded').set(incoming.refusedOverloaded)
    tcpErrors.with('server', 'malformed').set(incoming.malformedFrames + incoming.unreadableRequests)
    tcpErrors.with('server', 'dial_failed').set(incoming.dialFailures)
    tlsFailures.with('response').set(handshakeFailures)
    if (incoming.handshakeFailures !== undefined) tlsFailures.with('request').set(incoming.handshakeFailures)
    const { stats } = eventPlane
    events.with('received').set(stats.received)
    events.with('published').set(stats.published)
    for (const [reason, count] of Object.entries(stats.dropped)) drops.with(reason).set(count)
    drops.with('publish').set(stats.publishDropped)
    drops.with('duplicate').set(stats.duplicates)
    channels.with('zmq').set(stats.subscriberSockets)
    channels.with('nats').set(stats.natsSubscriptions)
    showNats()
    if (link.stats.connects + link.stats.failedAttempts === 0) return
    waiting.with().set(nats?.held ?? 0)
    resent.with().set(nats?.resent ?? 0)
  })
}

/** Bounds of the original. Units: s. */
const sendBounds = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1]
const answerBounds = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

function timesOf(set: MetricSet): CallTimes {
  const encoded = set.histogram('dynamo_request_plane_queue_seconds', 'Encoding of a request, until it was handed to its connection', sendBounds, {}).with()
  const accepted = set.histogram('dynamo_request_plane_send_seconds', 'From the hand-over of a request until the worker had it', sendBounds, {}).with()
  const answered = set.histogram('dynamo_request_plane_roundtrip_ttft_seconds', 'From the hand-over of a request until the first item of its answer', answerBounds, {}).with()
  return {
    encoded: (seconds) => encoded.observe(seconds),
    accepted: (seconds) => accepted.observe(seconds),
    answered: (seconds) => answered.observe(seconds),
  }
}

function natsMetrics(set: MetricSet, link: Planes['link']): () => void {
  const connected = set.gauge('warmpath_nats_connected', '1 while connected to NATS; absent when NATS is not used', {})
  const connects = set.counter('warmpath_nats_connects_total', 'Connections to NATS that were established', {})
  const errors = set.counter('dynamo_transport_nats_errors_total', 'Failures of the NATS transport: connections lost or not established', {}, ['error_type'])
  return () => {
    const { stats } = link
    if (stats.connects + stats.failedAttempts === 0) return
    connected.with().set(link.connected ? 1 : 0)
    connects.with().set(stats.connects)
    errors.with('connect').set(stats.failedAttempts)
    errors.with('disconnected').set(stats.disconnects)
    errors.with('full').set(stats.full)
  }
}
