/** Waiting on a condition: the only way tests and interop scenarios wait. */
import { setTimeout as delay } from 'node:timers/promises'

type Check<Value> = () => Value | Promise<Value>
type Given<Value> = Exclude<Value, undefined | null | false>

/**
 * Resolves with what `check` gives once that is something: not undefined, null or false. Looks often at first, later every 50 ms.
 * `poke` runs before each look. `what` is told in the error that comes after `limitMs`; without it the condition's own text.
 */
export async function until<Value>(check: Check<Value>): Promise<Given<Value>>
export async function until<Value>(what: string, check: Check<Value>, limitMs?: number, poke?: () => void): Promise<Given<Value>>
export async function until<Value>(first: string | Check<Value>, second?: Check<Value>, limitMs = 30_000, poke: () => void = () => {}): Promise<Given<Value>> {
  const [what, check] = typeof first === 'string' ? [first, second as Check<Value>] : [`${first}`, first]
  const endMs = performance.now() + limitMs
  for (let pauseMs = 1; ; pauseMs = Math.min(50, pauseMs * 1.3)) {
    poke()
    const value = await check()
    if (value !== undefined && value !== null && value !== false) return value as Given<Value>
    if (performance.now() > endMs) throw new Error(`not within ${limitMs / 1000} s: ${what}`)
    await delay(pauseMs)
  }
}
