/** The two YAML files that a command reads: values for options (`--config`) and Dynamo's router policy. */
import { flagSpellings } from './option.ts'
import type { OptionTable } from './option.ts'
import type { ReadFile } from './draft.ts'
import type { WorkerSelectionSettings } from '../scheduling/selection-policy.ts'
import { UsageError, didYouMean } from './usage-error.ts'
import { readWorkerSelection } from './worker-selection.ts'

export interface FileEntry {
  readonly key: string
  /** As the file spells it. */
  readonly name: string
  readonly raw: unknown
}

/** Largest file that is read as YAML. */
const byteLimit = 1_048_576
const otherPolicySections = ['default_policy_family', 'policy_classes', 'uncached_isl_buckets', 'models', 'request_classifier']

/** A policy file as read. */
export interface PolicyFile {
  /** Its `router:` mapping. */
  readonly entries: readonly FileEntry[]
  /** Its `worker_selection` section; null: none. */
  readonly workerSelection: WorkerSelectionSettings | null
}

/** Entries of a `--config` file: a mapping whose keys are option names, with `-` or `_`. Errors: `UsageError`. */
export async function readConfigFile(path: string, table: OptionTable, readFile: ReadFile): Promise<FileEntry[]> {
  const document = await readMapping(path, '--config', readFile)
  const keyByName = new Map(Object.entries(table).map(([key, option]) => [option.name, key]))
  for (const flag of flagSpellings(table)) if (flag.switchValue !== false) keyByName.set(flag.spelling.slice(2), flag.key)
  const seen = new Map<string, string>()
  return Object.entries(document).map(([name, raw]) => {
    const key = keyByName.get(name.replaceAll('_', '-'))
    if (key === undefined || key === 'config') throw new UsageError(`${path}: unknown option ${JSON.stringify(name)}${didYouMean(name.replaceAll('_', '-'), keyByName.keys())}`)
    const other = seen.get(key)
    if (other !== undefined) throw new UsageError(`${path}: ${other} and ${name} are the same option; keep one`)
    seen.set(key, name)
    return { key, name, raw }
  })
}

/** Errors: `UsageError`, also for sections that this version lacks. */
export async function readPolicyFile(path: string, table: OptionTable, readFile: ReadFile): Promise<PolicyFile> {
  const document = await readMapping(path, '--router-policy-config', readFile)
  for (const name of Object.keys(document)) {
    if (name === 'router' || name === 'worker_selection') continue
    if (otherPolicySections.includes(name)) {
      throw new UsageError(`${path}: ${name}: not available in this version (requests are routed at once; keep only router: and worker_selection:)`)
    }
    throw new UsageError(`${path}: unknown section ${JSON.stringify(name)}${didYouMean(name, ['router', 'worker_selection', ...otherPolicySections])}`)
  }
  const section = document['worker_selection']
  const workerSelection = section === null || section === undefined ? null : readWorkerSelection(path, section)
  return { entries: readRouterMapping(path, document['router'], table), workerSelection }
}

function readRouterMapping(path: string, router: unknown, table: OptionTable): FileEntry[] {
  if (router === null || router === undefined) return []
  if (!isMapping(router)) throw new UsageError(`${path}: router must be a mapping of setting names to values`)
  const keyByName = new Map<string, string>()
  for (const [key, option] of Object.entries(table)) if (option.policyName !== null) keyByName.set(option.policyName, key)
  return Object.entries(router).map(([name, raw]) => {
    const key = keyByName.get(name)
    if (key === undefined) throw new UsageError(`${path}: unknown setting router.${name}${didYouMean(name, keyByName.keys())}`)
    return { key, name, raw }
  })
}

const isMapping = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

async function readMapping(path: string, option: string, readFile: ReadFile): Promise<Record<string, unknown>> {
  const text = new TextDecoder().decode(readBytes(path, option, readFile, byteLimit))
  const { parse } = await import('yaml')
  let document: unknown
  try {
    document = parse(text, { maxAliasCount: 100, prettyErrors: true })
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error)
    throw new UsageError(`${option} ${path}: not valid YAML: ${reason}`)
  }
  if (document === null || document === undefined) return {}
  if (!isMapping(document)) throw new UsageError(`${option} ${path}: must be a mapping of names to values`)
  return document
}

/** Errors: `UsageError` that names the option, the path and what the system said. */
export function readBytes(path: string, option: string, readFile: ReadFile, limit: number): Uint8Array {
  let bytes: Uint8Array
  try {
    bytes = readFile(path)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    throw new UsageError(`${option} ${path}: cannot be read (${code}); check the path and its permissions`)
  }
  if (bytes.length > limit) throw new UsageError(`${option} ${path}: ${bytes.length} bytes; at most ${limit} are read`)
  return bytes
}
