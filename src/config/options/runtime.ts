/** Settings of the Dynamo runtime that a process takes from its environment (or from the `--config` file), without flags. */
import { booleanOption, integerOption, maybeInteger, maybePath, maybeText, numberOption, textOption } from '../option.ts'
import { natsOptions, tlsOptions } from './planes.ts'

const env = (name: string, ...names: string[]) => ({ name, isFlag: false as const, since: 'Dynamo', env: names })
const planes = 'Planes and discovery'
const etcd = 'etcd'
const kubernetes = 'Kubernetes'
const tcp = 'TCP'
const system = 'Health, metrics and log'
const life = 'Start and end'
const later = { why: 'it comes with a later version' }

/** A variable that deployments set for other processes, or for mechanisms that work differently here. */
const idle = (name: string, variable: string, section: string, why: string) =>
  maybeText({ ...env(name, variable), section, noEffect: why, help: 'Accepted for compatibility.' })

export const namespaceOptions = {
  namespace: maybeText({
    ...env('namespace', 'DYN_NAMESPACE'), section: 'Target', defaultText: 'that of --endpoint',
    help: 'Namespace to serve in; the workers are looked for in it too.',
  }),
  namespaceWorkerSuffix: maybeText({
    ...env('namespace-worker-suffix', 'DYN_NAMESPACE_WORKER_SUFFIX'), section: 'Target',
    help: 'The workers are looked for in the namespace `<namespace>-<suffix>`.',
  }),
}

export const logOptions = {
  log: textOption('info', {
    ...env('log', 'DYN_LOG'), section: system, help: 'Log level: error, warn, info, debug or trace; `target=level` lists are taken too.',
  }),
  logJson: booleanOption(false, { ...env('log-json', 'DYN_LOGGING_JSONL'), section: system, help: 'Write the log as JSON lines.' }),
}

export const systemOptions = {
  systemPort: integerOption(-1, {
    ...env('system-port', 'DYN_SYSTEM_PORT'), minimum: -1, maximum: 65535, section: system, defaultText: '-1, off',
    help: 'Port of /health, /live and /metrics; 0 takes a free one, -1 is off.',
  }),
  systemHost: textOption('0.0.0.0', { ...env('system-host', 'DYN_SYSTEM_HOST'), section: system, help: 'Address that this port binds.' }),
  systemHealthPath: textOption('/health', {
    ...env('system-health-path', 'DYN_SYSTEM_HEALTH_PATH'), section: system,
    help: 'Path of the readiness answer.',
  }),
  systemLivePath: textOption('/live', { ...env('system-live-path', 'DYN_SYSTEM_LIVE_PATH'), section: system, help: 'Path of the liveness answer.' }),
  startingHealthStatus: maybeText({
    ...env('system-starting-health-status', 'DYN_SYSTEM_STARTING_HEALTH_STATUS'), section: system,
    noEffect: '/health answers ready as soon as requests are served, and not before', help: 'Accepted for compatibility.',
  }),
  healthCheckEnabled: idle('health-check-enabled', 'DYN_HEALTH_CHECK_ENABLED', system, 'no probe requests are made; /health tells what is served'),
  canaryWaitTime: idle('canary-wait-time', 'DYN_CANARY_WAIT_TIME', system, 'no probe requests are made; /health tells what is served'),
  healthCheckTimeout: idle('health-check-request-timeout', 'DYN_HEALTH_CHECK_REQUEST_TIMEOUT', system, 'no probe requests are made; /health tells what is served'),
  otelExport: idle('otel-export-enabled', 'OTEL_EXPORT_ENABLED', system, 'trace headers are passed on to the worker, spans are not exported'),
  useEndpointHealthStatus: maybeText({
    ...env('system-use-endpoint-health-status', 'DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS'), section: system,
    noEffect: '/health answers ready as soon as requests are served, and not before', help: 'Accepted for compatibility.',
  }),
}

/** Workers probe their handlers; routers and frontends have nothing to probe. */
export const workerHealthOptions = {
  healthCheckEnabled: booleanOption(false, {
    ...env('health-check-enabled', 'DYN_HEALTH_CHECK_ENABLED'), section: system,
    help: 'Ask endpoints that have a probe request when nobody else does; /health then tells whether they answer.',
  }),
  canaryWaitSeconds: numberOption(10, {
    ...env('canary-wait-time', 'DYN_CANARY_WAIT_TIME'), minimum: 0.001, unit: 'seconds', section: system,
    help: 'Time without a request after which an endpoint is probed.',
  }),
  healthCheckTimeoutSeconds: numberOption(3, {
    ...env('health-check-request-timeout', 'DYN_HEALTH_CHECK_REQUEST_TIMEOUT'), minimum: 0.001, unit: 'seconds', section: system,
    help: 'How long a probe may take to be answered.',
  }),
}

