/**
 * `warmpath/worker`: a TypeScript program as a Dynamo worker, or as a caller of workers, in the manner of Dynamo's Python runtime.
 *
 * `createRuntime`, `runtime.endpoint(...)`, `endpoint.serveEndpoint(handler)`, `registerModel({...})`; `endpoint.client()` to call.
 */
export { createRuntime, DistributedRuntime } from './worker/runtime.ts'
export type { RuntimeSettings, ShutdownLimits } from './worker/runtime.ts'
export type { RuntimeOptions, RuntimeParts } from './worker/runtime-parts.ts'
export { Endpoint } from './worker/endpoint.ts'
export type { ServeOptions } from './worker/endpoint.ts'
export type { RequestHandler } from './worker/served-endpoint.ts'
export { Context } from './worker/context.ts'
export type { ContextOptions } from './worker/context.ts'
export { Client, ResponseStream } from './worker/client.ts'
export type { AnnotatedItem, CallOptions, WaitOptions } from './worker/client.ts'
export { registerModel, unregisterModel, updateModelTaints } from './worker/register-model.ts'
export type { ModelRegistration } from './worker/register-model.ts'
export type { ModelDescription } from './worker/model-card.ts'
export type { ModelRuntimeConfig } from './worker/runtime-config.ts'
export { ModelInput, ModelType, WorkerType } from './worker/model-kinds.ts'
export { KvEventPublisher } from './worker/kv-event-publisher.ts'
export type { BlockHashes, KvEventInput, KvEventPublisherOptions, KvPublisherStats, StoredEvent } from './worker/kv-event-publisher.ts'
export { WorkerMetricsPublisher } from './worker/worker-metrics-publisher.ts'
export type { WorkerLoad } from './worker/worker-metrics-publisher.ts'
export { FirstTokenSource } from './worker/first-token-source.ts'
export {
  ArgumentError, CannotConnect, Cancelled, ConnectionTimeout, Disconnected, DynamoError, EngineShutdown, HttpError, InvalidArgument, StreamIncomplete, Unknown,
  WorkerUnavailable,
} from './worker/errors.ts'
export type { PreprocessedRequest, LlmEngineOutput } from './worker/engine-messages.ts'
export type { WireObject, WireValue } from './dynamo/wire/body.ts'
export { MemoryDiscovery, MemoryStore } from './dynamo/discovery/memory-discovery.ts'
export { startSimulatedWorker } from './engines/simulated/worker.ts'
export type { SimulatedWorker, SimulatedWorkerOptions, SimulatedWorkerParts } from './engines/simulated/worker.ts'
export { engineSettings, engineDefaults } from './engines/simulated/settings.ts'
export type { EngineSettings } from './engines/simulated/settings.ts'
export { FailureError } from './model/failure.ts'
export type { Failure, FailureClass, FailureReason } from './model/failure.ts'
export { systemClock, systemRandom } from './system-ports.ts'
export type * from './ports.ts'
