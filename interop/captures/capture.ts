/** Recorded scenarios of Dynamo's frontend: what was started, what was asked, and what client and workers then had. */
import { readFileSync } from 'node:fs'
import { fixturePath } from '../../test/repo-root.ts'
import { parseLossless } from '../deployment.ts'

/** One request that a worker had, in the normal form of `normal-form.ts`. */
export interface Leg {
  readonly worker: string
  readonly zone?: string
  readonly metadata?: unknown
  /** Names of trace headers. */
  readonly trace?: readonly string[]
  readonly request: unknown
  /** The hand-over by bootstrap that its first output carried. */
  readonly handed?: unknown
  /** What its worker logged last: done, cancelled, fail, or open when the worker is gone. */
  readonly ended: string
}

/** What became of one call. */
export interface Outcome {
  readonly answer: unknown
  /** Absent where it was not recorded. */
  readonly legs?: readonly Leg[]
}

export interface CallStep {
  readonly op: 'call'
  readonly method: string
  readonly path: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  /** The client goes after so many seconds. */
  readonly leaveAfter?: number
  readonly recorded?: Outcome
}

export type Step =
  | { readonly op: 'worker'; readonly label: string; readonly args: readonly string[] }
  | { readonly op: 'module'; readonly label: string; readonly module: string; readonly args: readonly string[] }
  | { readonly op: 'frontend'; readonly args: readonly string[] }
  | { readonly op: 'stop'; readonly label: string; readonly signal: NodeJS.Signals }
  | { readonly op: 'ready'; readonly label: string }
  | { readonly op: 'listed' | 'settle' | 'deployment' }
  | CallStep

const families = ['disagg', 'http', 'mocker'] as const

/** All captures by name. */
export function readCaptures(): ReadonlyMap<string, readonly Step[]> {
  const all = new Map<string, readonly Step[]>()
  for (const family of families) {
    const { captures } = parseLossless(readFileSync(fixturePath('behaviour', `captures-${family}.json`), 'utf8')) as { readonly captures: Readonly<Record<string, readonly Step[]>> }
    for (const [name, steps] of Object.entries(captures)) all.set(name, steps)
  }
  return all
}

/** Undoes the shortening of long repeated texts: `{"$repeat": [unit, times, rest]}`. */
export function expand(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(expand)
  if (typeof value !== 'object' || value === null) return value
  const repeat = (value as { readonly $repeat?: readonly [string, number, string] }).$repeat
  if (repeat !== undefined) return repeat[0].repeat(repeat[1]) + repeat[2]
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, expand(item)]))
}
