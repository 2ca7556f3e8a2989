/** A played call beside the recorded one: every difference by its path, less the improvements that are named. */
import { isDeepStrictEqual } from 'node:util'

export interface Difference {
  /** Like `3.answer.status`: number of the call, then where. */
  readonly path: string
  readonly recorded: unknown
  readonly ours: unknown
}

/** A difference that is meant. One that does not show fails, too: then it is none. */
export interface Improvement {
  /** A path or the beginning of one; `*` stands for one part. */
  readonly at: string
  readonly why: string
  /** What ours must be there. */
  readonly check?: (ours: unknown) => boolean
  /** What ours must be there instead, in the form of the recording: one of these, in every field. */
  readonly instead?: readonly unknown[]
  /** It depends on chance whether it shows. */
  readonly byChance?: boolean
}

export function differences(path: string, recorded: unknown, ours: unknown): Difference[] {
  if (isDeepStrictEqual(recorded, ours)) return []
  if (Array.isArray(recorded) && Array.isArray(ours)) {
    const shared = Math.min(recorded.length, ours.length)
    const found = recorded.slice(0, shared).flatMap((item, index) => differences(`${path}.${index}`, item, ours[index]))
    if (recorded.length === ours.length) return found
    return [...found, ...Array.from({ length: Math.max(recorded.length, ours.length) - shared }, (_, index) => ({
      path: `${path}.${shared + index}`, recorded: recorded[shared + index], ours: ours[shared + index],
    }))]
  }
  if (!isMap(recorded) || !isMap(ours)) return [{ path, recorded, ours }]
  return [...new Set([...Object.keys(recorded), ...Object.keys(ours)])].flatMap((name) => {
    if (name in recorded && name in ours) return differences(`${path}.${name}`, recorded[name], ours[name])
    return [{ path: `${path}.${name}`, recorded: recorded[name], ours: ours[name] }]
  })
}

const isMap = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null && !Array.isArray(value)

function covers({ at }: Improvement, path: string): boolean {
  const wanted = at.split('.')
  const parts = path.split('.')
  return wanted.length <= parts.length && wanted.every((part, index) => part === '*' || part === parts[index])
}

/** What is neither equal nor named, and what is named but not there. `ours`: the played calls by number; `shaped`: gives `instead` the form of `ours`. */
export function unexplained(found: readonly Difference[], named: readonly Improvement[], ours: readonly unknown[], shaped: (wanted: unknown) => unknown): string[] {
  const left = found.filter(({ path }) => !named.some((improvement) => covers(improvement, path)))
  const idle = named.filter((improvement) => improvement.byChance !== true && !found.some(({ path }) => covers(improvement, path)))
  const wrong = named.filter(({ at, check }) => check !== undefined && !check(valueAt(ours, at)))
  return [
    ...left.map(show), ...idle.map(({ at, why }) => `${at}: equal, though named as an improvement (${why})`),
    ...wrong.map(({ at, why }) => `${at}: not as it should be (${why}): ${text(valueAt(ours, at))}`),
    ...named.flatMap((improvement) => otherThanWanted(improvement, ours, shaped)),
  ]
}

/** What differs from the nearest of the outcomes that are wanted instead of the recorded one. */
function otherThanWanted({ at, why, instead }: Improvement, ours: readonly unknown[], shaped: (wanted: unknown) => unknown): string[] {
  const all = (instead ?? []).map((wanted) => differences(at, shaped(wanted), valueAt(ours, at))).sort((left, right) => left.length - right.length)
  return (all[0] ?? []).map((difference) => `${show(difference).replace(': recorded', ': wanted')} (${why})`)
}

const valueAt = (tree: unknown, path: string): unknown =>
  path.split('.').reduce<unknown>((node, part) => (typeof node === 'object' && node !== null ? (node as Readonly<Record<string, unknown>>)[part] : undefined), tree)

const text = (value: unknown): string => (JSON.stringify(value, (_name, item: unknown) => (typeof item === 'bigint' ? `${item}` : item)) ?? 'absent').slice(0, 400)
const show = ({ path, recorded, ours }: Difference): string => `${path}: recorded ${text(recorded)}, ours ${text(ours)}`
