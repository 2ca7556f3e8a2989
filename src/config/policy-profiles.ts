/** Policy classes of a policy file, checked. Source: router-algorithm 10.1. */
import { queuePolicies, type PolicyClass, type PolicyProfile, type QueuePolicy, type UncachedBucket } from '../queue/policy-profile.ts'
import { UsageError, didYouMean, nearOr } from './usage-error.ts'

/** The profile for all models, and those of single ones. */
export interface PolicyProfiles {
  readonly root: PolicyProfile | null
  readonly models: ReadonlyMap<string, PolicyProfile>
}

export const noProfiles: PolicyProfiles = { root: null, models: new Map() }

/** Where an entry of a file stands: `:4`, or nothing when that is not known. */
export type LineOf = (path: readonly (string | number)[]) => string

type Mapping = Readonly<Record<string, unknown>>
type Path = readonly (string | number)[]

const profileKeys = ['default_policy_family', 'uncached_isl_buckets', 'policy_classes']
const classKeys = [
  'name', 'policy_family', 'cache_bucket', 'queue_policy', 'quantum', 'prefill_busy_threshold', 'prefill_busy_threshold_frac',
  'request_queue_limit_per_worker', 'raw_isl_token_queue_limit_per_worker', 'cached_token_queue_limit_per_worker',
]
const namePattern = /^[A-Za-z0-9_.-]+$/

const isMapping = (value: unknown): value is Mapping => typeof value === 'object' && value !== null && !Array.isArray(value)

/** Names of the sections of a policy file that this module reads. */
export const profileSections: readonly string[] = [...profileKeys, 'models']

/** Reads the profile sections of a policy file. Errors: `UsageError` that names file, entry, line and mend. */
export function readPolicyProfiles(file: string, document: Mapping, lineOf: LineOf = () => ''): PolicyProfiles {
  const reader = new ProfileReader(file, lineOf)
  const models = new Map<string, PolicyProfile>()
  const section = document['models']
  if (section !== undefined && section !== null) {
    if (!isMapping(section)) throw reader.error(['models'], 'must be a mapping of model names to profiles')
    for (const [model, profile] of Object.entries(section)) {
      if (model === '') throw reader.error(['models', model], 'a model name must not be empty')
      if (!isMapping(profile)) throw reader.error(['models', model], `must be a mapping with ${profileKeys.join(', ')}`)
      models.set(model, reader.profile(['models', model], profile))
    }
  }
  const hasRoot = profileKeys.some((key) => document[key] !== undefined && document[key] !== null)
  return { root: hasRoot ? reader.profile([], document) : null, models }
}

class ProfileReader {
  readonly #file: string
  readonly #lineOf: LineOf

  constructor(file: string, lineOf: LineOf) {
    this.#file = file
    this.#lineOf = lineOf
  }

  error(path: Path, message: string): UsageError {
    const text = path.map((part, index) => (typeof part === 'number' ? `[${part}]` : index === 0 ? part : `.${part}`)).join('')
    return new UsageError(`${this.#file}${this.#lineOf(path)}: ${text}${text === '' ? '' : ': '}${message}`)
  }

  profile(path: Path, given: Mapping): PolicyProfile {
    if (path.length > 0) this.#onlyKnown(path, given, profileKeys)
    const missing = profileKeys.filter((key) => given[key] === undefined || given[key] === null)
    if (missing.length > 0) throw this.error(path, `${profileKeys.join(', ')} belong together; add ${missing.join(' and ')}`)
    const defaultFamily = this.#name([...path, 'default_policy_family'], given['default_policy_family'])
    const buckets = this.#buckets([...path, 'uncached_isl_buckets'], given['uncached_isl_buckets'])
    const classes = this.#classes([...path, 'policy_classes'], given['policy_classes'], buckets)
    this.#checkFamilies(path, defaultFamily, classes, buckets)
    return { classes, defaultFamily, buckets }
  }

