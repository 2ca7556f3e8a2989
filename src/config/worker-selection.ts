/** Named selection policies: the `worker_selection` section of a policy file, and the policy of each role. Source: router-algorithm 10.1. */
import type { WorkerRole } from '../model/worker.ts'
import { selectionPolicyFor, selectionPolicyFrom } from '../scheduling/selection-policy.ts'
import type { SelectionPolicySettings, WorkerSelectionSettings } from '../scheduling/selection-policy.ts'
import { placeOf } from './draft.ts'
import type { Draft } from './draft.ts'
import { UsageError, nearOr } from './usage-error.ts'

const roles: readonly WorkerRole[] = ['aggregated', 'prefill', 'decode', 'encode']

/** The policy of a pool by its role. */
export type SelectionPolicies = Readonly<Record<WorkerRole, SelectionPolicySettings>>

const isMapping = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null && !Array.isArray(value)

/** Checks the section as parsed. Errors: `UsageError` that names file, entry and mend. */
export function readWorkerSelection(path: string, section: unknown): WorkerSelectionSettings {
  const place = `${path}: worker_selection`
  if (!isMapping(section)) throw new UsageError(`${place} must be a mapping of roles to names, with instances`)
  const instances = new Map<string, SelectionPolicySettings>()
  const byRole: Partial<Record<WorkerRole, string>> = {}
  for (const [key, value] of Object.entries(section)) {
    if (key === 'instances') {
      for (const policy of readInstances(place, value)) {
        if (instances.has(policy.name)) throw new UsageError(`${place}.instances: two are named ${policy.name}; rename one`)
        instances.set(policy.name, policy)
      }
    } else if ((roles as readonly string[]).includes(key)) {
      if (typeof value !== 'string') throw new UsageError(`${place}.${key}: ${JSON.stringify(value)} is not valid; expected the name of an instance`)
      byRole[key as WorkerRole] = value
    } else throw new UsageError(`${place}: unknown key ${JSON.stringify(key)}${nearOr(key, [...roles, 'instances'], `the keys are ${[...roles, 'instances'].join(', ')}`)}`)
  }
  if (instances.size === 0 && Object.keys(byRole).length === 0) throw new UsageError(`${place} is empty; give an instance or a role, or leave it out`)
  const settings = { instances, byRole }
  for (const role of roles) {
    const found = selectionPolicyFor(role, { option: null, environment: null }, settings)
    if (typeof found === 'string') throw new UsageError(`${place}.${role}: ${found}`)
  }
  return settings
}

function readInstances(place: string, list: unknown): SelectionPolicySettings[] {
  if (!Array.isArray(list)) throw new UsageError(`${place}.instances must be a list of {name, type, parameters}`)
  return list.map((item: unknown, index) => {
    const at = `${place}.instances[${index}]`
    if (!isMapping(item)) throw new UsageError(`${at} must be a mapping with name, type and parameters`)
    const { name, type, parameters, ...others } = item
    const other = Object.keys(others)[0]
    if (other !== undefined) throw new UsageError(`${at}: unknown key ${JSON.stringify(other)}${nearOr(other, ['name', 'type', 'parameters'], 'the keys are name, type, parameters')}`)
    if (typeof name !== 'string' || typeof type !== 'string') throw new UsageError(`${at} needs a name and a type`)
    if (parameters !== undefined && parameters !== null && !isMapping(parameters)) throw new UsageError(`${at}.parameters must be a mapping`)
    const policy = selectionPolicyFrom(name, type, isMapping(parameters) ? parameters : {})
    if (typeof policy === 'string') throw new UsageError(`${at}: ${policy}`)
    return policy
  })
}

/** The policy of each role: option, then variable, then file. Errors: `UsageError` that names the option and the policies there are. */
export function selectionPoliciesOf(draft: Draft, selection: WorkerSelectionSettings | null): SelectionPolicies {
  const text = (key: string): string | null => (typeof draft.values[key] === 'string' ? draft.values[key] : null)
  const policyOf = (role: WorkerRole): SelectionPolicySettings => {
    const key = role === 'prefill' ? 'prefillPolicy' : 'decodePolicy'
    const option = text(key)
    const found = selectionPolicyFor(role, { option, environment: text('workerSelectionPolicy') }, selection)
    if (typeof found === 'string') throw new UsageError(`${placeOf(draft, option === null || option === '' ? 'workerSelectionPolicy' : key)}: ${found}`)
    return found
  }
  return { aggregated: policyOf('aggregated'), prefill: policyOf('prefill'), decode: policyOf('decode'), encode: policyOf('encode') }
}