export const runtimeOptions = {
  discoveryBackend: textOption('etcd', {
    ...env('discovery-backend', 'DYN_DISCOVERY_BACKEND'), choices: ['etcd', 'file', 'mem', 'kubernetes'], choiceAliases: { memory: 'mem' },
    section: planes, help: 'Where processes find each other.',
  }),
  fileKv: maybePath({
    ...env('file-kv', 'DYN_FILE_KV'), section: planes, defaultText: '`dynamo_store_kv` in the temporary folder',
    help: 'Folder of file discovery.',
  }),
  requestPlane: textOption('tcp', {
    ...env('request-plane', 'DYN_REQUEST_PLANE'), choices: ['tcp', 'nats', 'http'], section: planes,
    help: 'How requests to endpoints here travel. Workers are called as their records say, whatever stands here.',
    unavailable: { why: 'the HTTP plane of Dynamo 1.1 is not spoken', mend: 'set it to tcp or nats in every process of the deployment', refuses: (value) => value === 'http' },
  }),
  requestPlaneCodec: textOption('msgpack', {
    ...env('request-plane-codec', 'DYN_REQUEST_PLANE_CODEC'), choices: ['msgpack', 'json'], section: planes, help: 'Codec that endpoints served here announce.',
  }),
  responsePlane: textOption('tcp', {
    ...env('response-plane', 'DYN_RESPONSE_PLANE'), choices: ['tcp', 'quic'], section: planes, help: 'How responses travel, also those of requests over NATS.',
    unavailable: { why: 'responses travel over TCP only', mend: 'set it to tcp in every process of the deployment' },
  }),
  eventPlane: textOption('zmq', {
    ...env('event-plane', 'DYN_EVENT_PLANE'), choices: ['zmq', 'nats'], section: planes,
    help: 'How events of this process travel. Publishers that say in their record that they use the other one are heard too.',
  }),
  eventPlaneHost: maybeText({
    ...env('event-plane-host', 'DYN_EVENT_PLANE_HOST'), section: planes, defaultText: 'found',
    help: 'Address that event publishers here announce.',
  }),
  zmqBrokerUrl: maybeText({
    ...env('zmq-broker-url', 'DYN_ZMQ_BROKER_URL'), section: planes,
    help: 'Brokers between event publishers and subscribers over ZMQ: `xsub=tcp://HOST:PORT[;...],xpub=tcp://HOST:PORT[;...]`. Unset: directly.',
  }),
  zmqBrokerEnabled: booleanOption(false, {
    ...env('zmq-broker-enabled', 'DYN_ZMQ_BROKER_ENABLED'), section: planes,
    help: 'Use the ZMQ brokers that are registered in the namespace, when none is named.',
  }),
  zmqSubscriberCapacity: idle(
    'zmq-event-subscriber-channel-capacity', 'DYN_ZMQ_EVENT_SUBSCRIBER_CHANNEL_CAPACITY', planes, 'at most 100,000 messages of a publisher wait; more are dropped and recovered',
  ),
  zmqIoThreads: integerOption(4, { ...env('zmq-io-threads', 'DYN_ZMQ_IO_THREADS'), minimum: 1, maximum: 64, section: planes, help: 'Threads that move event messages.' }),
  podName: maybeText({ ...env('pod-name', 'POD_NAME'), section: kubernetes, help: 'Name of the pod, where /etc/podinfo/pod_name does not tell.' }),
  podUid: maybeText({ ...env('pod-uid', 'POD_UID'), section: kubernetes, help: 'Uid of the pod, where /etc/podinfo/pod_uid does not tell.' }),
  podNamespace: maybeText({ ...env('pod-namespace', 'POD_NAMESPACE'), section: kubernetes, defaultText: '`default`', help: 'Namespace of the pod, where /etc/podinfo/pod_namespace does not tell.' }),
  kubeDiscoveryMode: textOption('pod', {
    ...env('kube-discovery-mode', 'DYN_KUBE_DISCOVERY_MODE'), choices: ['pod', 'container'], section: kubernetes,
    help: 'One process per pod, or per container of a pod.',
  }),
  containerName: maybeText({ ...env('container-name', 'CONTAINER_NAME'), section: kubernetes, help: 'Name of the container, in mode container.' }),
  kubeconfig: maybePath({ ...env('kubeconfig', 'KUBECONFIG'), section: kubernetes, defaultText: "~/.kube/config, else the pod's service account", help: 'How the API server is reached.' }),
  etcdEndpoints: textOption('http://localhost:2379', {
    ...env('etcd-endpoints', 'ETCD_ENDPOINTS'), section: etcd,
    help: 'Addresses of etcd, separated by commas.',
  }),
  etcdLeaseTtlSeconds: integerOption(30, {
    ...env('etcd-lease-ttl', 'ETCD_LEASE_TTL'), minimum: 1, unit: 'seconds', section: etcd,
    help: 'How long the records of a dead process stay.',
  }),
  etcdStartupTimeoutSeconds: numberOption(120, {
    ...env('etcd-startup-connect-timeout', 'ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS'), minimum: 0, unit: 'seconds', section: etcd, help: 'How long the start waits for etcd.',
  }),
  etcdKeepaliveIntervalSeconds: numberOption(15, {
    ...env('etcd-keepalive-interval', 'ETCD_KEEPALIVE_INTERVAL_SECONDS'), minimum: 0, unit: 'seconds', section: etcd,
    help: 'Silence after which the connection is probed; 0 = never.',
  }),
  etcdKeepaliveTimeoutSeconds: numberOption(10, {
    ...env('etcd-keepalive-timeout', 'ETCD_KEEPALIVE_TIMEOUT_SECONDS'), minimum: 0, unit: 'seconds', section: etcd,
    help: 'How long a probe may go unanswered.',
  }),
  etcdUsername: maybeText({ ...env('etcd-auth-username', 'ETCD_AUTH_USERNAME'), section: etcd, help: 'User name.' }),
  etcdPassword: maybeText({ ...env('etcd-auth-password', 'ETCD_AUTH_PASSWORD'), isSecret: true, section: etcd, help: 'Password.' }),
  etcdCa: maybeText({ ...env('etcd-auth-ca', 'ETCD_AUTH_CA'), section: etcd, help: 'Certificate of the authority, as PEM text or a path.' }),
  etcdClientCert: maybeText({
    ...env('etcd-auth-client-cert', 'ETCD_AUTH_CLIENT_CERT'), section: etcd,
    help: 'Client certificate, as PEM text or a path.',
  }),
  etcdClientKey: maybeText({
    ...env('etcd-auth-client-key', 'ETCD_AUTH_CLIENT_KEY'), isSecret: true, section: etcd,
    help: 'Client key, as PEM text or a path.',
  }),
  tcpRpcHost: maybeText({
    ...env('tcp-rpc-host', 'DYN_TCP_RPC_HOST'), section: tcp, defaultText: 'found',
    help: 'Address that endpoints here bind and announce.',
  }),
  tcpRpcPort: integerOption(0, {
    ...env('tcp-rpc-port', 'DYN_TCP_RPC_PORT'), minimum: 0, maximum: 65535, section: tcp,
    help: 'Port of it; 0 takes a free one.',
  }),
  tcpResponseStreamHost: maybeText({
    ...env('tcp-response-stream-host', 'DYN_TCP_RESPONSE_STREAM_HOST'), section: tcp, defaultText: 'found',
    help: 'Address that workers call back.',
  }),
  tcpResponseStreamPort: integerOption(0, {
    ...env('tcp-response-stream-port', 'DYN_TCP_RESPONSE_STREAM_PORT'), minimum: 0, maximum: 65535, section: tcp,
    help: 'Port of it; 0 takes a free one.',
  }),
  tcpListenBacklog: integerOption(4096, {
    ...env('tcp-listen-backlog', 'DYN_TCP_LISTEN_BACKLOG'), minimum: 1, maximum: 65535, section: tcp,
    help: 'Connections that may wait to be accepted.',
  }),
  tcpRequestTimeoutSeconds: numberOption(5, {
    ...env('tcp-request-timeout', 'DYN_TCP_REQUEST_TIMEOUT'), minimum: 0.001, unit: 'seconds', section: tcp,
    help: 'How long a worker may take to acknowledge a request.',
  }),
  tcpConnectTimeoutSeconds: numberOption(5, {
    ...env('tcp-connect-timeout', 'DYN_TCP_CONNECT_TIMEOUT'), minimum: 0.001, unit: 'seconds', section: tcp,
    help: 'How long connecting may take.',
  }),
  tcpPoolSize: integerOption(100, {
    ...env('tcp-pool-size', 'DYN_TCP_POOL_SIZE'), minimum: 1, maximum: 65535, section: tcp,
    help: 'Most request connections to one worker.',
  }),
  tcpHostIdleTtlSeconds: numberOption(300, {
    ...env('tcp-host-idle-ttl', 'DYN_TCP_HOST_IDLE_TTL_SECS'), minimum: 0, unit: 'seconds', section: tcp,
    help: 'How long unused connections are kept.',
  }),
  tcpMaxMessageSize: integerOption(33_554_432, {
    ...env('tcp-max-message-size', 'DYN_TCP_MAX_MESSAGE_SIZE'), minimum: 1024, maximum: 1_073_741_824, unit: 'bytes', section: tcp,
    help: 'Largest message that is taken.',
  }),
  engineRequestLimit: maybeInteger({ ...env('engine-request-limit', 'DYN_ENGINE_REQUEST_LIMIT'), minimum: 1, isNullable: true, section: tcp, defaultText: 'none',
    unavailable: { ...later, mend: 'unset it' }, help: 'Most requests that an endpoint here serves at once.' }),
  ...natsOptions,
  ...tlsOptions,
  eventPlaneCodec: idle('event-plane-codec', 'DYN_EVENT_PLANE_CODEC', planes, 'events are MessagePack, in Dynamo too'),
  tcpChannelBuffer: idle('tcp-channel-buffer', 'DYN_TCP_CHANNEL_BUFFER', tcp, 'requests are written to their connection at once'),
  tcpConnectLimit: idle('tcp-global-connect-limit', 'DYN_TCP_GLOBAL_CONNECT_LIMIT', tcp, 'connections to one worker are shared by its requests'),
  tcpShrinkSize: idle('tcp-shrink-message-size', 'DYN_TCP_SHRINK_MESSAGE_SIZE', tcp, 'buffers are not kept'),
  tcpWorkerPoolSize: idle('tcp-worker-pool-size', 'DYN_TCP_WORKER_POOL_SIZE', tcp, '--active-requests-max bounds the requests that are carried'),
  tcpWorkQueueSize: idle('tcp-work-queue-size', 'DYN_TCP_WORK_QUEUE_SIZE', tcp, '--active-requests-max bounds the requests that are carried'),
  requestQueueLimit: idle('dynamo-request-queue-limit', 'DYN_DYNAMO_REQUEST_QUEUE_LIMIT', tcp, 'it belongs to DYN_ENGINE_REQUEST_LIMIT'),
  inhibitedSeconds: numberOption(5, {
    ...env('runtime-inhibited-duration', 'DYN_RUNTIME_INHIBITED_DURATION_SECS'), minimum: 0, unit: 'seconds', section: 'When workers fail',
    help: 'How long a worker that failed gets no new requests; 0 = not at all.',
  }),
  shutdownTimeoutSeconds: numberOption(900, {
    ...env('runtime-graceful-shutdown-timeout', 'DYN_RUNTIME_GRACEFUL_SHUTDOWN_TIMEOUT_SECS'), minimum: 0, unit: 'seconds', section: life,
    help: 'How long open streams may take to finish after SIGTERM.',
  }),
  shutdownGraceSeconds: numberOption(1, {
    ...env('graceful-shutdown-grace-period', 'DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS'), minimum: 0, unit: 'seconds', section: life,
    help: 'How long callers get to notice that the record is gone before new requests are refused.',
  }),
}

export const routerRuntimeOptions = {
  minInitialWorkers: integerOption(0, {
    ...env('router-min-initial-workers', 'DYN_ROUTER_MIN_INITIAL_WORKERS'), minimum: 0, unit: 'workers', section: life,
    help: 'The router registers itself when this many workers are there.',
  }),
  activeRequestExpirySeconds: numberOption(300, {
    ...env('router-active-request-expiry', 'DYN_ROUTER_ACTIVE_REQUEST_EXPIRY_SECS'), minimum: 0.001, unit: 'seconds', section: 'What is tracked',
    help: 'A running request without a sign of life for this long no longer counts as load.',
  }),
  zmqEndpointsPerSubscriber: maybeText({
    ...env('router-zmq-endpoints-per-sub', 'DYN_ROUTER_ZMQ_ENDPOINTS_PER_SUB'), section: planes,
    noEffect: 'every publisher has a socket of its own', help: 'Accepted for compatibility.',
  }),
}