  #buckets(path: Path, given: unknown): UncachedBucket[] {
    const items = this.#list(path, given)
    const buckets: UncachedBucket[] = []
    for (const [index, item] of items.entries()) {
      const at = [...path, index]
      if (!isMapping(item)) throw this.error(at, 'must be a mapping with min_tokens and bucket')
      this.#onlyKnown(at, item, ['min_tokens', 'bucket'])
      const bucket = this.#name([...at, 'bucket'], item['bucket'])
      const minTokens = this.#count([...at, 'min_tokens'], item['min_tokens'], 0)
      const before = buckets.at(-1)
      if (before === undefined && minTokens !== 0) throw this.error([...at, 'min_tokens'], `${minTokens} is not valid; the first bucket starts at 0`)
      if (before !== undefined && minTokens <= before.minTokens) throw this.error([...at, 'min_tokens'], `${minTokens} is not valid; expected more than ${before.minTokens}, that of the bucket before`)
      if (buckets.some((other) => other.bucket === bucket)) throw this.error([...at, 'bucket'], `two buckets are named ${bucket}; rename one`)
      buckets.push({ minTokens, bucket })
    }
    return buckets
  }

  #classes(path: Path, given: unknown, buckets: readonly UncachedBucket[]): PolicyClass[] {
    const classes: PolicyClass[] = []
    for (const [index, item] of this.#list(path, given).entries()) {
      const at = [...path, index]
      if (!isMapping(item)) throw this.error(at, 'must be a mapping with name and quantum')
      this.#onlyKnown(at, item, classKeys)
      const read = this.#class(at, item)
      if (classes.some(({ name }) => name === read.name)) throw this.error([...at, 'name'], `two classes are named ${read.name}; rename one`)
      if (read.bucket !== null && !buckets.some(({ bucket }) => bucket === read.bucket)) {
        throw this.error([...at, 'cache_bucket'], `there is no bucket ${read.bucket}${didYouMean(read.bucket, buckets.map(({ bucket }) => bucket))}`)
      }
      if (read.family !== null && classes.some(({ family, bucket }) => family === read.family && bucket === read.bucket)) {
        throw this.error(at, `family ${read.family} has a class for bucket ${read.bucket} already; keep one`)
      }
      classes.push(read)
    }
    return classes
  }

  #class(at: Path, item: Mapping): PolicyClass {
    const name = this.#name([...at, 'name'], item['name'])
    const maybe = <T>(key: string, read: (path: Path, value: unknown) => T): T | null =>
      item[key] === undefined || item[key] === null ? null : read([...at, key], item[key])
    const family = maybe('policy_family', (path, value) => this.#name(path, value))
    const bucket = maybe('cache_bucket', (path, value) => this.#name(path, value))
    if ((family === null) !== (bucket === null)) throw this.error(at, 'policy_family and cache_bucket belong together; give both, or neither for a class that is asked for by its name')
    const count = (key: string): number | null => maybe(key, (path, value) => this.#count(path, value, 0))
    return {
      name, family, bucket,
      policy: maybe('queue_policy', (path, value) => this.#policy(path, value)) ?? 'fcfs',
      quantum: this.#count([...at, 'quantum'], item['quantum'], 1),
      busyTokens: count('prefill_busy_threshold'),
      busyFraction: maybe('prefill_busy_threshold_frac', (path, value) => this.#fraction(path, value)),
      limits: {
        requests: count('request_queue_limit_per_worker'),
        promptTokens: count('raw_isl_token_queue_limit_per_worker'),
        cachedTokens: count('cached_token_queue_limit_per_worker'),
      },
    }
  }

  #checkFamilies(path: Path, defaultFamily: string, classes: readonly PolicyClass[], buckets: readonly UncachedBucket[]): void {
    const families = new Set(classes.flatMap(({ family }) => (family === null ? [] : [family])))
    for (const [index, { name, family }] of classes.entries()) {
      if (family === null && families.has(name)) throw this.error([...path, 'policy_classes', index, 'name'], `${name} is the name of a family, too; rename one`)
    }
    for (const family of families) {
      const missing = buckets.find(({ bucket }) => !classes.some((each) => each.family === family && each.bucket === bucket))
      if (missing !== undefined) throw this.error([...path, 'policy_classes'], `family ${family} has no class for bucket ${missing.bucket}; add one`)
    }
    if (!families.has(defaultFamily)) throw this.error([...path, 'default_policy_family'], `no class has the family ${defaultFamily}${didYouMean(defaultFamily, families)}`)
  }

  #onlyKnown(path: Path, given: Mapping, known: readonly string[]): void {
    const unknown = Object.keys(given).find((key) => !known.includes(key))
    if (unknown !== undefined) throw this.error([...path, unknown], `unknown key${nearOr(unknown, known, `the keys are ${known.join(', ')}`)}`)
  }

  #list(path: Path, value: unknown): readonly unknown[] {
    if (!Array.isArray(value) || value.length === 0) throw this.error(path, 'must be a list with at least one entry')
    return value
  }

  #name(path: Path, value: unknown): string {
    if (typeof value === 'string' && namePattern.test(value)) return value
    throw this.error(path, value === undefined ? 'is missing' : `${JSON.stringify(value)} is not valid; expected letters, digits, ., - and _`)
  }

  #count(path: Path, value: unknown, minimum: number): number {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= minimum) return value
    throw this.error(path, value === undefined ? 'is missing' : `${JSON.stringify(value)} is not valid; expected a whole number of at least ${minimum}`)
  }

  #fraction(path: Path, value: unknown): number {
    if (typeof value === 'number' && Number.isFinite(value) && value >= 0) return value
    throw this.error(path, `${String(value)} is not valid; expected a number of at least 0`)
  }

  #policy(path: Path, value: unknown): QueuePolicy {
    if (value === 'lcfs') throw this.error(path, 'lcfs is not for policy files; expected fcfs or wspt')
    if ((queuePolicies as readonly unknown[]).includes(value)) return value as QueuePolicy
    throw this.error(path, `${JSON.stringify(value)} is not valid; expected fcfs or wspt`)
  }
}
