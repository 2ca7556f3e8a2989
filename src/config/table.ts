/** The option table per command: the one place that flags, environment, file, help and pages are made from. */
import type { OptionTable, ValuesOf } from './option.ts'
import { routerCoreOptions } from './options/router-core.ts'
import { routerOwnOptions } from './options/router-own.ts'
import { routerUnbuiltOptions } from './options/router-unbuilt.ts'
import { logOptions, namespaceOptions, routerRuntimeOptions, runtimeOptions, systemOptions } from './options/runtime.ts'
import { engineOptions, startOptions, workerOptions } from './options/simulation.ts'

export const routerOptions = {
  ...routerCoreOptions, ...routerOwnOptions, ...namespaceOptions, ...routerRuntimeOptions, ...runtimeOptions, ...systemOptions, ...logOptions,
  ...routerUnbuiltOptions,
}
export const startTable = { ...startOptions, ...engineOptions, ...logOptions }
export const workerTable = { ...workerOptions, ...engineOptions, ...namespaceOptions, ...runtimeOptions, ...systemOptions, ...logOptions }

export const tables = { router: routerOptions, start: startTable, worker: workerTable } as const satisfies Record<string, OptionTable>

export type CommandName = keyof typeof tables
export type CommandValues<Command extends CommandName> = ValuesOf<(typeof tables)[Command]>
export type RouterValues = CommandValues<'router'>
export type StartValues = CommandValues<'start'>
export type WorkerValues = CommandValues<'worker'>

export const commandSummaries: Readonly<Record<CommandName, string>> = {
  router: 'Routes requests of a Dynamo deployment to the worker whose cache is warm.',
  start: 'Starts simulated workers and a router in one process, to try it out.',
  worker: 'Starts a simulated worker as a Dynamo worker of its own.',
}
