/** The option table per command: the one place that flags, environment, file, help and pages are made from. */
import type { OptionTable, ValuesOf } from './option.ts'
import { frontendOptions } from './options/frontend.ts'
import { globalRouterOptions } from './options/global-router.ts'
import { routerDisaggOptions } from './options/disagg.ts'
import { policyOptions } from './options/policy.ts'
import { queueOptions } from './options/queue.ts'
import { routerCoreOptions } from './options/router-core.ts'
import { routerOwnOptions } from './options/router-own.ts'
import { replicaOptions } from './options/replicas.ts'
import { durableOptions } from './options/durable.ts'
import { selectionOptions } from './options/selection.ts'
import { indexerOptions, selectServiceOptions, slotTrackerOptions } from './options/services.ts'
import { logOptions, namespaceOptions, routerRuntimeOptions, runtimeOptions, systemOptions, workerHealthOptions } from './options/runtime.ts'
import { engineOptions, startOptions, workerOptions } from './options/simulation.ts'

export const routerOptions = {
  ...routerCoreOptions, ...selectionOptions, ...queueOptions, ...policyOptions, ...routerDisaggOptions, ...replicaOptions, ...routerOwnOptions, ...namespaceOptions, ...routerRuntimeOptions, ...runtimeOptions, ...systemOptions, ...logOptions,
  ...durableOptions,
}
/** The frontend's own spelling of a shared option counts. */
export const frontendTable = { ...routerRuntimeOptions, ...runtimeOptions, ...systemOptions, ...logOptions, ...replicaOptions, ...policyOptions, ...frontendOptions }
export const startTable = { ...startOptions, ...engineOptions, ...logOptions }
/** Probes work in workers only. */
const { healthCheckEnabled: _enabled, canaryWaitTime: _wait, healthCheckTimeout: _timeout, ...workerSystemOptions } = systemOptions
export const workerTable = { ...workerOptions, ...engineOptions, ...namespaceOptions, ...runtimeOptions, ...workerSystemOptions, ...workerHealthOptions, ...logOptions }

export const globalRouterTable = { ...globalRouterOptions, ...runtimeOptions, ...systemOptions, ...logOptions }

export const selectServiceTable = { ...selectServiceOptions, ...logOptions }
export const slotTrackerTable = { ...slotTrackerOptions, ...logOptions }
export const indexerTable = { ...indexerOptions, ...logOptions }

export const tables = { router: routerOptions, frontend: frontendTable, 'global-router': globalRouterTable, 'select-service': selectServiceTable, indexer: indexerTable, 'slot-tracker': slotTrackerTable, start: startTable, worker: workerTable } as const satisfies Record<string, OptionTable>

export type CommandName = keyof typeof tables
export type CommandValues<Command extends CommandName> = ValuesOf<(typeof tables)[Command]>
export type RouterValues = CommandValues<'router'>
export type FrontendValues = CommandValues<'frontend'>
export type GlobalRouterValues = CommandValues<'global-router'>
export type StartValues = CommandValues<'start'>
export type WorkerValues = CommandValues<'worker'>

export const commandSummaries: Readonly<Record<CommandName, string>> = {
  router: 'Routes requests of a Dynamo deployment to the worker whose cache is warm.',
  frontend: 'Serves the models of a Dynamo deployment over an OpenAI-compatible HTTP API, in one stage or two.',
  'global-router': 'Chooses among pools that each have a router of their own, by prompt length, targets and priority.',
  'select-service': 'Says over HTTP which worker a request is for, and keeps account of requests; workers are registered by calls.',
  indexer: 'Says over HTTP which workers hold which prefix of a prompt.',
  'slot-tracker': 'Keeps account over HTTP of what running requests occupy.',
  start: 'Starts simulated prefill and decode workers, router and HTTP API in one process, to try it out.',
  worker: 'Starts a simulated worker as a Dynamo worker of its own.',
}
