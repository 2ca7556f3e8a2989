/** The two YAML files that a command reads: values for options (`--config`) and Dynamo's router policy. */
import { flagSpellings } from './option.ts'
import type { OptionTable } from './option.ts'
import type { ReadFile } from './draft.ts'
import type { WorkerSelectionSettings } from '../scheduling/selection-policy.ts'
import { UsageError, nearOr } from './usage-error.ts'
import { profileSections, readPolicyProfiles, type LineOf, type PolicyProfiles } from './policy-profiles.ts'
import { readWorkerSelection } from './worker-selection.ts'

export interface FileEntry {
  readonly key: string
  /** As the file spells it. */
  readonly name: string
  readonly raw: unknown
}

/** Largest file that is read as YAML. */
const byteLimit = 1_048_576
const policySections = ['router', ...profileSections, 'worker_selection', 'request_classifier']

/** A policy file as read. */
export interface PolicyFile {
  /** Its `router:` mapping. */
  readonly entries: readonly FileEntry[]
  /** Its `worker_selection` section; null: none. */
  readonly workerSelection: WorkerSelectionSettings | null
  readonly profiles: PolicyProfiles
}

/** Entries of a `--config` file: a mapping whose keys are option names, with `-` or `_`. `command` is named in errors. Errors: `UsageError`. */
export async function readConfigFile(path: string, command: string, table: OptionTable, readFile: ReadFile): Promise<FileEntry[]> {
  const document = await readMapping(path, '--config', readFile)
  const keyByName = new Map(Object.entries(table).map(([key, option]) => [option.name, key]))
  for (const flag of flagSpellings(table)) if (flag.switchValue !== false) keyByName.set(flag.spelling.slice(2), flag.key)
  const seen = new Map<string, string>()
  return Object.entries(document).map(([name, raw]) => {
    const key = keyByName.get(name.replaceAll('_', '-'))
    if (key === undefined || key === 'config') throw new UsageError(`${path}: unknown option ${JSON.stringify(name)}${nearOr(name.replaceAll('_', '-'), keyByName.keys(), `see warmpath ${command} --help, or leave it out`)}`)
    const other = seen.get(key)
    if (other !== undefined) throw new UsageError(`${path}: ${other} and ${name} are the same option; keep one`)
    seen.set(key, name)
    return { key, name, raw }
  })
}

/** Errors: `UsageError`, also for sections that this version lacks. */
export async function readPolicyFile(path: string, table: OptionTable, readFile: ReadFile): Promise<PolicyFile> {
  const { document, lineOf } = await readYaml(path, '--router-policy-config', readFile)
  for (const name of Object.keys(document)) {
    if (!policySections.includes(name)) throw new UsageError(`${path}${lineOf([name])}: unknown section ${JSON.stringify(name)}${nearOr(name, policySections, `the sections are ${policySections.slice(0, -1).join(', ')}`)}`)
  }
  if (document['request_classifier'] !== undefined && document['request_classifier'] !== null) {
    throw new UsageError(`${path}${lineOf(['request_classifier'])}: request_classifier: classifiers are plugins of Dynamo's own process; leave it out, and name the class in each request's metadata (policy-class)`)
  }
  const isEmpty = policySections.every((name) => document[name] === undefined || document[name] === null)
  const models = document['models']
  if (isEmpty || (isMapping(models) && Object.keys(document).length === 1 && Object.keys(models).length === 0)) {
    throw new UsageError(`${path}: says nothing; give ${policySections.slice(0, -1).join(', ')}, or leave --router-policy-config out`)
  }
  const section = document['worker_selection']
  const workerSelection = section === null || section === undefined ? null : readWorkerSelection(path, section)
  return { entries: readRouterMapping(path, document['router'], table, lineOf), workerSelection, profiles: readPolicyProfiles(path, document, lineOf) }
}

function readRouterMapping(path: string, router: unknown, table: OptionTable, lineOf: LineOf): FileEntry[] {
  if (router === null || router === undefined) return []
  if (!isMapping(router)) throw new UsageError(`${path}: router must be a mapping of setting names to values`)
  const keyByName = new Map<string, string>()
  for (const [key, option] of Object.entries(table)) if (option.policyName !== null) keyByName.set(option.policyName, key)
  return Object.entries(router).map(([name, raw]) => {
    const key = keyByName.get(name)
    if (key === undefined) throw new UsageError(`${path}${lineOf(['router', name])}: unknown setting router.${name}${nearOr(name, keyByName.keys(), `the settings are ${[...keyByName.keys()].join(', ')}`)}`)
    return { key, name, raw }
  })
}

const isMapping = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A YAML or JSON file that is a mapping. `option`: named in errors. Errors: `UsageError`. */
export async function readMapping(path: string, option: string, readFile: ReadFile): Promise<Record<string, unknown>> {
  return (await readYaml(path, option, readFile)).document
}

async function readYaml(path: string, option: string, readFile: ReadFile): Promise<{ document: Record<string, unknown>; lineOf: LineOf }> {
  const text = new TextDecoder().decode(readBytes(path, option, readFile, byteLimit))
  const { LineCounter, isMap, isNode, isPair, isScalar, isSeq, parseDocument } = await import('yaml')
  const lines = new LineCounter()
  let document: unknown
  let contents: unknown
  try {
    const parsed = parseDocument(text, { lineCounter: lines, prettyErrors: true })
    if (parsed.errors[0] !== undefined) throw parsed.errors[0]
    contents = parsed.contents
    document = parsed.toJS({ maxAliasCount: 100 })
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0]?.replace(/:$/, '') : String(error)
    throw new UsageError(`${option} ${path}: not valid YAML: ${reason}`)
  }
  const lineOf: LineOf = (place) => {
    let node = contents
    let offset: number | undefined
    for (const part of place) {
      const key: unknown = isMap(node) ? node.items.find((pair) => isScalar(pair.key) && String(pair.key.value) === String(part)) : isSeq(node) ? node.items[Number(part)] : undefined
      if (key === undefined) break
      node = isPair(key) ? key.value : key
      const at = isPair(key) ? key.key : key
      if (isNode(at)) offset = at.range?.[0] ?? offset
    }
    return offset === undefined ? '' : `:${lines.linePos(offset).line}`
  }
  if (document === null || document === undefined) return { document: {}, lineOf }
  if (!isMapping(document)) throw new UsageError(`${option} ${path}: must be a mapping of names to values`)
  return { document, lineOf }
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
